"""The line of waiting jobs, and how it would be done, in order, by the GPUs here and by so many slots at RunPod. Pure.

List scheduling: the first in line goes to who is free first. Times are seconds since 1970 where a name ends in `_at` or
is `now`, and seconds otherwise; a pace is seconds of processing per audio hour.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from heapq import heapify, heapreplace

Slot = tuple[float, float]
"""Of what runs one job at a time: when it is free, and a number that says how fast it is then."""

SPARE_SHARE = 1 / 2
"""No more than this share of the time that a job has left is kept in reserve."""
LEAST_GAIN_SECONDS = 30.0
"""One more job at RunPod that makes no late job punctual must save this much lateness, summed over all that wait."""


@dataclass(frozen=True)
class GpuWorker:
    """A live worker of one's own.

    Attributes:
        seconds_per_audio_hour: Of processing, for one job while as many run as do at a time; measured, or a default.
        jobs_at_once: How many it runs at a time.
        seconds_left: What each of its running jobs still needs, estimated.
    """

    seconds_per_audio_hour: float
    jobs_at_once: int = 1
    seconds_left: tuple[float, ...] = ()


@dataclass(frozen=True)
class WaitingJob:
    """A job in line.

    Attributes:
        audio_seconds: The recording's length, known or expected.
        deadline_at: By then it should be done.
        may_leave: Whether RunPod may have it.
    """

    audio_seconds: float
    deadline_at: float
    may_leave: bool = True


@dataclass(frozen=True)
class Fleet:
    """What is at home.

    Attributes:
        workers: The GPU workers that live.
        waiting: The first in line, in order; a few hundred at most.
        behind: How many wait behind those. They count in `last_finish_at` alone: they are judged when they are nearer.
        behind_audio_seconds: The mean length of those.
    """

    workers: tuple[GpuWorker, ...] = ()
    waiting: tuple[WaitingJob, ...] = ()
    behind: int = 0
    behind_audio_seconds: float = 0.0

    @property
    def idle_slots(self) -> int:
        """How many more jobs could run here now."""
        return sum(max(0, worker.jobs_at_once - len(worker.seconds_left)) for worker in self.workers)


@dataclass(frozen=True)
class RemoteJob:
    """A job at RunPod.

    Attributes:
        seconds_left: Until its result is here, estimated.
        may_come_home: It is IN_QUEUE still, and not pinned to RunPod.
    """

    seconds_left: float
    may_come_home: bool = False


@dataclass(frozen=True)
class Remote:
    """What is known of RunPod. The defaults are what is taken for granted until something is measured.

    Attributes:
        jobs: In flight.
        idle_workers: Warm ones without a job; each takes one without a cold start.
        throttled: No further worker can start: only those that are idle, or run our jobs, count.
        cold_start_seconds: From the start of a worker until it takes a job: the middle of the 7 s to 7 min that were
            seen by others.
        queue_delay_seconds: What a job waits beside that: the default of the endpoint's scaler.
        seconds_per_audio_hour: Of processing there.
        failure_share: Of the latest jobs, how many did not bring a result.
        breaker: Why nothing is to be sent at all, in a few words for the operator; None while all is well.
    """

    jobs: tuple[RemoteJob, ...] = ()
    idle_workers: int = 0
    throttled: bool = False
    cold_start_seconds: float = 100.0
    queue_delay_seconds: float = 4.0
    seconds_per_audio_hour: float = 120.0
    failure_share: float = 0.05
    breaker: str | None = None


@dataclass(frozen=True)
class Forecast:
    """What becomes of the jobs in line.

    Attributes:
        finishes: When each is done, in order.
        last_finish_at: When the last of those behind them is done.
        late: How many are not in time, by a cautious view.
        lateness_seconds: By how much, in all.
    """

    finishes: tuple[float, ...]
    last_finish_at: float
    late: int
    lateness_seconds: float


@dataclass(frozen=True)
class Line:
    """The jobs in line. `spare_seconds`: so long before its deadline a job should be done to be called in time."""

    fleet: Fleet
    remote: Remote
    now: float
    spare_seconds: float

    @cached_property
    def jobs(self) -> tuple[WaitingJob, ...]:
        """Those that can be done at all: without a GPU worker, what may not leave waits for one."""
        waiting = self.fleet.waiting
        return waiting if self.fleet.workers else tuple(job for job in waiting if job.may_leave)

    @cached_property
    def head(self) -> int | None:
        """The place, from 0, of the job that the bridge would take."""
        return next((place for place, job in enumerate(self.jobs) if job.may_leave), None)

    @cached_property
    def here(self) -> Forecast:
        """Without any further job at RunPod."""
        return self.forecast(0)

    @cached_property
    def tightest(self) -> tuple[float, int]:
        """By how many seconds the job that does worst here is late, negative where it is in time; and its place."""
        return max(
            (finish - job.deadline_at, place)
            for place, (finish, job) in enumerate(zip(self.here.finishes, self.jobs, strict=True))
        )

    def forecast(self, slots: int) -> Forecast:
        """With so many jobs at RunPod at one time."""
        here, away = self._here(), self._away(slots)
        finishes, late, lateness_seconds = [], 0, 0.0
        for job in self.jobs:
            finish = self._take_there(job, here, away) if job.may_leave and away else None
            if finish is None:
                finish = _take_here(job, here)
            finishes.append(finish)
            over = finish + self._spare_seconds(job) - job.deadline_at
            if over > 0:
                late += 1
                lateness_seconds += over
        return Forecast(tuple(finishes), self._last_finish(finishes, here), late, lateness_seconds)

    def cheapest(self, max_in_flight: int) -> int:
        """The smallest number of jobs at RunPod with which all are in time; where none is, the one that helps most."""
        most = min(max_in_flight, len(self.remote.jobs) + sum(job.may_leave for job in self.jobs))
        if self.remote.throttled:
            most = min(most, len(self.remote.jobs) + self.remote.idle_workers)
        best, cheapest = self.here, 0
        for slots in range(1, most + 1):
            if not best.late:
                break
            found = self.forecast(slots)
            if found.late < best.late or found.lateness_seconds < best.lateness_seconds - LEAST_GAIN_SECONDS:
                best, cheapest = found, slots
        return cheapest

    def finish_there(self, job: WaitingJob, slots: int) -> float:
        """When it would be done if it were the next for RunPod, with so many jobs there."""
        return self._end_there(job, self._away(slots)[0]) + self._again_seconds(job, self._here())

    def _spare_seconds(self, job: WaitingJob) -> float:
        """What a job should have left when it is done; less where its deadline is near."""
        return max(0.0, min(self.spare_seconds, SPARE_SHARE * (job.deadline_at - self.now)))

    def _here(self) -> list[Slot]:
        """The slots of the GPUs, each with its pace, as a heap."""
        slots = []
        for worker in self.fleet.workers:
            idle = [0.0] * max(0, worker.jobs_at_once - len(worker.seconds_left))
            slots += [(self.now + left, worker.seconds_per_audio_hour) for left in (*worker.seconds_left, *idle)]
        heapify(slots)
        return slots

    def _away(self, slots: int) -> list[Slot]:
        """The slots at RunPod, each with what its next job waits there, as a heap.

        While more are in flight than there are slots, one is free only when enough of those have ended.
        """
        remote = self.remote
        ends = sorted(self.now + job.seconds_left for job in remote.jobs)
        away = [(end, remote.queue_delay_seconds) for end in ends[max(0, len(ends) - slots) :]]
        for place in range(slots - len(ends)):
            start_seconds = 0.0 if place < remote.idle_workers else remote.cold_start_seconds
            away.append((self.now, start_seconds + remote.queue_delay_seconds))
        heapify(away)
        return away

    def _take_there(self, job: WaitingJob, here: list[Slot], away: list[Slot]) -> float | None:
        """When RunPod has it done; None where a GPU here is free first, or where RunPod would be of no use to it."""
        if here and here[0][0] <= away[0][0]:
            return None
        end = self._end_there(job, away[0])
        finish = end + self._again_seconds(job, here)
        if here and finish > job.deadline_at and finish >= _end_here(job, here[0]):
            return None
        heapreplace(away, (end, self.remote.queue_delay_seconds))
        if here:
            free_at, pace = here[0]
            heapreplace(here, (free_at + finish - end, pace))
        return finish

    def _end_there(self, job: WaitingJob, slot: Slot) -> float:
        free_at, wait_seconds = slot
        return free_at + wait_seconds + job.audio_seconds / 3600 * self.remote.seconds_per_audio_hour

    def _again_seconds(self, job: WaitingJob, here: list[Slot]) -> float:
        """What is to be expected for doing it once more, first in line, should RunPod fail."""
        pace = here[0][1] if here else self.remote.seconds_per_audio_hour
        return self.remote.failure_share * job.audio_seconds / 3600 * pace

    def _last_finish(self, finishes: list[float], here: list[Slot]) -> float:
        """Of all that wait: what is behind those listed flows to the slots by their speed."""
        if not self.fleet.behind or not here:
            return finishes[-1] if finishes else self.now
        audio_hours = self.fleet.behind * self.fleet.behind_audio_seconds / 3600
        speeds = [1 / pace for _, pace in here]
        free = sum(free_at * speed for (free_at, _), speed in zip(here, speeds, strict=True))
        return (free + audio_hours) / sum(speeds)


def _end_here(job: WaitingJob, slot: Slot) -> float:
    free_at, pace = slot
    return free_at + job.audio_seconds / 3600 * pace


def _take_here(job: WaitingJob, here: list[Slot]) -> float:
    if not here:
        return math.inf
    finish = _end_here(job, here[0])
    heapreplace(here, (finish, here[0][1]))
    return finish
