"""A command at a terminal: a pty of a given size, and what a person would see on it."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

import pyte

from tests.processes import ROOT

ALTERNATE, NORMAL = b"\x1b[?1049h", b"\x1b[?1049l"
"""What switches to a screen that is gone afterwards, and back."""


class Terminal:
    """`python -m tasks …`, or another command, at a terminal. It is killed at the end of the block.

    Attributes:
        written: All that came, as bytes.
        process: The command's.
    """

    def __init__(
        self, *arguments: str, columns: int = 80, rows: int = 24, command: Sequence[str] = (), **environment: str
    ) -> None:
        self._screen = pyte.HistoryScreen(columns, rows, history=2000)
        self._stream = pyte.ByteStream(self._screen)
        self._master, slave = pty.openpty()
        self.written = b""
        self.resize(columns, rows, tell=False)
        inherited = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
        self.process = subprocess.Popen(
            list(command) or [sys.executable, "-m", "tasks", *arguments],
            cwd=ROOT,
            env={**inherited, "TERM": "xterm-256color", **environment},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._master)

    @property
    def lines(self) -> list[str]:
        """The screen, as it is now."""
        return [line.rstrip() for line in self._screen.display]

    @property
    def text(self) -> str:
        """The same, as one text."""
        return "\n".join(self.lines)

    @property
    def scrolled(self) -> int:
        """How many lines have left the screen at the top."""
        return len(self._screen.history.top)

    @property
    def is_coloured(self) -> bool:
        """Whether anything that stands there has a colour."""
        return any(cell.fg != "default" for line in self._screen.buffer.values() for cell in line.values())

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._master, keys.encode())

    def resize(self, columns: int, rows: int, *, tell: bool = True) -> None:
        """Make the window larger or smaller; what runs in it is told."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self._screen.resize(rows, columns)
        if tell:
            self.process.send_signal(signal.SIGWINCH)

    def wait_for(self, what: str | Callable[[str], bool], seconds: float = 30) -> str:
        """The screen, once it shows that text or fulfils that condition."""
        deadline = time.monotonic() + seconds
        fits = what if callable(what) else lambda text: what in text
        while not fits(self.text):
            if not self._read(deadline - time.monotonic()):
                raise AssertionError(f"not on the screen within {seconds} s: {what}\n{self.text}")
        return self.text

    def wait(self, seconds: float = 30) -> int:
        """Read on until the command has ended; its exit code."""
        deadline = time.monotonic() + seconds
        while self._read(deadline - time.monotonic()):
            pass
        return self.process.wait(max(0.1, deadline - time.monotonic()))

    def _read(self, seconds: float) -> bool:
        """Take what comes next; whether anything did."""
        if not select.select([self._master], [], [], max(0.0, seconds))[0]:
            return False
        try:
            part = os.read(self._master, 65536)
        except OSError:  # Linux says so when the other end is closed
            return False
        self.written += part
        self._stream.feed(part)
        return bool(part)
