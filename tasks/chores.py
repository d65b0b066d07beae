"""What one worker of the fleet does for all: find jobs that wait without a ticket, and clear what is past its time.

A ticket can be lost without anybody's fault: Redis hands a message to a worker that dies before it has noted it, or a
producer dies between the record and the ticket. The record is still there. A second ticket does no harm: whichever
comes first starts the job, the other is thrown away. So it is with a job that has ended and of whose end Celery has not
been told, nor whoever waits for it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

from celery import Celery
from redis import Redis

from tasks.job import ANYWHERE, LOCAL, RUNPOD
from tasks.overflow.budget import Ledger
from tasks.record import State
from tasks.records import Records
from tasks.registry import Registry
from tasks.server import lead, server_time
from tasks.settings import Settings
from tasks.tickets import PRIORITY_STEPS, publish, task_id

logger = logging.getLogger(__name__)

LEADER_SECONDS = 20
GRACE_SECONDS = 10.0
"""A ticket on its way from one list of the broker to another is in none of them for a moment."""
OLDEST = 1000
"""Waiting jobs that are looked at in one round; the oldest come first."""
SMALL = 5000
"""Up to so many messages every round reads them all; above, only a round in which the counts do not fit."""
EVERYTHING_EVERY = 60
"""And each of so many rounds of a leader: copies of tickets can make counts fit that do not."""
PAGE = 500

_QUEUES = [queue + step for queue in (ANYWHERE, LOCAL, RUNPOD) for step in PRIORITY_STEPS]


class Chores:
    """One round at a time, by whichever worker leads."""

    def __init__(
        self, app: Celery, records: Records, registry: Registry, client: Redis, settings: Settings, worker: str
    ) -> None:
        self._app = app
        self._records = records
        self._registry = registry
        self._ledger = Ledger(client, settings)
        self._retention_seconds = settings.queue_retention_days * 86400
        self._rounds = 0
        self._led = 0
        self._redis = client
        self._prefix = settings.redis_key_prefix
        self._worker = worker
        self._suspects: set[str] = set()

    def round(self) -> list[str]:
        """Re-issue the tickets that two rounds in a row did not find; the ids of their jobs."""
        self._notice_lost_data()
        if not self._leads():
            self._suspects = set()
            return []
        self._led += 1
        missing = self._missing()
        lost, self._suspects = sorted(missing & self._suspects), missing
        for job_id in lost:
            self._reissue(job_id)
        self._call_home()
        self._forget()
        return lost

    def _notice_lost_data(self) -> None:
        """Tell a Redis that came back without some of its data from a quiet one, by a number that only grows."""
        rounds = int(self._redis.incr(self._prefix + "fleet:rounds"))
        if rounds <= self._rounds:
            what = "empty" if rounds == 1 else "with older data"
            self._ledger.shut(f"Redis lost data, and with it what has been spent (it came back {what})")
            logger.error(
                "Redis has lost data: it came back %s (round %d after %d); jobs accepted since may be gone",
                what,
                rounds,
                self._rounds,
            )
        self._rounds = rounds

    def _forget(self) -> None:
        """Clear the indexes of what is past its retention; the records themselves have run out by then."""
        until = server_time(self._redis) - self._retention_seconds
        with self._redis.pipeline(transaction=False) as pipe:
            for state in State:
                if state.ended:
                    pipe.zremrangebyscore(f"{self._prefix}state:{state}", "-inf", until)
            for index in ("jobs:unanswered", "webhooks", "webhooks:dead"):
                pipe.zremrangebyscore(self._prefix + index, "-inf", until)
            ended = sum(state.ended for state in State)
            removed = pipe.execute()[:ended]
        if any(removed):
            logger.info("%d jobs are past their retention and forgotten", sum(removed))
        for worker in self._registry.forget_dead():
            logger.info("worker %s has been silent for an hour and is forgotten", worker)

    def _leads(self) -> bool:
        how = lead(self._redis, self._prefix + "leader", self._worker, LEADER_SECONDS)
        if how == "taken":
            logger.info("does the chores of the fleet from now on")
        return how is not None

    def _missing(self) -> set[str]:
        """Jobs that need a ticket, have needed it for a while, and of whose tickets the broker knows nothing."""
        until = server_time(self._redis) - GRACE_SECONDS
        indexes = (f"{self._prefix}state:{State.QUEUED}", self._prefix + "jobs:unanswered")
        with self._redis.pipeline(transaction=False) as pipe:
            for index in indexes:
                pipe.zrange(index, "-inf", until, byscore=True, offset=0, num=OLDEST)
                pipe.zcard(index)
            for queue in _QUEUES:
                pipe.llen(self._prefix + queue)
            queued, queued_count, unanswered, unanswered_count, *lengths = pipe.execute()
        waiting = {str(one) for one in (*queued, *unanswered)}
        fits = sum(lengths) > SMALL and queued_count + unanswered_count <= sum(lengths)
        if not waiting or (fits and self._led % EVERYTHING_EVERY):
            return set()
        for job_id in self._ticketed():
            waiting.discard(job_id)
        return waiting

    def _ticketed(self) -> Iterator[str]:
        """Task ids of all messages that wait in our queues or are held by a worker."""
        for queue in _QUEUES:
            start = 0
            while page := self._redis.lrange(self._prefix + queue, start, start + PAGE - 1):
                yield from map(task_id, map(json.loads, page))
                start += PAGE
        for _, held in self._redis.hscan_iter(self._prefix + "unacked", count=PAGE):
            yield task_id(json.loads(held)[0])

    def _call_home(self) -> None:
        """Jobs whose run at RunPod is over by RunPod's own rules, and that no bridge is there to look after."""
        if self._led % EVERYTHING_EVERY or any(one.role == "bridge" for one in self._registry.alive().values()):
            return
        now = server_time(self._redis)
        for queue in (RUNPOD + step for step in PRIORITY_STEPS):
            for message in self._redis.lrange(self._prefix + queue, 0, OLDEST - 1):
                record = self._records.get(task_id(json.loads(message)))
                if record is None or record.remote is None or record.ticket["options"].get("queue") == RUNPOD:
                    continue
                if now > record.remote.gone_at and (number := self._records.renumber(record.id)) is not None:
                    publish(self._app.tasks[record.ticket["task"]], record, number=number, again=True, at=now)
                    logger.warning("job %s waited for a bridge, and its run is over: it is done here", record.id)

    def _reissue(self, job_id: str) -> None:
        record = self._records.get(job_id)
        if record is None:
            for index in (f"state:{State.QUEUED}", "jobs:unanswered"):
                self._redis.zrem(self._prefix + index, job_id)
        elif record.state.ended:
            publish(self._app.tasks[record.ticket["task"]], record, number=record.taken_number, again=True)
            logger.warning(
                "job %s has ended (%s) and nobody has been told: it gets another ticket", job_id, record.state
            )
        elif (number := self._records.renumber(job_id)) is not None:
            publish(self._app.tasks[record.ticket["task"]], record, number=number, again=True)
            logger.warning("job %s had lost its ticket and has a new one, first in line", job_id)
