"""Whether a signed URL will still be good when its job starts, as far as the fleet's forecast says."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from diarization.errors import QueueUnavailable
from diarization.signed_url import signed_until
from tasks.fleet import Fleet
from tasks.snapshot import Snapshot
from tasks.submission import NewJob

FRESH_SECONDS = 10.0
"""For so long the last look at the fleet will do for URLs that are good until after all that waits."""


@dataclass(frozen=True)
class _Signed:
    """A new job whose URL is signed. `further` is how many of those submitted along with it are behind it in line."""

    job: NewJob
    until: float
    further: int


class Foresight:
    """Of one producer."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._looked_at = float("-inf")
        self._line_ends_at: float | None = None

    def warnings(self, jobs: Sequence[NewJob]) -> dict[str, str]:
        """Why jobs that have just been submitted, in this order, may find that their URL has run out; by their ids.

        Only where the fleet is asked because a URL could run out does it cost round trips: four for all jobs together.
        """
        signed = [
            _Signed(job, until, len(jobs) - index - 1)
            for index, job in enumerate(jobs)
            if job.request is not None and (until := signed_until(job.request.url)) is not None
        ]
        if not signed or self._outlasts_the_line(signed):
            return {}
        try:
            snapshot = self._fleet.snapshot()
        except QueueUnavailable:
            return {}  # the jobs are submitted; that nothing can be predicted is no failure
        ends_at = snapshot.now + snapshot.last_in_seconds
        self._looked_at, self._line_ends_at = time.monotonic(), ends_at
        found = {one.job.id: _warning(one, snapshot) for one in signed}
        return {job_id: text for job_id, text in found.items() if text is not None}

    def _outlasts_the_line(self, signed: Sequence[_Signed]) -> bool:
        """Whether all are good until after what waited at the last look; not said of what is to start later."""
        if self._line_ends_at is None or time.monotonic() - self._looked_at > FRESH_SECONDS:
            return False
        return all(one.until > self._line_ends_at and not one.job.schedule.later for one in signed)


def _warning(one: _Signed, snapshot: Snapshot) -> str | None:
    until = datetime.fromtimestamp(one.until, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    if one.until <= snapshot.now:
        return f"its signed URL has run out ({until})"
    start_at = _start_at(one, snapshot)
    if start_at is None or start_at < one.until:
        return None
    minutes = (start_at - one.until) / 60
    return (
        f"its signed URL runs out at {until}, {minutes:.0f} min before the job's predicted start: "
        "sign it for longer, and submit it again"
    )


def _start_at(one: _Signed, snapshot: Snapshot) -> float | None:
    schedule = one.job.schedule
    if schedule.due_at is not None:
        return schedule.due_at
    if schedule.countdown is not None:
        return snapshot.now + schedule.countdown
    # Behind the part of the line that is looked at one by one: what has just been submitted is last.
    return snapshot.position(one.job.id, snapshot.waiting_jobs - one.further).start_at
