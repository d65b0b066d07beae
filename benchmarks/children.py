"""Processes that work for a benchmark side by side: where one of them dies, all end, within a second or two."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from queue import Empty
from typing import TypeVar

LOOK_SECONDS = 1.0
"""Between two looks at the processes while none of them tells anything."""

T = TypeVar("T")


class ChildDied(Exception):
    """A process ended before its work was done; the message says which, and how."""


@contextmanager
def watched(children: Sequence[BaseProcess], told: Queue[T]) -> Iterator[Callable[[], T]]:
    """Start `children`; the block gets a function that waits for the next of what they tell. None outlives the block.

    Args:
        children: They end by themselves once they have told all.
        told: What they put there is heard in that order.

    Raises:
        ChildDied: By that function.
    """

    def heard() -> T:
        while True:
            for number, child in enumerate(children, 1):
                if child.exitcode:
                    raise ChildDied(f"process {number} of {len(children)} died with exit code {child.exitcode}")
            with suppress(Empty):
                return told.get(timeout=LOOK_SECONDS)

    for child in children:
        child.start()
    try:
        yield heard
        for child in children:
            child.join()
    finally:
        for child in children:
            child.terminate()
            child.join()
