"""The workers of the fleet, as each announces itself with its heartbeat, and how fast its jobs have shown it to be."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Self

from tasks.server import reachable, server_time
from tasks.settings import Settings
from tasks.speed import Speed

if TYPE_CHECKING:
    from redis import Redis

FORGOTTEN_AFTER_SECONDS = 3600


@dataclass(frozen=True)
class WorkerFacts:
    """What a worker says of itself.

    Attributes:
        role: `gpu` or `bridge`.
        room_bytes: Memory for jobs, beyond what its loaded models hold: the most that was free of late, while idle.
        children: Jobs that it runs at one time.
        device: `cpu`, `cuda:N`, or empty where that is not known.
        gpu: The GPU's own name.
        model: Of the diarizer that it has loaded.
        speed: What it has done so far; None until its first job is done. It does not say so itself: see `tasks.speed`.
    """

    role: str = "gpu"
    room_bytes: int = 0
    children: int = 1
    device: str = ""
    gpu: str | None = None
    model: str = ""
    speed: Speed | None = None

    @classmethod
    def parse(cls, stored: str, speed: str | None = None) -> Self:
        """What a worker of any version has said: what is missing has a default, what is unknown is passed over."""
        said = json.loads(stored)
        known = {one.name: said[one.name] for one in fields(cls) if one.name in said and one.name != "speed"}
        return replace(cls(**known), speed=Speed.parse(speed) if speed else None)

    def to_json(self) -> str:
        """As the registry keeps it."""
        said = asdict(self)
        del said["speed"]
        return json.dumps(said)

    @property
    def seconds_per_audio_hour(self) -> float | None:
        """Of one of its children; None until its first job is done."""
        return self.speed.seconds_per_audio_hour if self.speed else None


class Registry:
    """Who works. Every method raises `QueueUnavailable` where Redis cannot be reached."""

    def __init__(self, client: Redis, settings: Settings) -> None:
        self._redis = client
        self._prefix = settings.redis_key_prefix
        self._lease_seconds = settings.queue_lease_seconds

    def alive(self) -> dict[str, WorkerFacts]:
        """Workers that have been heard of within a lease, by name."""
        with reachable(), self._redis.pipeline(transaction=False) as pipe:
            pipe.time()
            pipe.zrange(self._prefix + "fleet:workers_seen", 0, -1, withscores=True)
            pipe.hgetall(self._prefix + "fleet:workers")
            pipe.hgetall(self._prefix + "fleet:speeds")
            (seconds, microseconds), seen, facts, speeds = pipe.execute()
        since = seconds + microseconds / 1e6 - self._lease_seconds
        names = [name for name, seen_at in seen if seen_at >= since and name in facts]
        return {name: WorkerFacts.parse(facts[name], speeds.get(name)) for name in names}

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
