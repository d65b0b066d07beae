"""Who decides about the valve: one bridge of the fleet, every few seconds, by `tasks.overflow.decide`."""

from __future__ import annotations

import logging

from redis import Redis

from tasks import overflow
from tasks.breaker import Breaker, Open
from tasks.budget import Ledger, Spend
from tasks.fleet import Fleet
from tasks.job import ANYWHERE
from tasks.outcomes import Measured, Outcomes, measure
from tasks.price import WARM_SECONDS, Price
from tasks.remote import QUEUED
from tasks.settings import Settings
from tasks.snapshot import Snapshot
from tasks.valve import Valve

logger = logging.getLogger(__name__)

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
        self._dry = ""

    def round(self) -> None:
        """Decide, where this bridge leads."""
        if not self._leads():
            return
        decision = decide(
            self._fleet.snapshot(),
            self._ledger.today(),
            self._breaker.state(),
            measure(self._outcomes.last()),
            self._settings,
            was_open=self._valve.position().slots > 0,
        )
        if self._settings.overflow_dry_run:
            dry = f"dry run: would be {decision.why}" if decision.slots else ""
            if dry and not self._dry:
                logger.info("overflow: %s", dry)
            self._dry = dry
            self._valve.set(0, 0, dry or decision.why)
        else:
            self._valve.set(decision.slots, decision.reclaims, decision.why)

    def _leads(self) -> bool:
        if self._redis.set(self._leader, self._worker, nx=True, ex=LEADER_SECONDS):
            return True
        return bool(self._redis.get(self._leader) == self._worker and self._redis.expire(self._leader, LEADER_SECONDS))


def decide(
    seen: Snapshot,
    spend: Spend,
    broken: Open | None,
    measured: Measured,
    settings: Settings,
    *,
    was_open: bool,
) -> overflow.Decision:
    """The policy's decision over what is known."""
    price = Price.of(settings)
    bound_usd = price.bound_usd(price.execution_timeout_seconds(settings.diarization_max_hours * 3600))
    waiting = [
        overflow.Waiting(seen.expected_audio_seconds(job), job.deadline_at - seen.now, may_leave=job.queue == ANYWHERE)
        for job in seen.waiting
        if job.local
    ]
    return overflow.decide(
        waiting,
        seen.children(),
        remote(seen, spend, broken, measured, settings),
        overflow.Limits(settings.overflow_max_in_flight, spend.left_usd, bound_usd),
        was_open=was_open,
    )


def remote(
    seen: Snapshot, spend: Spend, broken: Open | None, measured: Measured, settings: Settings
) -> overflow.Remote:
    """RunPod, as its last runs and those that are there show it."""
    cold = settings.overflow_cold_start_seconds
    waits = [seen.now - job.started_at for job in seen.running if job.stage == QUEUED]
    longest = max(waits, default=0.0)
    is_warm = seen.now - measured.last_at < settings.overflow_idle_seconds and spend.in_flight == 0
    delay = WARM_SECONDS if is_warm else measured.cold_seconds or cold
    why = broken.why if broken else spend.shut
    if longest > STARVED * max(cold, delay):
        why = f"a job has waited at RunPod for {longest:.0f} s: no GPU is free there, or its max workers are 0"
    return overflow.Remote(
        delay_seconds=max(delay, longest),
        seconds_per_audio_hour=measured.seconds_per_audio_hour or settings.overflow_seconds_per_audio_hour,
        failure_share=measured.failure_share,
        in_flight=spend.in_flight,
        broken=why,
    )
