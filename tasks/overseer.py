"""Who decides about the valve: one bridge of the fleet, every few seconds, by `tasks.overflow.decide`."""

from __future__ import annotations

from redis import Redis

from tasks import overflow
from tasks.breaker import Breaker, Open
from tasks.budget import Ledger, Spend
from tasks.fleet import Fleet
from tasks.job import ANYWHERE
from tasks.outcomes import Measured, Outcomes, measure
from tasks.overflow import Decision
from tasks.price import WARM_SECONDS, Price
from tasks.remote import QUEUED, UNDER_WAY
from tasks.settings import Settings
from tasks.snapshot import RunningJob, Snapshot
from tasks.valve import Position, Valve

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

    def round(self) -> None:
        """Decide, where this bridge leads."""
        if self._leads():
            spend, broken = self._ledger.today(), self._breaker.state()
            measured, before = measure(self._outcomes.last()), self._valve.position()
            self._valve.set(decide(self._fleet.snapshot(), spend, broken, measured, self._settings, before))

    def _leads(self) -> bool:
        if self._redis.set(self._leader, self._worker, nx=True, ex=LEADER_SECONDS):
            return True
        return bool(self._redis.get(self._leader) == self._worker and self._redis.expire(self._leader, LEADER_SECONDS))


def decide(
    seen: Snapshot, spend: Spend, broken: Open | None, measured: Measured, settings: Settings, before: Position
) -> Decision:
    """The policy's decision over what is known."""
    price = Price.of(settings)
    limits = overflow.Limits(
        max_in_flight=settings.overflow_max_in_flight,
        budget_left_usd=spend.left_usd,
        usd_per_second=settings.overflow_usd_per_second,
        usd_per_job=price.bound_usd(price.execution_timeout_seconds(settings.diarization_max_hours * 3600)),
        dry_run=settings.overflow_dry_run,
    )
    fleet, remote = _fleet(seen), _remote(seen, spend, broken, measured, settings)
    return overflow.decide(fleet, remote, limits, seen.now, Decision(before.slots, "", wanted=before.wanted))


def _fleet(seen: Snapshot) -> overflow.Fleet:
    """The GPU workers by their own speeds, and what waits for them."""
    workers = tuple(
        overflow.Worker(
            seconds_per_audio_hour=seen.seconds_per_audio_hour(name),
            slots=facts.children,
            busy_seconds=tuple(seen.seconds_left[job.id] for job in seen.running if job.worker == name),
        )
        for name, facts in seen.workers.items()
        if facts.role == "gpu"
    )
    waiting = tuple(
        overflow.Job(seen.expected_audio_seconds(job), job.deadline_at, may_leave=job.queue == ANYWHERE)
        for job in seen.waiting
        if job.local
    )
    return overflow.Fleet(workers, waiting, seen.waiting_jobs - len(seen.waiting), seen.mean_audio_seconds)


def _remote(
    seen: Snapshot, spend: Spend, broken: Open | None, measured: Measured, settings: Settings
) -> overflow.Remote:
    """RunPod, as its last runs and those that are there show it."""
    cold = settings.overflow_cold_start_seconds
    there = [job for job in seen.running if job.stage in (QUEUED, UNDER_WAY)]
    waits = [seen.now - job.started_at for job in there if job.stage == QUEUED]
    known = overflow.Remote(
        cold_start_seconds=measured.cold_seconds or cold,
        queue_delay_seconds=WARM_SECONDS,
        seconds_per_audio_hour=measured.seconds_per_audio_hour or overflow.Remote.seconds_per_audio_hour,
        failure_share=measured.failure_share,
    )
    left = [_left(seen, job, known) for job in there]
    # Runs whose bridge is gone for the moment are in no list of running jobs, but their reservations are open.
    left += [known.cold_start_seconds] * max(0, spend.in_flight - len(left))
    queued_seconds = max(waits, default=0.0)
    is_warm = seen.now - measured.last_at < settings.overflow_idle_seconds
    return overflow.Remote(
        cold_start_seconds=known.cold_start_seconds,
        queue_delay_seconds=known.queue_delay_seconds,
        seconds_per_audio_hour=known.seconds_per_audio_hour,
        failure_share=known.failure_share,
        in_flight_seconds=tuple(left),
        in_queue=len(waits),
        queued_seconds=queued_seconds,
        warm_workers=int(is_warm and not waits),
        max_workers=0 if queued_seconds > STARVED * max(cold, known.cold_start_seconds) else None,
        breaker=broken.why if broken else spend.shut,
    )


def _left(seen: Snapshot, job: RunningJob, remote: overflow.Remote) -> float:
    """Seconds that a job at RunPod still needs."""
    whole = remote.cold_start_seconds + seen.expected_audio_seconds(job) / 3600 * remote.seconds_per_audio_hour
    return max(0.0, whole - (seen.now - job.started_at))
