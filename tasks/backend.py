"""Celery's Redis backend, which in a worker waits for Redis rather than make a failure of a job that has been done.

Celery 5.7 itself waits (`result_backend_always_retry`) where the connection is lost while a result is stored. It does
not where Redis is full or still loads its data, nor while a chord counts its members: there a finished job would end as
a failure, in its chord for good.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from celery.backends.redis import RedisBackend
from redis.exceptions import BusyLoadingError, OutOfMemoryError, ReadOnlyError

logger = logging.getLogger(__name__)

PASSING = (BusyLoadingError, OutOfMemoryError, ReadOnlyError)
"""What a Redis answers that will take the write later: it loads, is full, or has just become a replica."""


class WaitingBackend(RedisBackend):
    """What `result_backend` names; a producer's, which does not retry, fails as Celery's does."""

    def exception_safe_to_retry(self, exc: Exception) -> bool:
        """Whether `exc` is of a kind that passes."""
        return isinstance(exc, PASSING) or bool(super().exception_safe_to_retry(exc))

    always_retry: bool

    def on_chord_part_return(
        self, request: Any, state: str, result: Any, propagate: bool | None = None, **options: Any
    ) -> None:
        """Count a member of a chord. Counting it twice does no harm: Celery keeps who has been counted."""
        wait_seconds = 0.5
        while True:
            try:
                super().on_chord_part_return(request, state, result, propagate, **options)
                return
            except Exception as error:
                if not (self.always_retry and self.exception_safe_to_retry(error)):
                    raise
                logger.warning("job %s waits for Redis to count in its chord: %s", request.id, error)
            time.sleep(wait_seconds)
            wait_seconds = min(5.0, wait_seconds * 2)
