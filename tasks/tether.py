"""Child processes that end with the process that started them, however that one ends.

A server or a worker left behind by a killed parent would hold its port, its memory and its jobs for ever. On Linux the
kernel ends a tethered process when the thread that started it is gone, even after kill -9, and a sweeper ends whatever
that process has started in turn; on other systems an orderly end of the parent must do. This file is also the launcher:
it ties the knot, then becomes the command.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

PR_SET_PDEATHSIG = 1  # linux/prctl.h
SWEEP_SECONDS = 0.5


def spawn_tethered(
    command: Sequence[str | Path],
    *,
    stdout: int | IO[bytes] = subprocess.DEVNULL,
    stderr: int | IO[bytes] = subprocess.STDOUT,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start `command` so that it ends with this process. Call it from a thread that lives as long as the child shall.

    The process has the command's own pid, so signals reach the command itself. It has a session of its own: a Ctrl-C
    at the terminal reaches the parent alone, which decides in which order things end.

    Args:
        command: The program's path (or its name on PATH) and its arguments.
        stdout: As in `subprocess`.
        stderr: As in `subprocess`.
        environment: The command's whole environment; None hands on this process's.
        folder: Where it runs; None is where this process runs.
    """
    launcher = [sys.executable, "-I", "-S", __file__, str(os.getpid())]
    return subprocess.Popen(
        [*launcher, *map(str, command)],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        env=environment,
        cwd=folder,
        start_new_session=True,
    )


def end(process: subprocess.Popen[bytes], patience_seconds: float) -> None:
    """Ask a process to end, and kill it where it does not in time."""
    process.terminate()
    try:
        process.wait(patience_seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _tie_and_become(parent_pid: int, command: list[str]) -> None:
    if sys.platform == "linux":
        _end_with_parent(signal.SIGKILL)
        own_pid = os.getpid()
        if os.fork() == 0:
            _sweep(own_pid)
    if os.getppid() != parent_pid:
        raise SystemExit(f"the process that wanted {command[0]} is gone")
    try:
        os.execvp(command[0], command)  # noqa: S606 - it becomes the command
    except OSError as error:
        raise SystemExit(f"{command[0]} cannot be started: {error.strerror}") from None


def _end_with_parent(by: signal.Signals) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, by, 0, 0, 0)


def _sweep(command_pid: int) -> None:
    """Sleep until the command is gone, then end what is left of its process group.

    A killed Celery worker takes its pool children along, but not one that has been spawned and not yet been set up.
    First by SIGTERM: multiprocessing's trackers ignore it, and have to clear away semaphores before they end.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    os.setpgid(0, 0)
    _end_with_parent(signal.SIGTERM)
    while os.getppid() == command_pid:
        signal.sigwait({signal.SIGTERM})
    deadline = time.monotonic() + SWEEP_SECONDS
    with suppress(ProcessLookupError):  # nobody is left
        os.killpg(command_pid, signal.SIGTERM)
        while time.monotonic() < deadline:
            os.killpg(command_pid, 0)
            time.sleep(0.05)
        os.killpg(command_pid, signal.SIGKILL)
    os._exit(0)


if __name__ == "__main__":
    _tie_and_become(int(sys.argv[1]), sys.argv[2:])
