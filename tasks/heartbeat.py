"""The worker's main process keeps its jobs: it renews lease and delivery while a child works on them.

A job whose lease has run out goes to another worker, and so does a message whose delivery is older than the visibility
timeout. The main process renews both, not the child: a stage that holds the GIL stops no heartbeat there, and a job of
three hours needs no timeout of three hours.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from celery.worker import state
from redis import Redis
from redis.exceptions import RedisError

from diarization.errors import DiarizationError
from diarization.memory import available_bytes
from tasks.intake import Intake
from tasks.records import Records
from tasks.registry import WorkerFacts
from tasks.settings import Settings
from tasks.vitals import VitalSigns

logger = logging.getLogger(__name__)

IDLE_BEATS = 20
"""Over so many of its idle beats a worker looks for the most memory that was free: a few minutes."""


class Heartbeat:
    """Renews the leases and the deliveries of the jobs that this worker holds, and says that the worker lives.

    It says so to the fleet, in Redis, and to whoever looks on this machine, in a file.
    """

    def __init__(
        self,
        records: Records,
        client: Redis,
        settings: Settings,
        worker: str,
        facts: WorkerFacts,
        intake: Intake,
        vital_signs: VitalSigns,
    ) -> None:
        self._redis = client
        self._records = records
        self._worker = worker
        self._facts = facts
        self._intake = intake
        self._vital_signs = vital_signs
        self._room_bytes: deque[int] = deque([0], maxlen=IDLE_BEATS)
        self._accepted = 0
        self._index = settings.redis_key_prefix + "unacked_index"

    def beat(self) -> None:
        """Once. A delivery that has been acknowledged meanwhile is not brought back (XX), nor is another's lease."""
        self._vital_signs.turn(asked_at=self._intake.asked_at, refuses=self._intake.refuses)
        requests = self._requests()
        if requests:
            tags = [request.message.delivery_tag for request in requests]
            self._redis.zadd(self._index, dict.fromkeys(tags, time.time()), xx=True)
        else:
            self._room_bytes.append(available_bytes())
        self._accepted = state.all_total_count[0]
        self._facts = facts = replace(self._now(), room_bytes=max(self._room_bytes), said_at=time.time())
        idle = facts.role == "gpu" and facts.taking and not facts.held
        self._records.renew(self._worker, facts.to_json(), [request.id for request in requests], idle=idle)
        self._vital_signs.answered()

    def has_news(self) -> bool:
        """Whether somebody may wait for what the next beat will say: the worker is idle again, or takes jobs again."""
        now, said = self._now(), self._facts
        runs_dry = not now.taking and now.held != said.held
        is_idle_again = not now.held and (said.held > 0 or self._accepted != state.all_total_count[0])
        return runs_dry or is_idle_again or (now.taking, now.heard_at) != (said.taking, said.heard_at)

    def _now(self) -> WorkerFacts:
        # In this order: what the main loop knows later is newer, and an answer that it has read is a job that is held.
        heard_at = self._intake.heard_at
        is_closed = self._intake.is_closed
        return replace(self._facts, heard_at=heard_at, taking=not is_closed, held=len(self._requests()))

    def _requests(self) -> list[Any]:
        return [*snapshot(state.reserved_requests), *snapshot(state.scheduled_requests)]  # type: ignore[attr-defined]  # since Celery 5.7


def snapshot(requests: Iterable[Any]) -> list[Any]:
    """A copy of a set that the main loop changes meanwhile."""
    while True:
        try:
            return list(requests)
        except RuntimeError:
            continue


class Beat(threading.Thread):
    """Calls a function at once and then again and again; an outage of Redis costs a log line, not the beat."""

    def __init__(self, name: str, every_seconds: float, function: Callable[[], object]) -> None:
        super().__init__(name=name, daemon=True)
        self._every_seconds = every_seconds
        self._function = function
        self._stopped = threading.Event()
        self._woken = threading.Event()
        self._failing = False

    def run(self) -> None:
        """The thread's body."""
        while True:
            self._call()
            self._woken.wait(self._every_seconds)
            self._woken.clear()
            if self._stopped.is_set():
                return

    def _call(self) -> None:
        try:
            self._function()
        except (RedisError, DiarizationError, OSError) as error:
            if not self._failing:
                logger.warning("%s cannot reach Redis and goes on trying: %s", self.name, error)
            self._failing = True
        except Exception:
            # Whatever it is: a worker without its beat would lose its jobs to others.
            logger.exception("%s failed and goes on", self.name)
        else:
            if self._failing:
                logger.info("%s reaches Redis again", self.name)
            self._failing = False

    def wake(self) -> None:
        """Call it now, or once more where a call is under way, and then on as before."""
        self._woken.set()

    def stop(self) -> None:
        """End the thread, and wait for a beat that is under way."""
        self._stopped.set()
        self._woken.set()
        if self.is_alive():
            self.join(timeout=10)
