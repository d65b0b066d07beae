"""Celery's Redis backend, which waits for Redis: in a worker that has a result, and in a producer that wants one.

Celery 5.7 itself waits (`result_backend_always_retry`) where the connection is lost while a result is stored. It does
not where Redis is full or still loads its data, nor while a chord counts its members: there a finished job would end as
a failure, in its chord for good.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from celery.backends.redis import RedisBackend, ResultConsumer  # type: ignore[attr-defined]  # the stubs lack it
from redis.exceptions import BusyLoadingError, OutOfMemoryError, ReadOnlyError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from diarization.errors import QueueUnavailable

logger = logging.getLogger(__name__)

T = TypeVar("T")

OUTAGE_SECONDS = 60.0
"""Whoever waits for a result waits out an outage of so long: more than a restart of Redis takes."""
RETRY_SECONDS = 0.5
"""Between looks whether Redis is back."""
LOOK_SECONDS = 5.0
"""Between looks at what is waited for, of which one hears by a message as a rule."""

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


class LastingResults(ResultConsumer):  # type: ignore[misc]
    """Celery's listener for results, which an outage of Redis does not end.

    With Celery 5.7's own a producer that waits is told to restart, and is deaf until it does: a later wait takes its
    job for subscribed to. This one subscribes anew when Redis is back. What is stored just before that is published to
    nobody: so now and then it also looks.
    """

    _lost_at: float | None = None
    """Since when Redis has not answered."""
    _is_deaf: bool = False
    """Whether the subscription went with it, and is to be made anew."""
    _look_at: float = 0.0

    @contextmanager
    def reconnect_on_error(self) -> Iterator[None]:
        """What fails because Redis is away is made good by `drain_events`."""
        try:
            yield
        except (*PASSING, QueueUnavailable) as error:
            self._lose(error)

    def on_wait_for_pending(self, result: Any, **options: Any) -> None:
        """Look at what is there already, if Redis is. With each wait patience begins anew."""
        try:
            super().on_wait_for_pending(result, **options)
        except (*PASSING, QueueUnavailable) as error:
            if self._is_over:
                self._lost_at = None
            self._lose(error)
        else:
            self._lost_at, self._look_at = None, time.monotonic() + LOOK_SECONDS

    def drain_events(self, timeout: float | None = None) -> None:
        """Celery's, or a look at what was not heard of.

        Raises:
            QueueUnavailable: Redis has been away for `OUTAGE_SECONDS`.
        """
        if not self._is_deaf and time.monotonic() < self._look_at:
            super().drain_events(timeout)
            return
        with self._locked(), self.reconnect_on_error():
            if self._is_deaf:
                # Celery forgets the connections that it had, and leaves open those that nobody uses.
                self.backend.client.connection_pool.disconnect(inuse_connections=False)
                self._reconnect_pubsub()
                self._is_deaf, wait_seconds = False, RETRY_SECONDS
            else:
                self._look()
                wait_seconds = LOOK_SECONDS
            self._lost_at, self._look_at = None, time.monotonic() + wait_seconds
        if self._is_deaf:
            time.sleep(RETRY_SECONDS if timeout is None else min(timeout, RETRY_SECONDS))

    @property
    def _is_over(self) -> bool:
        """Whether the outage has lasted for longer than anybody waits."""
        return self._lost_at is not None and time.monotonic() - self._lost_at > OUTAGE_SECONDS

    def _look(self) -> None:
        if wanted := list(self.subscribed_to):
            for meta in filter(None, self.backend.client.mget(wanted)):
                self.on_state_change(self._decode_result(meta), None)

    def _lose(self, error: Exception) -> None:
        self._is_deaf = True
        if self._is_over:
            if isinstance(error, QueueUnavailable):
                raise error
            raise QueueUnavailable(f"Redis cannot be used: {error or type(error).__name__}") from None
        if self._lost_at is None:
            self._lost_at = time.monotonic()
            logger.warning("waits for Redis, which has the results: %s", error)


class WaitingBackend(RedisBackend):
    """What `result_backend` names; a producer's does not retry, but for a wait for a result."""

    always_retry: bool
    ResultConsumer = LastingResults

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
