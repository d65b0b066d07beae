"""The line of waiting jobs, as the GPUs here and so many places at RunPod would work it off. Pure.

It is list scheduling (Graham, "Bounds on multiprocessing timing anomalies", SIAM J. Appl. Math. 17, 1969), here and
there: whoever is free takes the job that is first in line, which is what a queue does by itself.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MARGIN_SHARE = 0.1
"""Once open, the valve stays open until each waiting job would be done here with so much of its time to spare: a tenth
of what is left until its deadline."""
MOST_FAILURES = 0.9
"""A higher share of failures is counted as this one; a provider that fails so often is the breaker's business."""
IDLE_SECONDS = 5.0
"""What RunPod bills after a worker's last job, unless the endpoint says otherwise
(https://docs.runpod.io/serverless/endpoints/endpoint-configurations)."""
TAIL_PIECES = 50
"""As so many jobs are those played through that wait behind the ones listed."""
NEVER_SECONDS = 1e7
"""A job that is never done is so late: longer than any deadline, and still a number that can be summed."""


@dataclass(frozen=True)
class Job:
    """One that waits.

    Attributes:
        audio_seconds: How long its recording is expected to be; the running mean where the caller did not say.
        deadline: By then it should be done, on the clock of `now`.
        may_leave: Whether it may be done by RunPod.
    """

    audio_seconds: float
    deadline: float
    may_leave: bool = True


@dataclass(frozen=True)
class Worker:
    """A GPU worker that lives.

    Attributes:
        seconds_per_audio_hour: What one job takes for an hour of audio, while `slots` of them run.
        slots: Jobs that it runs at a time.
        busy_seconds: For each job that it runs, the seconds that one is expected to need still.
    """

    seconds_per_audio_hour: float
    slots: int = 1
    busy_seconds: tuple[float, ...] = ()


@dataclass(frozen=True)
class Fleet:
    """What is ours.

    Attributes:
        workers: The GPU workers.
        waiting: The jobs that wait, first in line first; as many as can be looked at one by one.
        more_jobs: How many wait behind those.
        more_audio_seconds: The mean length of their recordings.
    """

    workers: tuple[Worker, ...] = ()
    waiting: tuple[Job, ...] = ()
    more_jobs: int = 0
    more_audio_seconds: float = 0.0


@dataclass(frozen=True)
class Remote:
    """What is known of RunPod. The defaults are what is assumed until something is measured.

    Attributes:
        cold_start_seconds: From submission until a job starts where a worker has to be started for it.
        queue_delay_seconds: The same where a warm worker takes it.
        seconds_per_audio_hour: What a job takes there for an hour of audio.
        failure_share: Of the runs there, how many fail and have to be done again.
        in_flight_seconds: For each job that is there, the seconds that one is expected to need still.
        in_queue: How many of those have not been started.
        queued_seconds: How long the oldest of those has waited: the next one will hardly start sooner.
        warm_workers: Workers that are up and have nothing to do.
        max_workers: Workers that RunPod would run for us now; None is not known; 0 where it throttles all of them or
            an endpoint that nobody used has lost them.
        breaker: Why nothing can be sent there at all; None where it can.
    """

    cold_start_seconds: float = 90.0
    queue_delay_seconds: float = 2.0
    seconds_per_audio_hour: float = 60.0
    failure_share: float = 0.05
    in_flight_seconds: tuple[float, ...] = ()
    in_queue: int = 0
    queued_seconds: float = 0.0
    warm_workers: int = 0
    max_workers: int | None = None
    breaker: str | None = None

    def seconds(self, job: Job, *, warm: bool) -> float:
        """From submission until the job is done, if each failure means another run: 1 / (1 - p) runs are expected."""
        start = self.queue_delay_seconds if warm else max(self.cold_start_seconds, self.queued_seconds)
        once = start + job.audio_seconds / 3600 * self.seconds_per_audio_hour
        return once / (1 - min(self.failure_share, MOST_FAILURES))


class Line:
    """The line now, and how it would be worked off. All times are seconds from now.

    Attributes:
        fleet: The GPU workers, and what waits.
        remote: RunPod.
        jobs: Those that wait; behind the listed ones a few that stand for the others.
        idle: Jobs that workers here would take at once.
        alone: When each job would be done if none went to RunPod; `inf` where there is no worker.
        next: Those that a bridge may take, first the one that it would take now.
    """

    def __init__(self, fleet: Fleet, remote: Remote, now: float, *, was_open: bool) -> None:
        self.remote = remote
        self.fleet = fleet
        self.jobs = [*fleet.waiting, *_tail(fleet)]
        self._leaving = [index for index, job in enumerate(self.jobs) if job.may_leave]
        self._places = [(free, each.seconds_per_audio_hour / 3600) for each in fleet.workers for free in _free_in(each)]
        self._due = [job.deadline - now for job in self.jobs]
        share = MARGIN_SHARE if was_open else 0.0
        self._wanted = [due - share * max(0.0, due) for due in self._due]
        self.idle = sum(free <= 0 for free, _ in self._places)
        self.alone = self._play(0)
        # Workers that are free take the first in line before any bridge does.
        self.next = [index for index in self._leaving if index >= self.idle]

    def late(self, done_in: Sequence[float]) -> list[float]:
        """By how many seconds each late job is late; while the valve is open, late is whoever has no margin."""
        pairs = zip(done_in, self._wanted, strict=True)
        return [min(done - wanted, NEVER_SECONDS) for done, wanted in pairs if done > wanted]

    def spare(self) -> list[float]:
        """How many seconds before its deadline each job would be done here; below 0 for who would be late."""
        return [due - done for due, done in zip(self._due, self.alone, strict=True)]

    def there(self, index: int) -> float:
        """When RunPod would have this job done if it were sent now."""
        return self.remote.seconds(self.jobs[index], warm=self.remote.warm_workers > 0)

    def helps(self, index: int, done_in: float) -> bool:
        """Whether it is worth something that RunPod has this job done by then."""
        return done_in <= self._due[index] or done_in < self.alone[index]

    def fewest(self, most: int) -> int:
        """The smallest number of places at RunPod, of at most `most`, that leaves the fewest late, by the least."""
        best, least = 0, _lateness(self.late(self.alone))
        for places in range(1, most + 1):
            if least == (0, 0):
                break
            lateness = _lateness(self.late(self._play(places)))
            if lateness < least:
                best, least = places, lateness
        return best

    def _play(self, places: int) -> list[float]:
        """When each job is done, with so many places at RunPod."""
        here, there = list(self._places), self._places_there(places)
        heapq.heapify(here)
        heapq.heapify(there)
        done_in = [math.inf] * len(self.jobs)
        first, leaving = _Pointer(range(len(self.jobs))), _Pointer(self._leaving)
        clock = 0.0
        while (index := first.next(done_in)) is not None:
            free = here[0][0] if here else math.inf
            sent = leaving.next(done_in) if there else None
            if sent is not None and (start := max(clock, there[0][0])) < free:
                freed, cold = there[0]
                ready = start + self.remote.seconds(self.jobs[sent], warm=not cold and start <= freed + IDLE_SECONDS)
                if self.helps(sent, ready):
                    done_in[sent], clock = ready, start
                    heapq.heapreplace(there, (ready, False))
                    continue
            if not here:
                break
            clock = max(clock, free)
            done_in[index] = free + self.jobs[index].audio_seconds * here[0][1]
            heapq.heapreplace(here, (done_in[index], here[0][1]))
        return done_in

    def _places_there(self, places: int) -> list[tuple[float, bool]]:
        """When each place at RunPod is free, and whether a worker has to be started for it then.

        With fewer places than jobs in flight the next one leaves when enough of those are done.
        """
        taken = heapq.nlargest(places, self.remote.in_flight_seconds)
        empty = places - len(taken)
        return [(free, False) for free in taken] + [(0.0, index >= self.remote.warm_workers) for index in range(empty)]


class _Pointer:
    """The first of some jobs that is not yet done."""

    def __init__(self, indices: Iterable[int]) -> None:
        self._rest = iter(indices)
        self._at = next(self._rest, None)

    def next(self, done_in: Sequence[float]) -> int | None:
        """Its index; None where all are done."""
        while self._at is not None and done_in[self._at] < math.inf:
            self._at = next(self._rest, None)
        return self._at


def _free_in(worker: Worker) -> list[float]:
    """When each place of a worker is free, in seconds from now."""
    busy = heapq.nlargest(worker.slots, worker.busy_seconds)
    return [max(0.0, seconds) for seconds in busy] + [0.0] * (worker.slots - len(busy))


def _tail(fleet: Fleet) -> list[Job]:
    """Those behind the listed, as a few long jobs that run here and are due as the last of the listed is."""
    pieces = min(TAIL_PIECES, fleet.more_jobs) if fleet.waiting else 0
    if not pieces:
        return []
    length = fleet.more_jobs * fleet.more_audio_seconds / pieces
    return [Job(length, fleet.waiting[-1].deadline, may_leave=False)] * pieces


def _lateness(late: Sequence[float]) -> tuple[int, int]:
    """How many are late, and by how many seconds in all."""
    return len(late), round(sum(late))
