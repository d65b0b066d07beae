"""The ledger: what RunPod has cost today, and what the jobs that are there now may cost yet.

Before a job is sent, an upper bound of its cost is reserved; after its end what it cost at most takes the reservation's
place. Each step is one script of `tasks/scripts/ledger/`, so that neither a crash nor a race lets through more than the
budget of the day.

The day is UTC, by the server's clock. A reservation counts on every day on which it is open, and its cost on the day on
which it is closed. So a job that runs over midnight counts on both days, as RunPod may bill it on either, and no day's
bill exceeds its budget as long as the bounds hold; in the sum over the days it counts once.
"""

from __future__ import annotations

import logging
import math
import threading
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.server import load_scripts, reachable
from tasks.settings import Settings

if TYPE_CHECKING:
    from redis import Redis

logger = logging.getLogger(__name__)

SCRIPTS = Path(__file__).parents[1] / "scripts" / "ledger"
MICRO_USD = 1_000_000
"""Redis keeps whole micro-dollars: sums of floats would drift."""
FIRST_DAY = date(1970, 1, 1)


@dataclass(frozen=True)
class Spend:
    """How a day stands.

    Attributes:
        day: The UTC day, as `2026-11-25`.
        spent_usd: What has been spent, by upper bounds.
        reserved_usd: What the jobs in flight may cost yet.
        in_flight: How many those are.
        limit_usd: The budget of a day.
        shut: Why nothing is reserved for the rest of the day; None where it is not so.
    """

    day: str
    spent_usd: float
    reserved_usd: float
    in_flight: int
    limit_usd: float
    shut: str | None

    @property
    def left_usd(self) -> float:
        """What can still be reserved today."""
        return max(0.0, self.limit_usd - self.spent_usd - self.reserved_usd)


class Ledger:
    """The budget of the fleet. May be shared by threads.

    An attempt's id belongs to one submission: it is not reserved for again once it has been closed. Every method raises
    `QueueUnavailable` where Redis cannot be reached; to call it again is safe, whether or not the first call counted.
    """

    def __init__(self, client: Redis, settings: Settings) -> None:
        self._redis = client
        self._prefix = settings.redis_key_prefix
        self._limit = round(settings.overflow_budget_usd_per_day * MICRO_USD)
        self._max_in_flight = settings.overflow_max_in_flight
        self._scripts = load_scripts(client, SCRIPTS, SCRIPTS.parent)
        self._heard_of = 0
        self._lock = threading.Lock()

    def reserve(self, attempt_id: str, usd: float, slots: int) -> str:
        """Set `usd` aside for an attempt that is about to be sent.

        Args:
            attempt_id: Of this one submission.
            usd: Upper bound of what it may cost, more than nothing.
            slots: Most attempts in flight, where that is less than `OVERFLOW_MAX_IN_FLIGHT`.

        Returns:
            `reserved`, also where this attempt's reservation is open already; else why it must not be sent: `no budget`
            today, `no room` in flight, or `shut`. What is open stays so.

        Raises:
            ValueError: `usd` is no amount, or nothing.
        """
        amount = _micro_usd(usd)
        if amount == 0:
            raise ValueError("a job at RunPod is never free")
        most = min(slots, self._max_in_flight)
        (outcome,) = self._call("reserve", attempt_id, amount, most, self._limit)
        return str(outcome)

    def settle(self, attempt_id: str, usd: float) -> str:
        """The attempt has cost `usd` at most, which may be more than was reserved: `settled`.

        `unknown` where there is no such reservation: it was closed before, or Redis has lost it.
        """
        cost = _micro_usd(usd)
        reserved = self._close(attempt_id, cost)
        if reserved is None:
            return "unknown"
        if cost > reserved:
            logger.warning(
                "attempt %s has cost up to %.6f USD and only %.6f were reserved: raise OVERFLOW_COLD_START_SECONDS "
                "or OVERFLOW_SECONDS_PER_AUDIO_HOUR",
                attempt_id,
                cost / MICRO_USD,
                reserved / MICRO_USD,
            )
        return "settled"

    def release(self, attempt_id: str) -> str:
        """RunPod has certainly not accepted the attempt, and nothing is spent: `released`, or `unknown`."""
        return "unknown" if self._close(attempt_id, 0) is None else "released"

    def book(self, attempt_id: str) -> str:
        """Nobody can know what became of the attempt; all of its reservation is spent: `booked`, or `unknown`."""
        return "unknown" if self._close(attempt_id, None) is None else "booked"

    def today(self) -> Spend:
        """How today stands."""
        day, spent, reserved, in_flight, shut = self._call("today")
        return Spend(
            day=(FIRST_DAY + timedelta(days=day)).isoformat(),
            spent_usd=spent / MICRO_USD,
            reserved_usd=reserved / MICRO_USD,
            in_flight=in_flight,
            limit_usd=self._limit / MICRO_USD,
            shut=shut,
        )

    def open_attempts(self) -> dict[str, float]:
        """The reservations in flight: USD by attempt."""
        with reachable():
            stored: Any = self._redis.hgetall(self._prefix + "budget:open")
        return {attempt_id: int(amount) / MICRO_USD for attempt_id, amount in stored.items()}

    def shut(self, why: str) -> None:
        """Reserve nothing until the UTC day is over, or `reopen` is called: what has been spent is no longer known."""
        self._call("shut", why)

    def reopen(self) -> str | None:
        """Reserve again, by what the ledger knows; why it was shut, None where it was not."""
        (why,) = self._call("reopen")
        return None if why is None else str(why)

    def _close(self, attempt_id: str, cost: int | None) -> int | None:
        """What was reserved, in micro-dollars; `cost` takes its place, or all of it where that is None."""
        (reserved,) = self._call("close", attempt_id, "" if cost is None else cost)
        return None if reserved is None else int(reserved)

    def _call(self, script: str, *arguments: Any) -> list[Any]:
        with reachable():
            number, *answer = self._scripts[script](args=[self._prefix, "", self._heard_of, *arguments])
        with self._lock:
            self._heard_of = max(self._heard_of, number)
        return list(answer)


def _micro_usd(usd: float) -> int:
    """Rounded up, but for the error of a float.

    Raises:
        ValueError: It is no amount.
    """
    if not math.isfinite(usd) or usd < 0:
        raise ValueError(f"{usd} is no amount in USD")
    return math.ceil(round(usd * MICRO_USD, 3))
