"""The pulse of a pool child: how the worker's main process tells one that works from one that hangs, and how the other
children know what memory its job will take.

A child notes each sign of progress in a small file of its own, which the main process reads. A file, because it works
while Redis is down; made in advance, because it works when the disk is full. What it cannot see is a child that runs in
a circle and reports: that is left to Celery's time limit.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diarization.memory import needed_bytes, resident_bytes
from tasks.vitals import lives

BYTES = 512
QUIET_SHARE = 0.05
"""Seconds without a sign, per second of the recording: clustering 10 hours is silent for 5 minutes on a slow CPU."""


@dataclass(frozen=True)
class Stall:
    """A child that has shown no sign of progress for longer than it may."""

    pid: int
    job_id: str
    silent_seconds: float
    stage: str


class Pulse:
    """A child's side. Monotonic seconds, which all processes of a machine share."""

    def __init__(self, folder: Path, *, stall_seconds: float, download_stall_seconds: float) -> None:
        self._stall_seconds = stall_seconds
        self._download_stall_seconds = download_stall_seconds
        self._folder = folder
        self._held_bytes = 0
        _forget_dead(folder)
        self._descriptor = os.open(folder / f"{os.getpid()}.pulse", os.O_RDWR | os.O_CREAT, 0o600)
        self._job_id = ""
        self._audio_seconds = 0.0
        self._write("", 0.0)

    @contextmanager
    def of(self, job_id: str) -> Iterator[None]:
        """While the block runs, this child works on that job, and may hang."""
        self._job_id, self._audio_seconds, self._held_bytes = job_id, 0.0, resident_bytes()
        self("start", 0, 0)
        try:
            yield
        finally:
            self._job_id = ""
            self._write("", 0.0)

    def __call__(self, stage: str, done: int, total: int) -> None:
        """See `diarization.diarizer.Report`."""
        if stage == "decode":
            self._audio_seconds = max(self._audio_seconds, done)
        quiet = self._download_stall_seconds if stage == "download" else self._audio_seconds * QUIET_SHARE
        self._write(stage, self._stall_seconds + quiet)

    def claims(self) -> list[int]:
        """What each job of the worker's other children will yet take of the machine's memory, in bytes."""
        claims = []
        for pid, (job_id, _, _, _, audio_seconds, held_bytes) in _signs(self._folder):
            holds = resident_bytes(pid)  # nothing, of a child that is dead
            if job_id and holds and pid != os.getpid():
                claims.append(max(0, needed_bytes(audio_seconds) - max(0, holds - held_bytes)))
        return claims

    def _write(self, stage: str, may_be_silent_seconds: float) -> None:
        job = self._job_id, stage, time.monotonic(), may_be_silent_seconds, self._audio_seconds, self._held_bytes
        line = json.dumps(job)
        os.pwrite(self._descriptor, line.encode().ljust(BYTES), 0)


def stalled(folder: Path) -> list[Stall]:
    """Children that are silent for longer than they may be, as the main process sees it."""
    found = []
    for pid, (job_id, stage, at, may_be_silent_seconds, *_) in _signs(folder):
        silent_seconds = time.monotonic() - at
        if job_id and silent_seconds > may_be_silent_seconds:
            found.append(Stall(pid, job_id, silent_seconds, stage))
    return found


def _forget_dead(folder: Path) -> None:
    """Remove what killed children have left: another process may get the pid of one, and would be taken for it."""
    for path in folder.glob("*.pulse"):
        if not lives(int(path.stem)):
            path.unlink(missing_ok=True)


def _signs(folder: Path) -> Iterator[tuple[int, list[Any]]]:
    """The latest sign of each child, by its pid."""
    for path in folder.glob("*.pulse"):
        with suppress(OSError, ValueError):  # it is being made
            yield int(path.stem), json.loads(path.read_text())
