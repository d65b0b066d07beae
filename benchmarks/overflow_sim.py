"""A day of a small fleet in simulated time: GPUs here, a bridge with a valve, an endpoint at RunPod.

The valve's policy sees what a real fleet could know: lengths that callers state, more or less right, or the mean of
those that are done; speeds, cold starts and failures as measured so far; no truth of the simulation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from benchmarks.overflow_endpoint import IDLE_SECONDS, USD_PER_SECOND, Clock, Endpoint, Job, Run, Weather
from tasks.overflow.decision import Decision, Limits
from tasks.overflow.line import Fleet, GpuWorker, Remote, RemoteJob, WaitingJob

TICK_SECONDS = 5.0
"""How often the valve is decided upon."""
POLL_SECONDS = 2.0
"""How late the bridge hears of an end."""
DECODED_SECONDS = 10.0
"""So long after its start a job's true length is known."""
PATIENCE_SECONDS = 600.0
"""A job that waits at RunPod for longer comes home, whatever the policy."""
COLD_START_BOUND_SECONDS = 420.0
MAX_IN_FLIGHT, BUDGET_USD = 3, 10.0


@dataclass(frozen=True)
class View:
    """What a policy decides by."""

    fleet: Fleet
    remote: Remote
    limits: Limits
    now: float
    before: Decision | None
    oldest_seconds: float


Policy = Callable[[View], Decision]


@dataclass
class Mean:
    """A measured mean, which begins as a prior of so many measurements."""

    value: float
    weight: float = 1.0

    def add(self, measured: float) -> None:
        """One more measurement."""
        self.weight += 1
        self.value += (measured - self.value) / self.weight


@dataclass(eq=False)
class Gpu:
    """A GPU worker: its true pace, what is known of that, and what it runs since when."""

    true_pace: float
    pace: Mean = field(default_factory=lambda: Mean(120.0))
    job: Job | None = None
    since: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """Of one run: by how much each job was late, how long each took, what it cost, how many were sent."""

    late_seconds: tuple[float, ...]
    finish_seconds: tuple[float, ...]
    usd: float
    sent: int

    @property
    def misses(self) -> int:
        """Jobs that were done after their deadline."""
        return sum(late > 0 for late in self.late_seconds)


class Day:
    """One run of one policy."""

    def __init__(
        self, jobs: Sequence[Job], paces: Sequence[float], weather: Weather, policy: Policy, seed: str
    ) -> None:
        self._jobs = jobs
        self._policy = policy
        self._clock = Clock()
        self._chance = Random(seed)
        self._endpoint = Endpoint(self._clock, weather, Random(seed), self._hear)
        self._gpus = [Gpu(pace) for pace in paces]
        self._line: list[Job] = []
        self._away: list[Run] = []
        self._length = Mean(1800.0)
        self._pace_there, self._cold_start, self._failures = Mean(120.0), Mean(100.0), Mean(0.05, 10)
        self._decision: Decision | None = None
        self._is_ticking = False
        self._sent = 0

    def run(self) -> Outcome:
        """Until every job is done."""
        for job in self._jobs:
            self._clock.after(job.arrives_at, lambda job=job: self._arrive(job))
        self._clock.run()
        return Outcome(
            tuple(job.done_at - job.deadline_at for job in self._jobs),
            tuple(job.done_at - job.arrives_at for job in self._jobs),
            self._endpoint.bill_usd,
            self._sent,
        )

    def _arrive(self, job: Job) -> None:
        self._line.append(job)
        self._start_here()
        if not self._is_ticking:
            self._is_ticking = True
            self._tick()

    def _start_here(self) -> None:
        idle = [gpu for gpu in self._gpus if gpu.job is None]
        self._chance.shuffle(idle)
        for gpu in idle[: len(self._line)]:
            job = self._line.pop(0)
            gpu.job, gpu.since = job, self._clock.now
            seconds = job.audio_seconds / 3600 * gpu.true_pace * job.luck
            self._clock.after(seconds, lambda gpu=gpu: self._end_here(gpu))

    def _end_here(self, gpu: Gpu) -> None:
        job, gpu.job = gpu.job, None
        assert job is not None
        job.done_at = self._clock.now
        gpu.pace.add((self._clock.now - gpu.since) / job.audio_seconds * 3600)
        self._length.add(job.audio_seconds)
        self._start_here()

    def _tick(self) -> None:
        self._is_ticking = bool(self._line or self._away)
        if not self._is_ticking:
            self._decision = None
            return
        self._decision = self._policy(self._view())
        impatient = [run for run in self._endpoint.queue if self._clock.now - run.submitted_at > PATIENCE_SECONDS]
        for run in [*impatient, *reversed(self._endpoint.queue)][: max(self._decision.reclaim, len(impatient))]:
            if self._endpoint.cancel(run):
                self._away.remove(run)
                self._line.insert(0, run.job)
        self._start_here()
        self._send()
        self._clock.after(TICK_SECONDS, self._tick)

    def _send(self) -> None:
        while self._decision and len(self._away) < self._decision.slots:
            job = next((job for job in self._line if job.may_leave), None)
            if job is None:
                return
            self._line.remove(job)
            self._sent += 1
            self._away.append(self._endpoint.submit(job))

    def _hear(self, run: Run, done: bool) -> None:
        self._clock.after(POLL_SECONDS, lambda: self._settle(run, done, self._clock.now - POLL_SECONDS))

    def _settle(self, run: Run, done: bool, ended_at: float) -> None:
        assert run.started_at is not None
        self._away.remove(run)
        self._failures.add(not done)
        if run.was_cold:
            self._cold_start.add(run.started_at - run.submitted_at)
        if done:
            run.job.done_at = self._clock.now
            self._pace_there.add((ended_at - run.started_at) / run.job.audio_seconds * 3600)
            self._length.add(run.job.audio_seconds)
        else:
            run.job.may_leave = False
            self._line.insert(0, run.job)
            self._start_here()
        self._send()

    def _expected(self, job: Job) -> float:
        return self._length.value if job.stated_seconds is None else job.stated_seconds

    def _view(self) -> View:
        now = self._clock.now
        waiting = tuple(WaitingJob(self._expected(job), job.deadline_at, job.may_leave) for job in self._line)
        head = next((job.audio_seconds for job in waiting if job.may_leave), self._length.value)
        remote = Remote(
            jobs=tuple(RemoteJob(self._left_there(run), run.started_at is None) for run in self._away),
            idle_workers=self._endpoint.idle_workers,
            throttled=self._endpoint.throttled,
            cold_start_seconds=self._cold_start.value,
            seconds_per_audio_hour=self._pace_there.value,
            failure_share=self._failures.value,
        )
        bound_usd = self._bound_usd(head)
        reserved = sum(self._bound_usd(self._expected(run.job)) for run in self._away)
        left_usd = BUDGET_USD - self._endpoint.bill_usd - reserved
        oldest = max((now - job.arrives_at for job in self._line), default=0.0)
        workers = tuple(GpuWorker(gpu.pace.value, 1, self._left_here(gpu)) for gpu in self._gpus)
        limits = Limits(MAX_IN_FLIGHT, left_usd, bound_usd)
        return View(Fleet(workers, waiting), remote, limits, now, self._decision, oldest)

    def _left_here(self, gpu: Gpu) -> tuple[float, ...]:
        if gpu.job is None:
            return ()
        spent = self._clock.now - gpu.since
        audio_seconds = gpu.job.audio_seconds if spent > DECODED_SECONDS else self._expected(gpu.job)
        return (max(TICK_SECONDS, audio_seconds / 3600 * gpu.pace.value - spent),)

    def _left_there(self, run: Run) -> float:
        runs = self._expected(run.job) / 3600 * self._pace_there.value
        if run.started_at is not None:
            return max(TICK_SECONDS, runs - (self._clock.now - run.started_at))
        return max(TICK_SECONDS, self._cold_start.value - (self._clock.now - run.submitted_at)) + runs

    def _bound_usd(self, audio_seconds: float) -> float:
        """What the ledger reserves: the longest start, twice the expected run, the idle tail."""
        runs = audio_seconds / 3600 * self._pace_there.value
        return (COLD_START_BOUND_SECONDS + 2 * runs + IDLE_SECONDS) * USD_PER_SECOND
