"""What the fleet is and has done, in numbers: each metric, and how it is read from Redis.

Gauges are read at the moment of a scrape. Counters stand in one hash of Redis, which the scripts that move jobs add to
(`count` in `tasks/scripts/shared.lua`): they are exact, survive every process, and are the same whichever exporter is
asked. Labels have few values: states, error codes, stages, providers, queues, and workers that live.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from redis import Redis

from tasks.canary import Canary
from tasks.fleet import Fleet
from tasks.job import ANYWHERE, LOCAL, RUNPOD
from tasks.overflow.breaker import Breaker
from tasks.overflow.budget import Ledger
from tasks.overflow.outcomes import Outcomes, measure
from tasks.overflow.valve import Valve
from tasks.record import State
from tasks.server import reachable
from tasks.settings import Settings
from tasks.snapshot import Snapshot
from tasks.tickets import PRIORITY_STEPS

FINISH_SECONDS = (30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400)
"""Upper bounds of the histogram; `finish.lua` has the same."""

Samples = Mapping[str, Mapping[tuple[str, ...], float]]
"""Values by metric and by the values of its labels."""


@dataclass(frozen=True)
class Metric:
    """One metric; the name of a counter goes without `_total`."""

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    means: str
    labels: tuple[str, ...] = ()


UP = Metric("diarize_up", "gauge", "1 where the exporter reaches Redis; all else is missing where it does not")
METRICS = (
    UP,
    Metric("diarize_waiting_jobs", "gauge", "Jobs that wait for a worker, by queue", ("queue",)),
    Metric("diarize_waiting_audio_seconds", "gauge", "Audio of all that wait; unknown lengths are estimated"),
    Metric("diarize_oldest_waiting_seconds", "gauge", "Since the first of those that wait was submitted"),
    Metric("diarize_late_jobs", "gauge", "Of the first 500 that wait, those that the own GPUs would do too late"),
    Metric("diarize_due_jobs", "gauge", "Jobs that are to start later, or anew after a pause"),
    Metric("diarize_running_jobs", "gauge", "Jobs that run, at RunPod too"),
    Metric("diarize_finish_in_seconds", "gauge", "Until the own GPUs have done all that waits; missing without one"),
    Metric("diarize_paused", "gauge", "1 while an operator has paused the queue"),
    Metric("diarize_workers", "gauge", "Workers that live, by role", ("role",)),
    Metric("diarize_drained_workers", "gauge", "Those of them that an operator has drained"),
    Metric("diarize_children", "gauge", "Jobs that they can run at one time, by role", ("role",)),
    Metric(
        "diarize_worker_seconds_per_audio_hour",
        "gauge",
        "What a worker takes for an hour of audio, measured on its jobs",
        ("worker", "gpu"),
    ),
    Metric("diarize_jobs_submitted", "counter", "Jobs that were accepted"),
    Metric("diarize_jobs_ended", "counter", "Jobs that have ended, by state and error code", ("state", "code")),
    Metric("diarize_attempts", "counter", "Starts of jobs"),
    Metric("diarize_retries", "counter", "Attempts after which a job waits for another one, by why", ("code",)),
    Metric("diarize_silent_workers", "counter", "Jobs taken from a worker that had been silent for a lease"),
    Metric("diarize_audio_seconds", "counter", "Audio of the jobs that are done", ("provider",)),
    Metric("diarize_stage_seconds", "counter", "What its stages took", ("stage", "provider")),
    Metric("diarize_finish_seconds", "histogram", "From submission to the end of a job that is done"),
    Metric("diarize_dead_letters", "gauge", "Dead letters that are kept"),
    Metric("diarize_waiting_webhooks", "gauge", "Webhooks that have yet to be taken"),
    Metric("diarize_undelivered_webhooks", "gauge", "Webhooks that were given up, and are kept"),
    Metric("diarize_valve_slots", "gauge", "How many jobs may be at RunPod now; 0 is a closed valve"),
    Metric("diarize_breaker_open", "gauge", "1 while RunPod gets no jobs because it refuses all"),
    Metric("diarize_canary_failed", "gauge", "1 since a canary failed, until one is right"),
    Metric("diarize_remote_in_flight", "gauge", "Jobs that are or may be at RunPod"),
    Metric("diarize_cost_usd", "counter", "What RunPod has cost, by upper bounds"),
    Metric("diarize_spent_today_usd", "gauge", "The same of this UTC day"),
    Metric("diarize_reserved_usd", "gauge", "What the jobs that are there may cost yet"),
    Metric("diarize_budget_usd", "gauge", "OVERFLOW_BUDGET_USD_PER_DAY"),
    Metric("diarize_ledger_shut", "gauge", "1 while nothing is reserved because Redis has lost data"),
    Metric("diarize_cold_start_seconds", "gauge", "What a run waits at RunPod that no warm worker takes; measured"),
    Metric("diarize_remote_failure_ratio", "gauge", "Of the last runs at RunPod, those that failed"),
    Metric("diarize_redis_used_bytes", "gauge", "Memory that Redis uses"),
    Metric("diarize_redis_max_bytes", "gauge", "Its maxmemory; missing where it has none"),
    Metric("diarize_leader", "gauge", "1 while a worker does the chores of the fleet"),
)

_COUNTERS = {
    "submitted": "diarize_jobs_submitted",
    "ended": "diarize_jobs_ended",
    "attempts": "diarize_attempts",
    "retries": "diarize_retries",
    "lapsed": "diarize_silent_workers",
    "audio_seconds": "diarize_audio_seconds",
    "stage_seconds": "diarize_stage_seconds",
    "cost_usd": "diarize_cost_usd",
}
"""What the scripts call them."""


class Readings:
    """All metrics of one Redis."""

    def __init__(self, client: Redis, settings: Settings) -> None:
        self._redis = client
        self._prefix = settings.redis_key_prefix
        self._fleet = Fleet(client, settings)
        self._ledger = Ledger(client, settings)
        self._valve = Valve(client, settings)
        self._breaker = Breaker(client, settings)
        self._outcomes = Outcomes(client, settings)
        self._canary = Canary(client, settings)

    def read(self) -> Samples:
        """All of them now.

        Raises:
            QueueUnavailable: Redis cannot be reached.
        """
        seen = self._fleet.snapshot()
        return {UP.name: {(): 1.0}, **_of_fleet(seen), **self._of_queues(seen), **self._of_runpod(seen), **self._sums()}

    def _of_queues(self, seen: Snapshot) -> Samples:
        queues = (ANYWHERE, LOCAL, RUNPOD)
        with reachable(), self._redis.pipeline(transaction=False) as pipe:
            for queue in queues:
                for step in PRIORITY_STEPS:
                    pipe.llen(self._prefix + queue + step)
            pipe.zcard(f"{self._prefix}state:{State.DEAD}")
            pipe.zcard(self._prefix + "webhooks")
            pipe.zcard(self._prefix + "webhooks:dead")
            pipe.exists(self._prefix + "leader")
            pipe.info("memory")
            pipe.zrange(f"{self._prefix}state:{State.QUEUED}", 0, 0)
            *lengths, dead, webhooks, undelivered, leader, memory, first = pipe.execute()
            submitted_at: Any = self._redis.hget(f"{self._prefix}job:{first[0]}", "submitted_at") if first else None
        steps = len(PRIORITY_STEPS)
        samples: dict[str, dict[tuple[str, ...], float]] = {
            "diarize_waiting_jobs": {
                (queue,): float(sum(lengths[steps * index : steps * (index + 1)])) for index, queue in enumerate(queues)
            },
            "diarize_oldest_waiting_seconds": {(): max(0.0, seen.now - float(submitted_at)) if submitted_at else 0.0},
            "diarize_dead_letters": {(): float(dead)},
            "diarize_waiting_webhooks": {(): float(webhooks)},
            "diarize_undelivered_webhooks": {(): float(undelivered)},
            "diarize_leader": {(): float(leader)},
            "diarize_redis_used_bytes": {(): float(memory["used_memory"])},
        }
        if memory["maxmemory"]:
            samples["diarize_redis_max_bytes"] = {(): float(memory["maxmemory"])}
        return samples

    def _of_runpod(self, seen: Snapshot) -> Samples:
        today, canary = self._ledger.today(), self._canary.last()
        measured = measure(self._outcomes.last(), seen.now)
        samples: dict[str, dict[tuple[str, ...], float]] = {
            "diarize_valve_slots": {(): float(self._valve.position().slots)},
            "diarize_breaker_open": {(): float(self._breaker.state() is not None)},
            "diarize_canary_failed": {(): float(canary is not None and canary.failure is not None)},
            "diarize_remote_in_flight": {(): float(today.in_flight)},
            "diarize_spent_today_usd": {(): today.spent_usd},
            "diarize_reserved_usd": {(): today.reserved_usd},
            "diarize_budget_usd": {(): today.limit_usd},
            "diarize_ledger_shut": {(): float(today.shut is not None)},
            "diarize_remote_failure_ratio": {(): measured.failure_share},
        }
        if measured.cold_seconds is not None:
            samples["diarize_cold_start_seconds"] = {(): measured.cold_seconds}
        return samples

    def _sums(self) -> Samples:
        """The counters, and the histogram's sum and buckets under their bounds."""
        with reachable():
            stored: Any = self._redis.hgetall(self._prefix + "fleet:counters")
        samples: dict[str, dict[tuple[str, ...], float]] = defaultdict(dict)
        buckets: Counter[str] = Counter()
        for field, value in stored.items():
            name, *labels = field.split(":")
            if name in _COUNTERS:
                samples[_COUNTERS[name]][tuple(labels)] = float(value)
            elif name == "finish_bucket":
                buckets[labels[0]] = int(float(value))
        # What has no label is there from the start, so that a rate sees its first step.
        for metric in METRICS:
            if metric.kind == "counter" and not metric.labels:
                samples[metric.name].setdefault((), 0.0)
        so_far = 0
        for bound in FINISH_SECONDS:
            so_far += buckets[str(bound)]
            samples["diarize_finish_seconds"][(str(float(bound)),)] = so_far
        samples["diarize_finish_seconds"][("+Inf",)] = float(stored.get("finish_count", 0))
        samples["diarize_finish_seconds"][("sum",)] = float(stored.get("finish_seconds", 0.0))
        return samples


def _of_fleet(seen: Snapshot) -> Samples:
    roles = {"gpu": 0.0, "bridge": 0.0}
    workers, children = dict(roles), dict(roles)
    speeds: dict[tuple[str, ...], float] = {}
    for name, facts in seen.workers.items():
        workers[facts.role] = workers.get(facts.role, 0.0) + 1
        children[facts.role] = children.get(facts.role, 0.0) + facts.children
        if facts.role == "gpu" and facts.seconds_per_audio_hour is not None:
            speeds[name, facts.gpu or facts.device] = facts.seconds_per_audio_hour
    samples: dict[str, dict[tuple[str, ...], float]] = {
        "diarize_waiting_audio_seconds": {(): seen.waiting_audio_seconds},
        "diarize_late_jobs": {(): float(len(seen.late))},
        "diarize_due_jobs": {(): float(seen.due_jobs)},
        "diarize_running_jobs": {(): float(len(seen.running))},
        "diarize_paused": {(): float(seen.orders.paused is not None)},
        "diarize_drained_workers": {(): float(sum(seen.drain_state(name) != "" for name in seen.workers))},
        "diarize_workers": {(role,): count for role, count in workers.items()},
        "diarize_children": {(role,): count for role, count in children.items()},
        "diarize_worker_seconds_per_audio_hour": speeds,
    }
    if math.isfinite(seen.last_in_seconds):
        samples["diarize_finish_in_seconds"] = {(): seen.last_in_seconds}
    return samples
