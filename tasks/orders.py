"""What the operator has told the fleet: take no new jobs, send nothing new to RunPod, let this worker run dry.

It stands in Redis, in one hash, so it lasts: workers that start later obey as well, and a restart changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from tasks.server import reachable
from tasks.settings import Settings
from tasks.stored import Stored

if TYPE_CHECKING:
    from redis import Redis

DRAIN_DAYS = 30.0
"""A drain that nobody has ended by then is over: names of containers come and go, and what is drained comes back."""

KEY = "fleet:orders"
QUEUE, OVERFLOW = "pause", "pause:overflow"
_DRAIN = "drain:"


def node_name(worker: str) -> str:
    """Celery's node name of a worker, without the pid that its full name ends with: it outlives a restart."""
    return worker.rpartition(" (")[0] or worker


@dataclass(frozen=True)
class Order(Stored):
    """Who ordered something, when and why.

    Attributes:
        reason: In the operator's own words; may be empty.
        by: As `user@host`.
        at: By the server's clock, in seconds since 1970.
    """

    reason: str = ""
    by: str = ""
    at: float = 0.0

    def __str__(self) -> str:
        return f"by {self.by or 'an operator'}" + (f": {self.reason}" if self.reason else "")


@dataclass(frozen=True)
class Orders:
    """What holds now.

    Attributes:
        paused: No worker takes a new job.
        overflow_paused: Nothing new goes to RunPod.
        drained: Workers that take nothing more, by node name.
    """

    paused: Order | None = None
    overflow_paused: Order | None = None
    drained: Mapping[str, Order] = field(default_factory=dict)

    @classmethod
    def parse(cls, stored: Mapping[str, str], now: float) -> Self:
        """From Redis. What a newer version knows besides is passed over, and so is a drain of long ago."""
        drains = {name: Order.parse(text) for name, text in stored.items() if name.startswith(_DRAIN)}
        return cls(
            paused=Order.parse(stored[QUEUE]) if QUEUE in stored else None,
            overflow_paused=Order.parse(stored[OVERFLOW]) if OVERFLOW in stored else None,
            drained={
                name.removeprefix(_DRAIN): order
                for name, order in drains.items()
                if now - order.at < DRAIN_DAYS * 86400
            },
        )

    @property
    def halted(self) -> Order | None:
        """Why nothing new may go to RunPod."""
        return self.paused or self.overflow_paused

    @property
    def latest_at(self) -> float:
        """When the latest of them was given; a worker that says so has heard it."""
        given = [*self.drained.values(), *filter(None, (self.paused, self.overflow_paused))]
        return max((order.at for order in given), default=0.0)

    def drain_of(self, worker: str) -> Order | None:
        """Why that worker, by its full name or its node name, takes nothing more."""
        return self.drained.get(node_name(worker))


class OrderBook:
    """The orders of one Redis. Every method raises `QueueUnavailable` where that cannot be reached."""

    def __init__(self, client: Redis, settings: Settings) -> None:
        self._redis = client
        self._key = settings.redis_key_prefix + KEY

    def read(self) -> Orders:
        """What holds now, in one round trip."""
        now, stored = self._stored()
        return Orders.parse(stored, now)

    def pause(self, what: str, reason: str, by: str) -> None:
        """Pause `QUEUE` or `OVERFLOW`; the later reason counts."""
        self._give([what], reason, by)

    def resume(self, what: str) -> bool:
        """End a pause; whether there was one."""
        return self._withdraw([what]) > 0

    def drain(self, node_names: Iterable[str], reason: str, by: str) -> None:
        """Let these workers run dry."""
        self._give([_DRAIN + name for name in node_names], reason, by)

    def undrain(self, node_names: Iterable[str]) -> None:
        """Let these workers take jobs again."""
        self._withdraw([_DRAIN + name for name in node_names])

    def _stored(self) -> tuple[float, dict[str, str]]:
        with reachable(), self._redis.pipeline(transaction=False) as pipe:
            pipe.time()
            pipe.hgetall(self._key)
            (seconds, microseconds), stored = pipe.execute()
        return seconds + microseconds / 1e6, stored

    def _give(self, names: Iterable[str], reason: str, by: str) -> None:
        """Note it, and clear away the drains that are over."""
        now, stored = self._stored()
        order = Order(reason, by, now).to_json()
        drained = Orders.parse(stored, now).drained
        over = [name for name in stored if name.startswith(_DRAIN) and name.removeprefix(_DRAIN) not in drained]
        with reachable(), self._redis.pipeline() as pipe:
            if over:
                pipe.hdel(self._key, *over)
            pipe.hset(self._key, mapping=dict.fromkeys(names, order))
            pipe.execute()

    def _withdraw(self, names: list[str]) -> int:
        with reachable():
            return int(self._redis.hdel(self._key, *names))
