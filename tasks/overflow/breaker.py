"""The breaker: while a provider refuses everything, no job is offered to it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from redis import Redis

from tasks.server import reachable, server_time
from tasks.settings import Settings
from tasks.stored import Stored

logger = logging.getLogger(__name__)

FIRST_SECONDS, LONGEST_SECONDS = 30.0, 1800.0
"""It is open for so long at first, twice as long after each further failure."""


@dataclass(frozen=True)
class Open(Stored):
    """Why the breaker is open, since when and until when (seconds since 1970, by the server's clock)."""

    why: str
    since: float
    until: float
    failures: int


class Breaker:
    """One for the fleet. Every method raises `QueueUnavailable` where Redis cannot be reached."""

    def __init__(self, client: Redis, settings: Settings) -> None:
        self._redis = client
        self._key = settings.redis_key_prefix + "fleet:breaker"

    def trip(self, why: str, seconds: float | None = None) -> None:
        """Open it, with one line of alarm; what fails while it is open says nothing new.

        Args:
            why: What is wrong, and its cure.
            seconds: For how long, where that is known: then it is no failure of the breaker's own counting.
        """

        def opened(pipe: Any) -> Open | None:
            """Several bridges fail at once; one of them opens it."""
            last, now = _parsed(pipe.get(self._key)), server_time(pipe)
            if last is not None and now < last.until:
                return None
            failures = (last.failures if last else 0) + (seconds is None)
            open_seconds = seconds or open_seconds_after(failures)
            new = Open(why, now, now + open_seconds, failures)
            pipe.multi()
            pipe.set(self._key, new.to_json(), ex=int(LONGEST_SECONDS * 4))
            return new

        with reachable():
            new: Any = self._redis.transaction(opened, self._key, value_from_callable=True)  # type: ignore[arg-type]
        if new is not None:
            logger.error("RunPod gets no jobs for %.0f s: %s", new.until - new.since, why)

    def close(self) -> None:
        """The provider works."""
        with reachable():
            if self._redis.delete(self._key):
                logger.info("RunPod works again")

    def state(self) -> Open | None:
        """Why it is open; None where it is not."""
        with reachable():
            last = _parsed(self._redis.get(self._key))
            return last if last is not None and server_time(self._redis) < last.until else None


def open_seconds_after(failures: int) -> float:
    """How long nothing is tried after so many failures in a row."""
    return min(LONGEST_SECONDS, FIRST_SECONDS * 2.0 ** min(max(0, failures - 1), 20))


def _parsed(stored: Any) -> Open | None:
    return Open.parse(stored) if stored else None
