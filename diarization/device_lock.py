"""One job at a time on a device that several processes use: while one computes, the others fetch, decode and cluster.

A lock on a file, which the kernel drops when its process ends, however it ends. Two jobs at once on one GPU would take
as long as one after the other, and twice the memory.
"""

from __future__ import annotations

import fcntl
import os
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Final

LOOK_SECONDS: Final = 0.01
"""Between two looks for a device that is taken: it is idle for half as long where one job follows another."""

HEARD_EVERY: Final = 50  # looks

PROCESSES_PER_GPU: Final = 2
"""So many keep a GPU busy: docs/speed.md has the figures."""


class DeviceLock:
    """Of one process.

    The file is opened once: a lock then needs no room on the disk, and outlives whoever clears the folder.
    """

    def __init__(self, path: Path | None) -> None:
        """Begin.

        Args:
            path: The same for all processes that share the device; None where this one has it for itself.

        Raises:
            OSError: The file can be neither opened nor made.
        """
        self._descriptor = None if path is None else os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        if self._descriptor is not None:
            weakref.finalize(self, os.close, self._descriptor)

    @contextmanager
    def held(self, waits: Callable[[], None]) -> Iterator[None]:
        """While the block runs, no other process is in such a block.

        Args:
            waits: Called twice a second while another one is; may raise to end the wait.
        """
        if self._descriptor is None:
            yield
            return
        for look in count():
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if look % HEARD_EVERY == 0:
                    waits()
                time.sleep(LOOK_SECONDS)
            else:
                break
        try:
            yield
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
