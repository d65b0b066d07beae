"""A recording's URL to a local file: what may be fetched, how much, and how long it may take.

Built on `http.client`, over a socket that `addresses.connect` checked: so there are no proxies, no netrc, no cookies and
no redirects but those followed here, and every wait for the server is cut into slices, in which deadlines are looked at
and a cancel is heard.

Whatever the server does wrong may be right next time, hence is transient: 5xx, silence, a reset, an answer that is not
HTTP, a certificate that has run out. A host that does not exist, a refusal, a redirect that leads nowhere would be the
same again, hence is permanent.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import fcntl
import http.client
import io
import os
import re
import socket
import ssl
import stat
import string
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast
from urllib.parse import SplitResult, quote, unquote, unquote_to_bytes, urljoin

from diarization.addresses import SLICE_SECONDS, Network, canonical_host, connect
from diarization.errors import (
    DiskFull,
    InvalidJob,
    RecordingFetchFailed,
    RecordingForbidden,
    RecordingNotFound,
    RecordingTooLarge,
    RecordingUndecodable,
    UrlNotAllowed,
)
from diarization.recording import Recording, parse_url, redact_url

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

Report = Callable[[str, int, int], None]

STAGE = "download"
MAX_REDIRECTS = 5
REPORT_SECONDS = 0.5

_CHUNK_BYTES = 1 << 20
_PREFIX = "diarize-recording-"
_PORTS = {"http": 80, "https": 443}
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TRANSIENT_STATUSES = frozenset({408, 425, 429})
_COMPRESSIONS = frozenset({"gzip", "x-gzip", "deflate", "compress", "x-compress", "br", "zstd"})
_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NO_SUCH_HOST = frozenset({socket.EAI_NONAME, socket.EAI_NODATA, socket.EAI_ADDRFAMILY})
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
# They frame the message, name the host or change which bytes come: not the caller's to set.
_RESERVED_HEADERS = frozenset(
    {"accept-encoding", "connection", "content-length", "expect", "host", "range", "te", "transfer-encoding", "upgrade"}
)


@contextlib.contextmanager
def download(
    recording: Recording,
    directory: Path | None = None,
    *,
    allowed_networks: Iterable[Network] = (),
    recordings_dir: Path | None = None,
    max_bytes: int,
    timeout_seconds: float,
    stall_timeout_seconds: float,
    report: Report,
) -> Iterator[Path]:
    """The recording as a local file, for as long as the context lasts.

    An http or https URL is fetched into a temporary file (without a suffix, readable by its owner alone), which is gone
    when the context ends, whatever ended it; what a kill -9 leaves behind, `sweep_leftovers` removes. A file URL gives
    the file where it lies. An empty file, or one that is no audio, is left to decoding.

    At most `MAX_REDIRECTS` redirects are followed, each target checked like the first URL, never from https to http.
    `recording.headers`, and the URL's user and password, are not sent on once a redirect left scheme, host and port.

    Args:
        recording: What to fetch, with the headers to send.
        directory: Where the temporary file is made; None is the system's choice.
        allowed_networks: May be fetched from though they are not public.
        recordings_dir: File URLs below it are read; none where it is None.
        max_bytes: A larger recording is refused, at once where the server says its size.
        timeout_seconds: For the whole download.
        stall_timeout_seconds: For the connection, for the answer's head, and between two bytes of its body.
        report: Hears `("download", bytes done, bytes in all or 0)` at least every second; may raise to stop.

    Yields:
        Path of the local file.

    Raises:
        UrlNotAllowed: The URL, or a redirect, leads where recordings may not be fetched from, or without end.
        InvalidJob: A header of the recording cannot be sent.
        RecordingNotFound: HTTP 404 or 410; no such host; no such file.
        RecordingForbidden: HTTP 401, 403 or another refusal (4xx); a file that may not be read.
        RecordingTooLarge: More than `max_bytes`.
        RecordingUndecodable: The server sends a compressed form though asked not to.
        RecordingFetchFailed: Anything else between here and the server; it may work next time.
        DiskFull: No space for the temporary file.
    """
    parts = parse_url(recording.url)
    if parts.scheme == "file":
        path, size = _local_file(recording, parts, recordings_dir, max_bytes)
        report(STAGE, size, size)
        yield path
        return
    _check_headers(recording.headers)
    watch = _Watch(timeout_seconds, stall_timeout_seconds, report)
    with _temporary_file(directory) as (file, path):
        _fetch(recording, file, tuple(allowed_networks), max_bytes, watch)
        yield path


def sweep_leftovers(directory: Path | None = None) -> int:
    """Remove the temporary files of downloads whose process is dead; how many there were.

    A living download holds a lock on its file, which the kernel takes back however the process ends. So this may run
    beside other workers, in the same container or not.
    """
    swept = 0
    for path in Path(directory or tempfile.gettempdir()).glob(_PREFIX + "*"):
        with contextlib.suppress(OSError):  # in use, not ours, or gone by now
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
                swept += 1
            finally:
                os.close(descriptor)
    return swept


@contextlib.contextmanager
def _temporary_file(directory: Path | None) -> Iterator[tuple[BinaryIO, Path]]:
    file, path = _locked_file(directory)
    try:
        with file:
            yield file, path
    finally:
        path.unlink(missing_ok=True)


def _locked_file(directory: Path | None) -> tuple[BinaryIO, Path]:
    while True:
        with _disk_errors():
            descriptor, name = tempfile.mkstemp(prefix=_PREFIX, dir=directory)
        # Unbuffered: a full disk shows in the write that meets it, not when the file is closed.
        file = cast(BinaryIO, io.FileIO(descriptor, "wb"))
        with contextlib.suppress(OSError):  # a file system without locks is never swept
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        # A sweep between creation and lock took it for a leftover.
        if os.fstat(descriptor).st_nlink:
            return file, Path(name)
        file.close()


@contextlib.contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise DiskFull(f"no space for the recording's temporary file: {os.strerror(error.errno)}") from None
        raise


def _local_file(
    recording: Recording, parts: SplitResult, recordings_dir: Path | None, max_bytes: int
) -> tuple[Path, int]:
    """The file that a file URL names, with its size in bytes."""
    if recordings_dir is None:
        raise UrlNotAllowed("file URLs are not read here: DIARIZATION_RECORDINGS_DIR is not set")
    try:
        path = Path(os.fsdecode(unquote_to_bytes(parts.path))).resolve()
    except (OSError, RuntimeError, ValueError):  # a loop of links; a NUL
        raise UrlNotAllowed(f"{recording} names no path") from None
    # Told before anything is said of whether it exists.
    if not path.is_relative_to(recordings_dir.resolve()):
        raise UrlNotAllowed(f"{recording} is not below DIARIZATION_RECORDINGS_DIR")
    try:
        # Links are resolved by now: one that is met here was put there since. A FIFO must not hold the opening up.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except PermissionError:
        raise RecordingForbidden(f"the worker may not read {recording}") from None
    except OSError as error:
        raise RecordingNotFound(f"{recording}: {os.strerror(error.errno or errno.ENOENT)}") from None
    with os.fdopen(descriptor, "rb", closefd=True, buffering=0) as file:
        status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode):
        raise UrlNotAllowed(f"{recording} is not a regular file")
    if status.st_size > max_bytes:
        raise RecordingTooLarge(f"{recording} has {status.st_size} bytes; at most {max_bytes} are allowed")
    return path, status.st_size


class _Watch:
    """The clock of one download, and its voice."""

    def __init__(self, timeout_seconds: float, stall_timeout_seconds: float, report: Report) -> None:
        self.done_bytes = 0
        self.total_bytes = 0
        self._report = report
        self._timeout_seconds = timeout_seconds
        self._stall_timeout_seconds = stall_timeout_seconds
        self._deadline = time.monotonic() + timeout_seconds
        self._next_report = 0.0
        self.await_("connection")

    def await_(self, what: str) -> None:
        """From now on `what` is waited for."""
        self._awaited = what
        self._stall_deadline = time.monotonic() + self._stall_timeout_seconds

    def received(self, count: int) -> None:
        """So many bytes of the recording came in."""
        self.done_bytes += count
        self.await_("byte")

    def tick(self) -> None:
        """Look at the clock, and report where it is time to.

        Raises:
            RecordingFetchFailed: It takes too long.
            Cancelled: Raised by the report.
        """
        now = time.monotonic()
        if now > self._deadline:
            raise RecordingFetchFailed(
                f"the download is not complete after {self._timeout_seconds:g} s: {self.progress()}"
            )
        if now > self._stall_deadline:
            raise RecordingFetchFailed(
                f"no {self._awaited} from the server within {self._stall_timeout_seconds:g} s: {self.progress()}"
            )
        if now >= self._next_report:
            self.report()

    def report(self) -> None:
        """Report now."""
        self._report(STAGE, self.done_bytes, self.total_bytes)
        self._next_report = time.monotonic() + REPORT_SECONDS

    def progress(self) -> str:
        """How far the download is, in words."""
        return f"{self.done_bytes} of {self.total_bytes or 'an unknown number of'} bytes came"


class _Wire(io.RawIOBase):
    """A socket as `http.client` needs it, whose every wait is cut into slices."""

    def __init__(self, sock: socket.socket, tick: Callable[[], None]) -> None:
        self._sock = sock
        self._tick = tick

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self, io.DEFAULT_BUFFER_SIZE)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        return self._patiently(lambda: self._sock.recv_into(buffer))

    def sendall(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[self._patiently(lambda: self._sock.send(rest)) :]

    def close(self) -> None:
        """Nothing: `http.client` closes its end before the body is read; who opened the socket closes it."""

    def _patiently(self, move: Callable[[], int]) -> int:
        while True:
            self._tick()
            try:
                return move()
            except TimeoutError:
                continue
            except OSError as error:
                raise RecordingFetchFailed(f"the connection broke: {_reason(error)}") from None
