"""A view that is drawn anew every few seconds: in its place on a terminal, one block after another elsewhere."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from select import select
from types import FrameType
from typing import NoReturn, TypeVar

from rich.console import Console, RenderableType
from rich.live import Live

from diarization.errors import QueueUnavailable
from tasks.commands.console import local_time, printable

LEAST_SECONDS = 0.2
"""Between two looks: a view is for people."""
TERMINATED = 128 + signal.SIGTERM

Seen = TypeVar("Seen")


def is_screen(console: Console) -> bool:
    """Whether a view can be drawn in its place, with bars: not on a pipe, nor where TERM is `dumb`."""
    return console.is_terminal and not console.is_dumb_terminal


def watch(
    console: Console,
    read: Callable[[], Seen],
    draw: Callable[[Seen, str], RenderableType | None],
    every_seconds: float,
    until: Callable[[Seen], bool] = lambda _: False,
) -> Seen:
    """Show what `read` gives, again and again; what it gave last, once `until` says that this is enough.

    A Redis that goes away meanwhile is told of in the view, which goes on; a terminal whose size changes is drawn on at
    once.

    Args:
        console: Where it is shown.
        read: Looks at Redis.
        draw: What it gave, with a remark about its age that is mostly empty; None where there is nothing to say.
        every_seconds: From one look to the next.
        until: Whether it is over.

    Raises:
        QueueUnavailable: Redis cannot be reached at the first look.
        KeyboardInterrupt: Ctrl-C; the terminal is as it was before.
    """
    seen, remark = read(), ""
    away_since: float | None = None
    with _terminal(console) as show, _alarm_clock() as sleep:
        while True:
            block = draw(seen, remark)
            if block is not None:
                show(block)
            if until(seen):
                return seen
            sleep(every_seconds)
            try:
                seen, remark, away_since = read(), "", None
            except QueueUnavailable as error:
                away_since = away_since or time.time()
                remark = (
                    f"no answer since {local_time(away_since)}, and this is from before: {printable(error.message)}"
                )


@contextmanager
def _terminal(console: Console) -> Iterator[Callable[[RenderableType], None]]:
    """How a block is shown: on a screen of its own, which is gone at the end, or as lines."""
    if not is_screen(console):
        yield lambda block: _print(console, block)
        return
    with Live(console=console, screen=True, auto_refresh=False, vertical_overflow="crop") as live:
        yield lambda block: live.update(block, refresh=True)


def _print(console: Console, block: RenderableType) -> None:
    console.print(block, soft_wrap=True)
    console.file.flush()


@contextmanager
def _alarm_clock() -> Iterator[Callable[[float], None]]:
    """Sleeps for so many seconds, or until the terminal's size changes. A SIGTERM unwinds, and leaves it as it was.

    A pipe and no `threading.Event`, whose lock the sleeper may hold when the signal comes.
    """
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def wake(number: int, frame: FrameType | None) -> None:
        with suppress(BlockingIOError):  # it is full, so it wakes in any case
            os.write(writer, b"\0")

    def end(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(TERMINATED)

    def sleep(seconds: float) -> None:
        if select([reader], [], [], seconds)[0]:
            os.read(reader, 4096)

    before = signal.signal(signal.SIGWINCH, wake), signal.signal(signal.SIGTERM, end)
    try:
        yield sleep
    finally:
        signal.signal(signal.SIGWINCH, before[0])
        signal.signal(signal.SIGTERM, before[1])
        os.close(reader)
        os.close(writer)
