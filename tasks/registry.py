"""The workers of the fleet, as each announces itself with its heartbeat, and how fast its jobs have shown it to be."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Self

from tasks.orders import Order
from tasks.server import reachable, server_time
from tasks.settings import Settings
from tasks.speed import Speed

if TYPE_CHECKING:
    from redis import Redis

FORGOTTEN_AFTER_SECONDS = 3600
_NOT_SAID = frozenset({"speed", "ahead_seconds"})
"""What others know of a worker."""


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
        precision: `exact` or `fast`, as it is set.
        version: Of its code, see `tasks.version`.
        said_at: When it said so, by its own clock, in seconds since 1970.
        ahead_seconds: Its clock before the server's, as far as both are known. It does not say so itself.
        taking: Whether it takes jobs, or may have one on its way from the broker.
        held: Jobs that it has from the broker.
        heard_at: When the latest order was given that it has heard, in seconds since 1970.
        speed: What it has done so far; None until its first job is done. It does not say so itself: see `tasks.speed`.
    """

    role: str = "gpu"
    room_bytes: int = 0
    children: int = 1
    device: str = ""
    gpu: str | None = None
    model: str = ""
    precision: str = ""
    version: str = ""
    said_at: float | None = None
    ahead_seconds: float | None = None
    taking: bool = True
    held: int = 0
    heard_at: float = 0.0
    speed: Speed | None = None

    @classmethod
    def parse(cls, stored: str, speed: str | None = None, heard_at: float | None = None) -> Self:
        """What a worker of any version has said: what is missing has a default, what is unknown is passed over.

        Args:
            stored: What it has said.
            speed: What is known of its speed.
            heard_at: When that was, by the server's clock.
        """
        said = json.loads(stored)
        known = {one.name: said[one.name] for one in fields(cls) if one.name in said and one.name not in _NOT_SAID}
        facts = cls(**known)
        ahead = None if facts.said_at is None or heard_at is None else facts.said_at - heard_at
        return replace(facts, speed=Speed.parse(speed) if speed else None, ahead_seconds=ahead)

    def to_json(self) -> str:
        """As the registry keeps it."""
        return json.dumps({name: value for name, value in asdict(self).items() if name not in _NOT_SAID})

    def obeys(self, order: Order) -> bool:
        """Whether it has heard that it is to take nothing, and takes nothing."""
        return self.heard_at >= order.at and not self.taking

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
        alive = [(name, seen_at) for name, seen_at in seen if seen_at >= since and name in facts]
        return {name: WorkerFacts.parse(facts[name], speeds.get(name), seen_at) for name, seen_at in alive}

    def others_idle(self, worker: str) -> bool:
        """Whether a GPU worker other than that one has said within a lease that it has no job, and takes any."""
        with reachable(), self._redis.pipeline(transaction=False) as pipe:
            pipe.time()
            pipe.zrange(self._prefix + "fleet:idle", 0, 1, desc=True, withscores=True)
            (seconds, _), latest = pipe.execute()
        return any(name != worker and said_at >= seconds - self._lease_seconds for name, said_at in latest)

    def leave(self, worker: str) -> None:
        """A worker ends: no other one leaves jobs to it any more.

        It counts as one of the fleet for a lease all the same: a restart is no reason to send jobs to RunPod.
        """
        with reachable():
            self._redis.zrem(self._prefix + "fleet:idle", worker)

    def known(self) -> list[str]:
        """Workers that live, or have lived within the last hour; by name."""
        with reachable():
            names: Any = self._redis.hkeys(self._prefix + "fleet:workers")
        return [str(one) for one in names]

    def forget_dead(self) -> list[str]:
        """Remove workers that have been silent for an hour; their names."""
        with reachable():
            key = self._prefix + "fleet:workers_seen"
            until = server_time(self._redis) - FORGOTTEN_AFTER_SECONDS
            gone: Any = self._redis.zrange(key, "-inf", until, byscore=True)
            if gone:
                self._redis.hdel(self._prefix + "fleet:workers", *gone)
                self._redis.hdel(self._prefix + "fleet:speeds", *gone)
                self._redis.zrem(self._prefix + "fleet:idle", *gone)
                self._redis.zrem(key, *gone)
        return [str(one) for one in gone]
