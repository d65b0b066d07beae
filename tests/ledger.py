"""What tests of the ledger share: its settings, and days that end when a test wants it."""

from __future__ import annotations

from typing import Any

from redis import Redis

from tasks.settings import Settings
from tests.processes import wait_until

DAY_SECONDS = 86400
ROOMY = 1000
"""More in flight than any test has."""


def make_settings(**given: Any) -> Settings:
    return Settings(**{"overflow_budget_usd_per_day": 10, "overflow_max_in_flight": ROOMY, **given})


def stay_within_a_day(redis: Redis) -> None:
    """Begin no test that would run over midnight, by the server's clock."""
    wait_until(lambda: DAY_SECONDS - redis.time()[0] % DAY_SECONDS > 60, seconds=90, what="the day is over")


def let_midnight_pass(redis: Redis, prefix: str) -> None:
    """What was spent today was spent yesterday; what has an end at midnight has ended."""
    days = sorted(int(key.rpartition(":")[2]) for key in redis.scan_iter(prefix + "budget:spent:*"))
    for day in days:
        redis.rename(f"{prefix}budget:spent:{day}", f"{prefix}budget:spent:{day - 1}")
    if redis.exists(prefix + "budget:shut"):
        midnight = (redis.time()[0] // DAY_SECONDS + 1) * DAY_SECONDS
        assert redis.expiretime(prefix + "budget:shut") == midnight
        redis.delete(prefix + "budget:shut")
