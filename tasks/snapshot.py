"""The fleet at one moment: its workers, what runs, what waits, and what is to be expected of it. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from tasks.forecast import Child, Forecast
from tasks.job import ANYWHERE, LOCAL
from tasks.orders import Orders
from tasks.registry import WorkerFacts
from tasks.speed import DEFAULT_SECONDS_PER_AUDIO_HOUR, combined

DEFAULT_AUDIO_SECONDS = 1800.0
"""A recording of which nothing is known, before any job of this fleet has been done: half an hour."""


@dataclass(frozen=True)
class RunningJob:
    """A job that runs. Times are seconds since 1970, by the server's clock.

    Attributes:
        shown: The recording's URL as it may be shown.
        audio_seconds: The recording's length, where that is known by now.
        seconds_left: By its worker's own speed and the stage that it is in; None where that cannot be said.
    """

    id: str
    worker: str
    started_at: float
    audio_seconds: float | None = None
    stage: str | None = None
    percent: float = 0.0
    seconds_left: float | None = None
    shown: str = ""


@dataclass(frozen=True)
class WaitingJob:
    """A job that waits.

    Attributes:
        queue: Where it waits, which says where it may run.
        audio_seconds: The recording's length, where the caller said it or an attempt has found it.
        deadline_at: By then it should be done, in seconds since 1970.
        shown: The recording's URL as it may be shown.
    """

    id: str
    queue: str
    deadline_at: float
    audio_seconds: float | None = None
    shown: str = ""

    @property
    def local(self) -> bool:
        """Whether the own GPUs take it."""
        return self.queue in (ANYWHERE, LOCAL)


@dataclass(frozen=True)
class Position:
    """Where a job stands.

    Attributes:
        place: In the line of those that wait, from 1; 0 for one that runs; None for any other.
        finish_at: When it will be done, by what is known now, in seconds since 1970; None where that cannot be said.
        start_at: When a job that waits will start, likewise.
    """

    place: int | None = None
    finish_at: float | None = None
    start_at: float | None = None


@dataclass(frozen=True)
class Snapshot:
    """What is known of the fleet.

    Attributes:
        now: Of this moment, by the server's clock, in seconds since 1970.
        workers: Those that live, by name.
        running: What they run.
        waiting: Who is first in line, in order.
        waiting_jobs: How many wait in all; only the first of them are in `waiting`.
        due_jobs: How many are to start later, or anew after a pause; they are in no queue.
        mean_audio_seconds: How long recordings were of late: what stands in where a length is not known.
        orders: What the operator has told the fleet.
    """

    now: float
    workers: Mapping[str, WorkerFacts]
    running: Sequence[RunningJob] = ()
    waiting: Sequence[WaitingJob] = ()
    waiting_jobs: int = 0
    due_jobs: int = 0
    mean_audio_seconds: float = DEFAULT_AUDIO_SECONDS
    orders: Orders = field(default_factory=Orders)

    @property
    def waiting_audio_seconds(self) -> float:
        """How much audio waits, the jobs beyond `waiting` estimated."""
        return sum(map(self.expected_audio_seconds, self.waiting)) + self._further_audio_seconds(self.waiting_jobs)

    def expected_audio_seconds(self, job: WaitingJob | RunningJob) -> float:
        """The length of its recording: known, or the mean."""
        return self.mean_audio_seconds if job.audio_seconds is None else job.audio_seconds

    def seconds_per_audio_hour(self, worker: str) -> float:
        """What an hour of audio takes one of a worker's children while all of them work.

        By its own speed, or that of the others of its role, or a stated default.
        """
        facts = self.workers[worker]
        sharing = facts.children if facts.device.startswith("cuda") else 1
        alike = [other.speed for other in self.workers.values() if other.role == facts.role and other.speed]
        default = DEFAULT_SECONDS_PER_AUDIO_HOUR["cpu" if facts.device == "cpu" else "cuda"]
        measured = facts.speed if facts.speed and facts.speed.audio_seconds else combined(alike)
        return measured.side_by_side(sharing) or default

    @cached_property
    def seconds_left(self) -> Mapping[str, float]:
        """Of each running job whose worker lives, by id; another's job is due as soon as its lease has run out."""
        return {job.id: self._left(job) for job in self.running if job.worker in self.workers}

    @cached_property
    def finish_in_seconds(self) -> Mapping[str, float]:
        """When each job of `waiting` will be done by the own GPUs, by id; `inf` where none takes jobs.

        Those that they do not take have no part in it.
        """
        return {job_id: finish for job_id, (_, finish) in self._forecast[1].items()}

    @property
    def last_in_seconds(self) -> float:
        """When the own GPUs will have done all that waits and runs; `inf` where none takes jobs."""
        return self._last_in_seconds(self.waiting_jobs)

    @property
    def late(self) -> Sequence[WaitingJob]:
        """Jobs of `waiting` that the own GPUs would finish after their deadlines."""
        finish = self.finish_in_seconds
        return [job for job in self.waiting if self.now + finish.get(job.id, 0.0) > job.deadline_at]

    def position(self, job_id: str, place: int | None = None) -> Position:
        """Where a job stands; `place` is that of a job that waits behind those in `waiting`."""
        if job_id in self.seconds_left:
            return Position(0, self.now + self.seconds_left[job_id])
        for index, job in enumerate(self.waiting):
            if job.id == job_id:
                start, finish = self._forecast[1].get(job_id, (math.inf, math.inf))
                return Position(index + 1, self._at(finish), self._at(start))
        if place is None:
            return Position()
        place = max(place, len(self.waiting) + 1)
        return Position(place, self._at(self._last_in_seconds(place)), self._at(self._last_in_seconds(place - 1)))

    def _at(self, in_seconds: float) -> float | None:
        return self.now + in_seconds if math.isfinite(in_seconds) else None

    @cached_property
    def _forecast(self) -> tuple[Forecast, Mapping[str, tuple[float, float]]]:
        """When each job of `waiting` starts and is done, by id, and what comes after all of them."""
        forecast = Forecast(self.children())
        local = (job for job in self.waiting if job.local)
        times = {job.id: (forecast.free_in_seconds, forecast.add(self.expected_audio_seconds(job))) for job in local}
        return forecast, times

    def _last_in_seconds(self, jobs: int) -> float:
        return self._forecast[0].last_in_seconds(self._further_audio_seconds(jobs))

    def _further_audio_seconds(self, jobs: int) -> float:
        """Of so many jobs, those that are not in `waiting`: as long as those that are."""
        further = max(0, jobs - len(self.waiting))
        lengths = [self.expected_audio_seconds(job) for job in self.waiting] or [self.mean_audio_seconds]
        return further * sum(lengths) / len(lengths)

    def _left(self, job: RunningJob) -> float:
        if job.seconds_left is not None:
            return job.seconds_left
        whole = self.expected_audio_seconds(job) * self.seconds_per_audio_hour(job.worker) / 3600
        return max(0.0, whole - (self.now - job.started_at))

    @property
    def gpu_workers(self) -> Mapping[str, WorkerFacts]:
        """Those that take jobs, as far as the operator lets them; a pause is no matter of a worker's."""
        return {
            name: facts
            for name, facts in self.workers.items()
            if facts.role == "gpu" and self.orders.drain_of(name) is None
        }

    def drain_state(self, worker: str) -> str:
        """How far a worker has run dry: `draining, 1 running`, then `drained`; empty where nobody has told it to.

        Drained is who has said so: it knows whether a job is on its way to it.
        """
        order = self.orders.drain_of(worker)
        if order is None:
            return ""
        facts, running = self.workers[worker], sum(job.worker == worker for job in self.running)
        is_drained = facts.obeys(order) and not (running or facts.held)
        return "drained" if is_drained else f"draining, {max(running, facts.held)} running"

    def children(self) -> list[Child]:
        """Of the GPU workers, with what keeps each from the next job. None while the queue is paused."""
        found = []
        for name, facts in ({} if self.orders.paused else self.gpu_workers).items():
            busy = [self.seconds_left[job.id] for job in self.running if job.worker == name]
            idle = [0.0] * (facts.children - len(busy))
            speed = self.seconds_per_audio_hour(name) / 3600
            found += [Child(free_in_seconds, speed) for free_in_seconds in busy + idle]
        return found
