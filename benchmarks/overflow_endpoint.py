"""A RunPod endpoint in simulated time: its queue, its scaler, its workers and its bill.

By RunPod's documentation a waiting job starts a worker at once where there is none, and a further one after 4 s; here,
where none is starting for it already. A worker is paid for from its start to its stop, cold start and idle tail
included, rounded up to a second. How long a start takes is drawn between the 7 s and 7 min that a user saw
(docs/overflow.md), evenly on a log scale.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from random import Random

SCALE_AFTER_SECONDS = 4.0
IDLE_SECONDS = 5.0
MAX_WORKERS = 3
USD_PER_SECOND = 0.00031
"""A 24 GB GPU (4090)."""


@dataclass
class Job:
    """A recording to be diarized, and all that chance holds for it, so that every policy meets the same.

    Attributes:
        stated_seconds: Its length as the caller says it; None where the caller does not.
        luck: How much longer than others of its length it takes.
        fails_at: The part of its run after which RunPod fails it; None where it does not.
    """

    arrives_at: float
    audio_seconds: float
    stated_seconds: float | None
    deadline_at: float
    may_leave: bool
    luck: float = 1.0
    fails_at: float | None = None
    done_at: float = math.inf


@dataclass
class Clock:
    """Simulated time: what is due, in order."""

    now: float = 0.0
    _due: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _number: count[int] = field(default_factory=count)

    def after(self, seconds: float, then: Callable[[], None]) -> None:
        """Call `then` so much later."""
        heappush(self._due, (self.now + seconds, next(self._number), then))

    def run(self) -> None:
        """Until nothing is due."""
        while self._due:
            self.now, _, then = heappop(self._due)
            then()


@dataclass(eq=False)
class Run:
    """A job at RunPod, as `/status` shows it."""

    job: Job
    submitted_at: float
    started_at: float | None = None
    was_cold: bool = True


@dataclass(frozen=True)
class Weather:
    """What RunPod is like: seconds of a cold start from and to, GPUs short from and until, pace of its GPUs."""

    cold_seconds: tuple[float, float] = (7.0, 420.0)
    throttled: tuple[float, float] = (math.inf, math.inf)
    seconds_per_audio_hour: float = 115.0


@dataclass(eq=False)
class _Worker:
    started_at: float
    state: str = "starting"
    idle_since: float = 0.0


class Endpoint:
    """Takes jobs; calls `ended(run, done)` when one has a result, or has failed."""

    def __init__(self, clock: Clock, weather: Weather, chance: Random, ended: Callable[[Run, bool], None]) -> None:
        self.queue: list[Run] = []
        self.bill_usd = 0.0
        self._clock = clock
        self._weather = weather
        self._chance = chance
        self._ended = ended
        self._workers: list[_Worker] = []
        self._last_start = -math.inf

    @property
    def idle_workers(self) -> int:
        """Warm, without a job."""
        return sum(worker.state == "idle" for worker in self._workers)

    @property
    def throttled(self) -> bool:
        """Whether no worker can start now."""
        since, until = self._weather.throttled
        return since <= self._clock.now < until

    def submit(self, job: Job) -> Run:
        """`POST /run`."""
        run = Run(job, self._clock.now)
        self.queue.append(run)
        self._hand_out()
        self._scale()
        return run

    def cancel(self, run: Run) -> bool:
        """Whether it had not begun, and is gone."""
        if run not in self.queue:
            return False
        self.queue.remove(run)
        return True

    def _hand_out(self) -> None:
        for worker in self._workers:
            if worker.state == "idle" and self.queue:
                self._begin(worker, was_cold=False)

    def _scale(self) -> None:
        if not self.queue:
            return
        self._clock.after(SCALE_AFTER_SECONDS, self._scale)
        starting = sum(worker.state == "starting" for worker in self._workers)
        if self.throttled or len(self._workers) >= MAX_WORKERS or starting >= len(self.queue):
            return
        waited = self._clock.now - max(self.queue[starting].submitted_at, self._last_start)
        if not self._workers or waited >= SCALE_AFTER_SECONDS:
            self._last_start = self._clock.now
            worker = _Worker(self._clock.now)
            self._workers.append(worker)
            low, high = self._weather.cold_seconds
            cold_seconds = low * (high / low) ** self._chance.random()
            self._clock.after(cold_seconds, lambda: self._free(worker, was_cold=True))

    def _begin(self, worker: _Worker, *, was_cold: bool) -> None:
        run = self.queue.pop(0)
        run.started_at, run.was_cold = self._clock.now, was_cold
        worker.state = "busy"
        job = run.job
        seconds = job.audio_seconds / 3600 * self._weather.seconds_per_audio_hour * job.luck
        share = 1.0 if job.fails_at is None else job.fails_at
        self._clock.after(seconds * share, lambda: self._end(worker, run))

    def _end(self, worker: _Worker, run: Run) -> None:
        self._ended(run, run.job.fails_at is None)
        self._free(worker, was_cold=False)

    def _free(self, worker: _Worker, *, was_cold: bool) -> None:
        if self.queue:
            self._begin(worker, was_cold=was_cold)
            return
        worker.state, worker.idle_since = "idle", self._clock.now
        self._clock.after(IDLE_SECONDS, lambda: self._stop(worker))

    def _stop(self, worker: _Worker) -> None:
        if worker.state == "idle" and self._clock.now - worker.idle_since >= IDLE_SECONDS:
            self._workers.remove(worker)
            self.bill_usd += math.ceil(self._clock.now - worker.started_at) * USD_PER_SECOND
