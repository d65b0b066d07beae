"""The fleet as Redis knows it, read in four round trips and a walk of bounded length, however much waits."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import merge
from itertools import groupby, islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from tasks.job import ANYWHERE, LOCAL, RUNPOD
from tasks.orders import KEY as ORDERS
from tasks.orders import Orders
from tasks.record import JobRecord, State
from tasks.registry import Registry
from tasks.server import reachable
from tasks.settings import Settings
from tasks.snapshot import DEFAULT_AUDIO_SECONDS, Position, RunningJob, Snapshot, WaitingJob
from tasks.tickets import PRIORITY_STEPS, task_id

if TYPE_CHECKING:
    from redis import Redis

FIRST_IN_LINE_JOBS = 500
"""Waiting jobs that are looked at one by one; the others are counted."""
RUNNING_JOBS = 1000
"""Running jobs that are looked at."""

_QUEUES = (ANYWHERE, LOCAL, RUNPOD)
_LISTS = [(step, queue) for step in PRIORITY_STEPS for queue in _QUEUES]
_FIELDS = (
    *("state", "audio_seconds", "deadline_at", "submitted_at", "started_at"),
    *("worker", "stage", "percent", "speed", "shown"),
)

_Page = tuple[str, str, list[str]]
"""Of one list of the broker: its priority step, its queue, job ids in order."""


@dataclass(frozen=True)
class _Counts:
    """What one round trip tells: the server's clock, jobs by state, who runs, the messages in each list, orders."""

    now: float
    queued: int
    due: int
    mean_audio_seconds: float
    running: Sequence[str]
    messages: Mapping[tuple[str, str], int]
    orders: Orders


class Fleet:
    """Workers, running and waiting jobs of one Redis.

    Every method raises `QueueUnavailable` where Redis cannot be reached.
    """

    def __init__(self, client: Redis, settings: Settings) -> None:
        self._redis = client
        self._prefix = settings.redis_key_prefix
        self._deadline_seconds = settings.overflow_deadline_seconds
        self._registry = Registry(client, settings)

    def snapshot(self) -> Snapshot:
        """The fleet now.

        The line is what the broker's lists say: by priority, and in one priority by age. A ticket on its way between
        two lists is in none of them for a moment; its job is counted all the same.
        """
        workers = self._registry.alive()
        with reachable():
            counts = self._count()
            pages = self._walk(counts.messages)
            records = self._records({*counts.running, *(job_id for _, _, page in pages for job_id in page)})
        waiting = list(islice(self._in_order(pages, records), FIRST_IN_LINE_JOBS))
        runs = [records[job_id] for job_id in counts.running if job_id in records]
        return Snapshot(
            now=counts.now,
            workers=workers,
            running=[_running(record) for record in runs if record.state is State.RUNNING],
            waiting=waiting,
            waiting_jobs=max(counts.queued, len(waiting)),
            due_jobs=counts.due,
            mean_audio_seconds=counts.mean_audio_seconds,
            orders=counts.orders,
        )

    def position(self, job_id: str) -> Position:
        """The job's place in the line and when it will be done.

        Behind the first `FIRST_IN_LINE_JOBS` its place is by age alone, and the finish a mean.
        """
        snapshot = self.snapshot()
        found = snapshot.position(job_id)
        if found.place is None:
            with reachable():
                rank: Any = self._redis.zrank(f"{self._prefix}state:{State.QUEUED}", job_id)
            found = snapshot.position(job_id, None if rank is None else int(rank) + 1)
        return found

    def _count(self) -> _Counts:
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.time()
            for state in (State.QUEUED, State.DUE):
                pipe.zcard(f"{self._prefix}state:{state}")
            pipe.zrange(f"{self._prefix}state:{State.RUNNING}", 0, RUNNING_JOBS - 1)
            pipe.hmget(self._prefix + "fleet:lengths", "jobs", "audio_seconds")
            pipe.hgetall(self._prefix + ORDERS)
            for step, queue in _LISTS:
                pipe.llen(self._prefix + queue + step)
            (seconds, microseconds), queued, due, running, (jobs, audio_seconds), orders, *messages = pipe.execute()
        mean = float(audio_seconds) / float(jobs) if jobs else DEFAULT_AUDIO_SECONDS
        now, in_lists = seconds + microseconds / 1e6, dict(zip(_LISTS, messages, strict=True))
        return _Counts(now, queued, due, mean, running, in_lists, Orders.parse(orders, now))

    def _walk(self, messages: Mapping[tuple[str, str], int]) -> list[_Page]:
        """The first in each of the broker's lists that the first in line may be in; the oldest message is the last."""
        wanted, left = [], FIRST_IN_LINE_JOBS
        for step in PRIORITY_STEPS:
            # Of each queue as many as there may be: who is older in which shows later.
            wanted += [(step, queue) for queue in _QUEUES if left and messages[step, queue]]
            left = max(0, left - sum(messages[step, queue] for queue in _QUEUES))
        with self._redis.pipeline(transaction=False) as pipe:
            for step, queue in wanted:
                pipe.lrange(self._prefix + queue + step, -FIRST_IN_LINE_JOBS, -1)
            found = pipe.execute() if wanted else []
        return [
            (step, queue, [task_id(json.loads(message)) for message in reversed(page)])
            for (step, queue), page in zip(wanted, found, strict=True)
        ]

    def _records(self, job_ids: Collection[str]) -> dict[str, JobRecord]:
        with self._redis.pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                pipe.hmget(self._prefix + "job:" + job_id, _FIELDS)
            stored = pipe.execute() if job_ids else []
        known = {
            job_id: {name: value for name, value in zip(_FIELDS, values, strict=True) if value is not None}
            for job_id, values in zip(job_ids, stored, strict=True)
        }
        return {job_id: JobRecord.parse(job_id, fields) for job_id, fields in known.items() if "state" in fields}

    def _in_order(self, pages: Sequence[_Page], records: Mapping[str, JobRecord]) -> Iterator[WaitingJob]:
        """Each job once that waits: tickets of others are thrown away by who meets them."""
        seen = set()
        for _, lists in groupby(pages, key=itemgetter(0)):
            waits = [
                [(records[one], queue) for one in page if one in records and records[one].state is State.QUEUED]
                for _, queue, page in lists
            ]
            for record, queue in merge(*waits, key=lambda pair: pair[0].submitted_at):
                if record.id not in seen:
                    seen.add(record.id)
                    # Jobs of an older version have no deadline of their own.
                    deadline_at = record.deadline_at or record.submitted_at + self._deadline_seconds
                    yield WaitingJob(record.id, queue, deadline_at, record.audio_seconds, record.shown)


def _running(record: JobRecord) -> RunningJob:
    return RunningJob(
        id=record.id,
        worker=record.worker or "",
        started_at=record.started_at or record.submitted_at,
        audio_seconds=record.audio_seconds,
        stage=record.stage,
        percent=record.percent,
        seconds_left=record.seconds_left,
        shown=record.shown,
    )
