"""Who decides about the valve: one bridge of the fleet, every few seconds, by `tasks.overflow.decision.decide`."""

from __future__ import annotations

from dataclasses import replace

from redis import Redis

from tasks.canary import Canary
from tasks.fleet import Fleet
from tasks.job import ANYWHERE
from tasks.overflow import line
from tasks.overflow.breaker import Breaker
from tasks.overflow.budget import Ledger, Spend
from tasks.overflow.decision import Decision, Limits, decide
from tasks.overflow.outcomes import Measured, Outcomes, measure
from tasks.overflow.price import Price
from tasks.overflow.valve import Position, Valve
from tasks.remote import QUEUED, UNDER_WAY
from tasks.server import lead
from tasks.settings import Settings
from tasks.snapshot import RunningJob, Snapshot

LEADER_SECONDS = 10
STARVED = 3
"""Cold starts at their longest: who has waited for longer at RunPod waits for a GPU that is not there."""


class Overseer:
    """One of each bridge; that of the leader decides."""

    def __init__(self, client: Redis, settings: Settings, worker: str) -> None:
        self._redis = client
        self._settings = settings
        self._worker = worker
        self._leader = settings.redis_key_prefix + "fleet:valve_leader"
        self._fleet = Fleet(client, settings)
        self._valve = Valve(client, settings)
        self._ledger = Ledger(client, settings)
        self._breaker = Breaker(client, settings)
        self._outcomes = Outcomes(client, settings)
        self._canary = Canary(client, settings)

    def round(self) -> None:
        """Decide, where this bridge leads."""
        if lead(self._redis, self._leader, self._worker, LEADER_SECONDS):
            seen, before = self._fleet.snapshot(), self._valve.position()
            measured = measure(self._outcomes.last(), seen.now)
            failed = None if seen.orders.halted else self._canary.round(seen.now, measured.last_at)
            spend, broken = self._ledger.today(), self._breaker.state()
            shut = broken.why if broken else failed or spend.shut
            self._valve.set(decide_for(seen, spend, shut, measured, self._settings, before))


def decide_for(
    seen: Snapshot, spend: Spend, shut: str | None, measured: Measured, settings: Settings, before: Position
) -> Decision:
    """The policy's decision over what is known; `shut` is why RunPod gets nothing, whatever waits."""
    price = Price.of(settings)
    first = next((job for job in seen.waiting if job.queue == ANYWHERE), None)
    audio_seconds = price.bound_audio_seconds(first.audio_seconds if first else None)
    limits = Limits(
        max_in_flight=settings.overflow_max_in_flight,
        budget_left_usd=spend.left_usd,
        job_cost_bound_usd=price.bound_usd(price.execution_timeout_seconds(audio_seconds)),
        dry_run=settings.overflow_dry_run,
    )
    remote = _remote(seen, spend, shut, measured, settings)
    decision = decide(_fleet(seen), remote, limits, seen.now, Decision(before.slots, "", pays=before.pays))
    paused, halted = seen.orders.paused, seen.orders.halted
    if halted is None:
        return decision
    why = f"closed: {'the queue' if paused else 'overflow'} is paused {halted}"
    # While the queue is paused nobody here takes what would come home.
    return replace(decision, slots=0, pays=0, why=why, reclaim=0 if paused else decision.reclaim)


def _fleet(seen: Snapshot) -> line.Fleet:
    """The GPU workers that take jobs, by their own speeds, and what waits for them."""
    workers = tuple(
        line.GpuWorker(
            seconds_per_audio_hour=seen.seconds_per_audio_hour(name),
            jobs_at_once=facts.children,
            seconds_left=tuple(seen.seconds_left[job.id] for job in seen.running if job.worker == name),
        )
        for name, facts in seen.gpu_workers.items()
    )
    waiting = tuple(
        line.WaitingJob(seen.expected_audio_seconds(job), job.deadline_at, may_leave=job.queue == ANYWHERE)
        for job in seen.waiting
        if job.local
    )
    return line.Fleet(workers, waiting, seen.waiting_jobs - len(seen.waiting), seen.mean_audio_seconds)


def _remote(seen: Snapshot, spend: Spend, shut: str | None, measured: Measured, settings: Settings) -> line.Remote:
    """RunPod, as its last runs and those that are there show it."""
    cold = measured.cold_seconds or line.Remote.cold_start_seconds
    speed = measured.seconds_per_audio_hour or line.Remote.seconds_per_audio_hour
    there = [job for job in seen.running if job.stage in (QUEUED, UNDER_WAY)]
    waits = [seen.now - job.started_at for job in there if job.stage == QUEUED]
    jobs = [_at_runpod(seen, job, cold, speed) for job in there]
    # Runs whose bridge is gone for the moment are in no list of running jobs, but their reservations are open.
    jobs += [line.RemoteJob(cold)] * max(0, spend.in_flight - len(jobs))
    longest = max(waits, default=0.0)
    return line.Remote(
        jobs=tuple(jobs),
        idle_workers=int(seen.now - measured.last_at < settings.overflow_idle_seconds and not waits),
        throttled=longest > STARVED * max(cold, settings.overflow_cold_start_seconds),
        cold_start_seconds=max(cold, longest),
        seconds_per_audio_hour=speed,
        failure_share=measured.failure_share,
        breaker=shut,
    )


def _at_runpod(seen: Snapshot, job: RunningJob, cold: float, seconds_per_audio_hour: float) -> line.RemoteJob:
    """A job that is there: what it still needs, and whether it can still come home."""
    whole = cold + seen.expected_audio_seconds(job) / 3600 * seconds_per_audio_hour
    return line.RemoteJob(max(0.0, whole - (seen.now - job.started_at)), may_come_home=job.stage == QUEUED)
