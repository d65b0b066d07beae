"""A socket for `http.client`, whose every wait is cut into slices: in each a clock is looked at, or a cancel heard."""

from __future__ import annotations

import io
import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING

from diarization.errors import RecordingFetchFailed

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


def reason_of(error: OSError) -> str:
    """Why a connection failed, in words without an address or a name."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not valid ({error.verify_message.rstrip('.')})"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({error.reason or type(error).__name__})"
    return error.strerror or type(error).__name__


class Wire(io.RawIOBase):
    """A socket as `http.client` needs it, whose every wait is cut into slices by the socket's timeout."""

    def __init__(self, sock: socket.socket, tick: Callable[[], None]) -> None:
        # `http.client` would take the end of the connection for the end of the head.
        self.may_end = False
        self._sock = sock
        self._tick = tick

    def makefile(self, _mode: str) -> io.BufferedReader:
        """What `http.client` reads the answer from."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Wait for bytes; how many came."""
        count = self._in_slices(lambda: self._sock.recv_into(buffer))
        if not count and not self.may_end:
            raise RecordingFetchFailed("the connection ended before the answer's head did")
        return count

    def sendall(self, data: bytes) -> None:
        """Send all of them."""
        while data:
            data = data[self._in_slices(lambda: self._sock.send(data)) :]  # noqa: B023 - called at once

    def close(self) -> None:
        """Nothing: `http.client` closes its end before the body is read; who opened the socket closes it."""

    def _in_slices(self, move: Callable[[], int]) -> int:
        while True:
            self._tick()
            try:
                return move()
            except TimeoutError:
                continue
            except OSError as error:
                raise RecordingFetchFailed(f"the connection broke: {reason_of(error)}") from None
