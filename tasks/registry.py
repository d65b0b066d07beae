"""The workers of the fleet, as each announces itself with its heartbeat."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tasks.server import reachable, server_time
from tasks.settings import Settings

if TYPE_CHECKING:
    from redis import Redis

FORGOTTEN_AFTER_SECONDS = 3600


@dataclass(frozen=True)
class WorkerFacts:
    """What a worker says of itself.

    Attributes:
        role: `gpu` or `bridge`.
        room_bytes: Memory for jobs, beyond what its loaded models hold: the most that was free of late, while idle.
        slots: Jobs that it runs at a time.
    """

    role: str
    room_bytes: int
    slots: int = 1

    def to_json(self) -> str:
        """As the registry keeps it."""
        return json.dumps(asdict(self))


class Registry:
    """Who works. Every method raises `QueueUnavailable` where Redis cannot be reached."""

    def __init__(self, client: Redis, settings: Settings) -> None:
        self._redis = client
        self._prefix = settings.redis_key_prefix
        self._lease_seconds = settings.queue_lease_seconds

    def alive(self) -> dict[str, WorkerFacts]:
        """Workers that have been heard of within a lease, by name."""
        with reachable():
            seen: Any = self._redis.zrange(
                self._prefix + "fleet:workers_seen", server_time(self._redis) - self._lease_seconds, "inf", byscore=True
            )
            facts: Any = self._redis.hmget(self._prefix + "fleet:workers", seen) if seen else []
        return dict(_parsed(zip(seen, facts, strict=True)))

    def forget_dead(self) -> list[str]:
        """Remove workers that have been silent for an hour; their names."""
        with reachable():
            key = self._prefix + "fleet:workers_seen"
            until = server_time(self._redis) - FORGOTTEN_AFTER_SECONDS
            gone: Any = self._redis.zrange(key, "-inf", until, byscore=True)
            if gone:
                self._redis.hdel(self._prefix + "fleet:workers", *gone)
                self._redis.hdel(self._prefix + "fleet:speeds", *gone)
                self._redis.zrem(key, *gone)
        return [str(one) for one in gone]


def _parsed(pairs: Any) -> Iterator[tuple[str, WorkerFacts]]:
    for name, facts in pairs:
        if facts:
            known = json.loads(facts)
            yield (
                name,
                WorkerFacts(str(known.get("role", "gpu")), int(known.get("room_bytes", 0)), int(known.get("slots", 1))),
            )
