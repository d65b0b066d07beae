"""Real workers and servers in processes of their own, which end with the test run, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from tasks.tether import end, spawn_tethered

ROOT = Path(__file__).resolve().parent.parent

T = TypeVar("T")

OURS = ("DIARIZATION_", "QUEUE_", "OVERFLOW_", "WEBHOOK_", "RUNPOD_", "REDIS_", "HF_", "FLOWER_", "WORKER_", "CELERY_")


def forget_settings() -> None:
    """A developer's shell must not change what is tested or measured, nor must their GPU."""
    for name in [name for name in os.environ if name.startswith(OURS)]:
        del os.environ[name]
    os.environ["DIARIZATION_JOBS_PER_GPU"] = "1"


def run_cli(*arguments: str, code: int = 0, given: str = "", **settings: str) -> subprocess.CompletedProcess[str]:
    """`python -m tasks …` in a process of its own, which must end with `code` and without a traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "tasks", *arguments],
        cwd=ROOT,
        env={**os.environ, **settings},
        input=given,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    return done


def wait_until(condition: Callable[[], T], seconds: float = 30, what: str = "") -> T:
    """What `condition` gives once it is true."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {seconds} s: {what or condition}"
        time.sleep(0.02)


@contextmanager
def running_server(
    command: Sequence[str], log: Path, answers: Callable[[], object], *, folder: Path = ROOT, **settings: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """A server in a process of its own, from when it `answers` until the block ends; until then it may refuse."""
    environment = {**os.environ, **{name: str(value) for name, value in settings.items()}}
    with log.open("ab") as sink:
        process = spawn_tethered(command, stdout=sink, environment=environment, folder=folder)

    def is_there() -> bool:
        try:
            return process.poll() is not None or bool(answers())
        except OSError:
            return False

    try:
        wait_until(is_there, what=f"it answers: {' '.join(command)}")
        assert process.poll() is None, log.read_text()
        yield process
    finally:
        end(process, 20)


class Worker:
    """`celery … worker` in a process of its own, its log in a file."""

    def __init__(
        self, log: Path, name: str, environment: dict[str, str], arguments: tuple[str, ...], options: tuple[str, ...]
    ) -> None:
        self._log = log
        self.folder = log.parent
        command = [sys.executable, "-m", "celery", *arguments, "worker", "-n", f"{name}@test", "-l", "info", *options]
        with log.open("wb") as sink:
            self.process = spawn_tethered(command, stdout=sink, environment={**os.environ, **environment}, folder=ROOT)

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
