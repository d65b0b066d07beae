"""The worker's main process keeps its jobs: it renews their delivery while a child works on them.

Redis hands a message to somebody else once its delivery is older than the visibility timeout. The main process renews
it, not the child: a stage that holds the GIL stops no heartbeat there, and a job of three hours needs no timeout of
three hours.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from celery.worker import state
from redis.exceptions import RedisError

from diarization.errors import DiarizationError
from tasks.records import connect
from tasks.settings import Settings

logger = logging.getLogger(__name__)


class Deliveries:
    """Renews the deliveries that this worker holds."""

    def __init__(self, settings: Settings) -> None:
        self._redis = connect(settings, patient=False)
        self._index = settings.redis_key_prefix + "unacked_index"

    def renew(self) -> None:
        """Set every held delivery to now. One that has been acknowledged meanwhile is not brought back (XX)."""
        tags = [request.message.delivery_tag for request in _copy(state.reserved_requests)]
        if tags:
            self._redis.zadd(self._index, dict.fromkeys(tags, time.time()), xx=True)


def _copy(requests: Iterable[Any]) -> list[Any]:
    """A snapshot of a set that the main loop changes meanwhile."""
    while True:
        try:
            return list(requests)
        except RuntimeError:
            continue


class Beat(threading.Thread):
    """Calls a function again and again until it is stopped; an outage of Redis costs a log line, not the beat."""

    def __init__(self, name: str, every_seconds: float, function: Callable[[], object]) -> None:
        super().__init__(name=name, daemon=True)
        self._every_seconds = every_seconds
        self._function = function
        self._stopped = threading.Event()
        self._failing = False

    def run(self) -> None:
        """The thread's body."""
        while not self._stopped.wait(self._every_seconds):
            try:
                self._function()
            except (RedisError, DiarizationError, OSError) as error:
                if not self._failing:
                    logger.warning("%s cannot reach Redis and goes on trying: %s", self.name, error)
                self._failing = True
            else:
                if self._failing:
                    logger.info("%s reaches Redis again", self.name)
                self._failing = False

    def stop(self) -> None:
        """End the thread, and wait for a beat that is under way."""
        self._stopped.set()
        if self.is_alive():
            self.join(timeout=10)
