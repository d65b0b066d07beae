"""The valve: how many jobs may be at RunPod now, as the fleet's leader has decided it, and as bridges obey it."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from diarization.errors import QueueUnavailable
from tasks.overflow.decision import Decision
from tasks.server import reachable, server_time
from tasks.settings import Settings
from tasks.stored import Stored

if TYPE_CHECKING:
    from redis import Redis

logger = logging.getLogger(__name__)

STALE_SECONDS = 30.0
"""A decision that is older was made by a leader that is gone; the valve is closed then."""


@dataclass(frozen=True)
class Position(Stored):
    """The valve's position.

    Attributes:
        slots: So many jobs may be at RunPod; 0 is closed.
        reclaim: So many of those that only wait there are wanted at home.
        pays: What `slots` would be without a dry run.
        why: In one sentence.
        at: When it was decided, by the server's clock.
    """

    slots: int
    reclaim: int
    pays: int
    why: str
    at: float


CLOSED = Position(0, 0, 0, "closed: nobody has decided yet", 0.0)


class Valve:
    """One for the fleet, as one process sees it.

    Every method but `shut` raises `QueueUnavailable` where Redis cannot be reached.
    """

    def __init__(self, client: Redis, settings: Settings) -> None:
        self._redis = client
        self._key = settings.redis_key_prefix + "fleet:valve"
        self._reclaims = settings.redis_key_prefix + "fleet:reclaims"
        self._changed = threading.Lock()
        self._shut_at = 0.0

    def set(self, decision: Decision) -> None:
        """The leader's decision. One line of log where it opens or closes."""
        with reachable():
            before = self.position()
            at = server_time(self._redis)
            position = Position(decision.slots, decision.reclaim, decision.pays, decision.why, at)
            with self._redis.pipeline() as pipe:
                pipe.set(self._key, position.to_json(), ex=86400)
                pipe.set(self._reclaims, decision.reclaim, ex=int(STALE_SECONDS))
                pipe.execute()
        if (before.pays > 0) != (decision.pays > 0):
            logger.info("overflow: %s", decision.why)

    def position(self) -> Position:
        """The decision that holds."""
        with reachable():
            stored: Any = self._redis.get(self._key)
            position = Position.parse(stored) if stored else CLOSED
            if position.slots and server_time(self._redis) - position.at > STALE_SECONDS:
                return Position(0, 0, 0, "closed: no worker has decided for a while", position.at)
        return position

    def slots(self) -> int:
        """How many jobs may be at RunPod, for a bridge that is about to send one: none since it has been `shut`."""
        position = self.position()
        with self._changed:
            return position.slots if position.at > self._shut_at else 0

    def shut(self) -> None:
        """For this process, until the leader decides anew: what it let through could not be sent."""
        try:
            at = self.position().at
        except QueueUnavailable:  # which lets nothing through either
            return
        with self._changed:
            self._shut_at = at

    def reclaims(self) -> bool:
        """Whether one job that only waits at RunPod is wanted at home; who asks has it."""
        with reachable():
            if not int(self._redis.get(self._reclaims) or 0):
                return False
            return int(self._redis.decr(self._reclaims)) >= 0
