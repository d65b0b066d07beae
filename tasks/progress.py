"""An attempt's progress, written into its record."""

from __future__ import annotations

import time

from diarization.diarizer import Report
from diarization.errors import Cancelled, QueueUnavailable
from tasks.record import JobRecord
from tasks.records import Records

EVERY_SECONDS = 0.5
QUIET_AFTER_OUTAGE_SECONDS = 10.0


class Superseded(Cancelled):
    """Somebody else runs the job now; nothing that this attempt writes would count."""


class Reports:
    """Several `Report`s as one; the first that raises ends the attempt."""

    def __init__(self, *reports: Report) -> None:
        self._reports = reports

    def __call__(self, stage: str, done: int, total: int) -> None:
        """See `diarization.diarizer.Report`."""
        for report in self._reports:
            report(stage, done, total)


class StageClock:
    """How long each stage of an attempt took that is over.

    Attributes:
        seconds: By stage, in the order in which they began.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._stage = ""
        self._since = 0.0

    def enter(self, stage: str, now: float) -> None:
        """The attempt is in that stage at `now`, in monotonic seconds."""
        if stage == self._stage:
            return
        if self._stage:
            self.seconds[self._stage] = round(self.seconds.get(self._stage, 0.0) + now - self._since, 3)
        self._stage, self._since = stage, now


class Progress:
    """A `Report` that writes seldom, and never holds the attempt up for long where Redis does not answer."""

    def __init__(self, records: Records, record: JobRecord) -> None:
        self._records = records
        self._record = record
        self._stage = ""
        self._stages = StageClock()
        self._decoded_seconds: float | None = None
        self._next_write = 0.0
        self._quiet_until = 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        """See `diarization.diarizer.Report`.

        Raises:
            Cancelled: The job was cancelled.
            Superseded: Another worker runs it now.
        """
        if stage == "decode":
            self._decoded_seconds = float(done)
        now = time.monotonic()
        self._stages.enter(stage, now)
        if now < self._quiet_until or (now < self._next_write and stage == self._stage):
            return
        percent = min(100.0, 100.0 * done / total) if total else 0.0
        try:
            # While it is being decoded, a recording is longer than what there is of it.
            length = None if stage == "decode" else self._decoded_seconds
            over = None if stage == self._stage else self._stages.seconds
            answer = self._records.progress(self._record.id, self._record.token, stage, percent, length, over)
        except QueueUnavailable:
            self._quiet_until = now + QUIET_AFTER_OUTAGE_SECONDS
            return
        self._next_write, self._stage = now + EVERY_SECONDS, stage
        if answer == "cancel":
            raise Cancelled("the job was cancelled while it ran")
        if answer == "lost":
            raise Superseded("the job is run by another worker now")
