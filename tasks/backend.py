"""Celery's Redis backend, which in a worker waits for Redis rather than make a failure of a job that has been done.

Celery 5.7 itself waits (`result_backend_always_retry`) where the connection is lost while a result is stored. It does
not where Redis is full or still loads its data, nor while a chord counts its members: there a finished job would end as
a failure, in its chord for good.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

from celery.backends.redis import RedisBackend
from redis.exceptions import BusyLoadingError, OutOfMemoryError, ReadOnlyError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from diarization.errors import QueueUnavailable

logger = logging.getLogger(__name__)

T = TypeVar("T")

PASSING = (RedisConnectionError, RedisTimeoutError, BusyLoadingError, OutOfMemoryError, ReadOnlyError, OSError)
"""The connection is lost, or Redis will take the write later: it loads, is full, or is a replica now."""


def passes(error: BaseException) -> bool:
    """Whether `error`, or what it was made of, is of a kind that passes; kombu and Celery wrap the client's errors."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, (*PASSING, QueueUnavailable)):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def is_unavailable(error: Exception) -> bool:
    """Whether our own client could not use Redis."""
    return isinstance(error, QueueUnavailable)


def wait_for_redis(call: Callable[[], T], who: str, passing: Callable[[Exception], bool] = is_unavailable) -> T:
    """What `call` gives; while it raises what passes, `who` waits rather than throw a job or its result away."""
    wait_seconds = 0.5
    while True:
        try:
            return call()
        except Exception as error:
            if not passing(error):
                raise
            logger.warning("%s waits for Redis: %s", who, error)
        time.sleep(wait_seconds)
        wait_seconds = min(5.0, wait_seconds * 2)


class WaitingBackend(RedisBackend):
    """What `result_backend` names; a producer's, which does not retry, fails as Celery's does."""

    always_retry: bool

    def exception_safe_to_retry(self, exc: Exception) -> bool:
        """Whether `exc` is of a kind that passes."""
        return isinstance(exc, PASSING) or bool(super().exception_safe_to_retry(exc))

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Nothing: a result is listened for once somebody waits for it.

        Celery subscribes to each job's result as it is submitted, and ends that when it has been read: a backend that
        submits and never reads would listen to more and more.
        """

    def on_chord_part_return(
        self, request: Any, state: str, result: Any, propagate: bool | None = None, **options: Any
    ) -> None:
        """Count a member of a chord. Counting it twice does no harm: Celery keeps who has been counted."""
        count = super().on_chord_part_return
        wait_for_redis(
            lambda: count(request, state, result, propagate, **options),
            f"the chord of job {request.id}",
            lambda error: self.always_retry and self.exception_safe_to_retry(error),
        )
