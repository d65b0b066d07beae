"""The ledger: what RunPod may bill, reserved before a job is sent there and settled after it.

Spent plus reserved never is above a day's budget, by upper bounds: each change is one step in Redis, and each may be
repeated, so that a lost answer or a crash books nothing twice. A day is one of UTC. A reservation that is still open at
midnight counts against the new day, on which it will be settled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from redis import Redis

from tasks.server import reachable
from tasks.settings import Settings

SCRIPT = Path(__file__).with_name("scripts") / "ledger" / "ledger.lua"
MICRO = 1_000_000


@dataclass(frozen=True)
class Spend:
    """A day, as the ledger has it.

    Attributes:
        day: Such as `2026-11-25`, of UTC.
        spent_usd: Of runs that are over, by upper bounds.
        reserved_usd: Of runs that are not.
        in_flight: How many those are.
        limit_usd: The day's budget.
        shut: Why nothing more may be reserved today; None where it may.
    """

    day: str
    spent_usd: float
    reserved_usd: float
    in_flight: int
    limit_usd: float
    shut: str | None

    @property
    def left_usd(self) -> float:
        """What may still be reserved."""
        return 0.0 if self.shut else max(0.0, self.limit_usd - self.spent_usd - self.reserved_usd)


class Ledger:
    """One for the fleet. Every method raises `QueueUnavailable` where Redis cannot be reached."""

    def __init__(self, client: Redis, settings: Settings) -> None:
        self._prefix = settings.redis_key_prefix
        self._limit_usd = settings.overflow_budget_usd_per_day
        self._max_in_flight = settings.overflow_max_in_flight
        self._script = client.register_script(SCRIPT.read_text())
        self._redis = client

    def reserve(self, attempt_id: str, usd: float, slots: int) -> str:
        """Reserve what a run may cost: `reserved`, also where it has been before; else `no budget`, `no room`, `shut`.

        Args:
            attempt_id: Names the run, before it is submitted.
            usd: Its upper bound.
            slots: How many runs there may be, this one included; never more than OVERFLOW_MAX_IN_FLIGHT.
        """
        return str(self._call("reserve", attempt_id, usd, min(slots, self._max_in_flight)))

    def settle(self, attempt_id: str, usd: float) -> str:
        """The run is over and has cost so much: `settled`, or `unknown` where that is known already."""
        return str(self._call("settle", attempt_id, usd))

    def release(self, attempt_id: str) -> str:
        """There is no such run, for certain."""
        return str(self._call("release", attempt_id))

    def book(self, attempt_id: str) -> str:
        """Nobody can know whether there is such a run: all that was reserved counts as spent."""
        return str(self._call("book", attempt_id))

    def today(self) -> Spend:
        """How the day stands."""
        day, spent, reserved, in_flight, shut = self._call("today", "")
        date = datetime.fromtimestamp(int(day) * 86400, UTC).date()
        usd = int(spent) / MICRO, int(reserved) / MICRO
        return Spend(date.isoformat(), *usd, int(in_flight), self._limit_usd, shut or None)

    def open_runs(self) -> dict[str, float]:
        """What is reserved, by attempt."""
        with reachable():
            stored: Any = self._redis.hgetall(self._prefix + "ledger:open")
        return {attempt_id: int(micros) / MICRO for attempt_id, micros in stored.items()}

    def shut(self, why: str) -> None:
        """Reserve nothing more until the day is over: it cannot be known what has been spent."""
        self._call("shut", why)

    def reopen(self) -> None:
        """The operator knows better."""
        self._call("reopen", "")

    def _call(self, act: str, attempt_id: str, usd: float = 0.0, slots: int = 0) -> Any:
        limit = math.floor(self._limit_usd * MICRO)
        arguments: list[str | int] = [self._prefix, act, attempt_id, math.ceil(round(usd * MICRO, 3)), limit, slots]
        with reachable():
            return self._script(args=arguments)
