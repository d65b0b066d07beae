"""What the fleet is and what it has to do, read in a few round trips and by a walk that is bounded."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from redis import Redis

from tasks.job import ANYWHERE, RUNPOD
from tasks.record import State
from tasks.registry import Registry, WorkerFacts
from tasks.server import reachable, server_time
from tasks.settings import Settings

WALK = 500
"""Waiting jobs that are looked at, the oldest first; of those behind them only the number is known."""
UNKNOWN_AUDIO_SECONDS = 3600.0
"""A recording's length before any is known: the hour of a meeting."""
UNKNOWN_SPEED_SECONDS_PER_AUDIO_HOUR = {"gpu": 100.0}
"""Before a worker has done anything: the middle of what was published for this model, 31 to 199 s."""
_FIELDS = ("queue", "audio_seconds", "submitted_at", "deadline_seconds", "started_at", "worker", "remote", "stage")


@dataclass(frozen=True)
class KnownWorker:
    """A worker that lives, and what it takes for an hour of audio; None until it has been measured."""

    name: str
    facts: WorkerFacts
    seconds_per_audio_hour: float | None


@dataclass(frozen=True)
class KnownJob:
    """A job that waits or runs.

    Attributes:
        id: Its id.
        queue: Its home.
        audio_seconds: The recording's length as it is known or, where it is not, the mean of those that are done.
        due_at: Its deadline, by the server's clock.
        started_at: Of one that runs.
        worker: Which runs it.
        stage: How far it is.
        is_remote: Whether it is at a provider.
    """

    id: str
    queue: str
    audio_seconds: float
    due_at: float
    started_at: float | None
    worker: str | None
    stage: str | None
    is_remote: bool


@dataclass(frozen=True)
class Snapshot:
    """The fleet at one time.

    Attributes:
        now: By the server's clock.
        workers: Those that live.
        running: Jobs that run, here or at a provider.
        waiting: Jobs that wait for a worker, the oldest first; `WALK` at most.
        waiting_count: How many do.
        due_count: Jobs that wait for a time.
        mean_audio_seconds: Of the recordings of late.
    """

    now: float
    workers: tuple[KnownWorker, ...]
    running: tuple[KnownJob, ...]
    waiting: tuple[KnownJob, ...]
    waiting_count: int
    due_count: int
    mean_audio_seconds: float

    @property
    def waiting_audio_seconds(self) -> float:
        """Of all that wait; those beyond the walk count with the mean."""
        listed = sum(job.audio_seconds for job in self.waiting)
        return listed + max(0, self.waiting_count - len(self.waiting)) * self.mean_audio_seconds

    def speed(self, worker: KnownWorker) -> float:
        """What a worker takes for an hour of audio: measured, else as the others', else as is known of GPUs."""
        if worker.seconds_per_audio_hour is not None:
            return worker.seconds_per_audio_hour
        measured = [one.seconds_per_audio_hour for one in self.workers if one.seconds_per_audio_hour is not None]
        return sum(measured) / len(measured) if measured else UNKNOWN_SPEED_SECONDS_PER_AUDIO_HOUR["gpu"]


def read(client: Redis, settings: Settings) -> Snapshot:
    """The fleet as it is now.

    Raises:
        QueueUnavailable: Redis cannot be reached.
    """
    prefix = settings.redis_key_prefix
    alive = Registry(client, settings).alive()
    with reachable(), client.pipeline(transaction=False) as pipe:
        pipe.zrange(f"{prefix}state:{State.QUEUED}", 0, WALK - 1)
        pipe.zrange(f"{prefix}state:{State.RUNNING}", 0, WALK - 1)
        pipe.zcard(f"{prefix}state:{State.QUEUED}")
        pipe.zcard(prefix + "due")
        pipe.hmget(prefix + "fleet:lengths", "jobs", "audio_seconds")
        pipe.hgetall(prefix + "fleet:speeds")
        queued, running, waiting_count, due_count, lengths, speeds = pipe.execute()
        for job_id in (*queued, *running):
            pipe.hmget(f"{prefix}job:{job_id}", *_FIELDS)
        facts = pipe.execute()
        now = server_time(client)
    mean = float(lengths[1]) / float(lengths[0]) if lengths[0] else UNKNOWN_AUDIO_SECONDS
    jobs = [_job(job_id, *fields, mean) for job_id, fields in zip((*queued, *running), facts, strict=True)]
    return Snapshot(
        now=now,
        workers=tuple(KnownWorker(name, known, _speed(speeds.get(name))) for name, known in alive.items()),
        running=tuple(jobs[len(queued) :]),
        waiting=tuple(job for job in jobs[: len(queued)] if job.queue != RUNPOD and not job.is_remote),
        waiting_count=int(waiting_count),
        due_count=int(due_count),
        mean_audio_seconds=mean,
    )


def _job(job_id: str, *facts: Any) -> KnownJob:
    queue, audio, submitted_at, deadline, started_at, worker, remote, stage, mean = facts
    return KnownJob(
        id=job_id,
        queue=queue or ANYWHERE,
        audio_seconds=float(audio) if audio else mean,
        due_at=float(submitted_at or 0) + float(deadline or 0),
        started_at=float(started_at) if started_at else None,
        worker=worker,
        stage=stage,
        is_remote=bool(remote),
    )


def _speed(stored: str | None) -> float | None:
    seconds, audio_seconds = json.loads(stored) if stored else (0, 0)
    return seconds / audio_seconds * 3600 if audio_seconds else None
