"""The ledger against a plain model of it, through repeats, races, new days and a Redis that lost data."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from redis import Redis

from tasks.budget import Ledger
from tasks.diarize import diarize
from tasks.settings import Settings, read_settings
from tests.processes import Worker, run_cli, wait_until

LIMIT_USD, IN_FLIGHT = 1.0, 3
ATTEMPTS = st.integers(0, 7).map("attempt{}".format)
AMOUNTS = st.integers(0, 600_000).map(lambda micros: micros / 1e6)
DAY = "diarize:ledger:day:"


def made(redis: Redis, limit_usd: float = LIMIT_USD) -> Ledger:
    known: Settings = read_settings()
    return Ledger(
        redis,
        known.model_copy(update={"overflow_budget_usd_per_day": limit_usd, "overflow_max_in_flight": IN_FLIGHT}),
    )


class LedgerMachine(RuleBasedStateMachine):
    """Every call twice at will, as after a lost answer; days pass with runs under way."""

    redis: Redis

    @initialize()
    def begin(self) -> None:
        for key in self.redis.scan_iter("diarize:ledger:*"):
            self.redis.delete(key)
        self.ledger = made(self.redis)
        self.open: dict[str, float] = {}
        self.spent = 0.0
        self.over = 0.0
        self.shut = False

    @rule(attempt=ATTEMPTS, usd=AMOUNTS, slots=st.integers(0, 5), times=st.integers(1, 2))
    def reserve(self, attempt: str, usd: float, slots: int, times: int) -> None:
        if attempt in self.open:
            expected = "reserved"
        elif self.shut:
            expected = "shut"
        elif len(self.open) >= min(slots, IN_FLIGHT):
            expected = "no room"
        elif round((self.spent + sum(self.open.values()) + usd) * 1e6) > LIMIT_USD * 1e6:
            expected = "no budget"
        else:
            expected = "reserved"
        for _ in range(times):
            assert self.ledger.reserve(attempt, usd, slots) == expected
        if expected == "reserved":
            self.open.setdefault(attempt, usd)

    @rule(attempt=ATTEMPTS, usd=AMOUNTS, times=st.integers(1, 2))
    def settle(self, attempt: str, usd: float, times: int) -> None:
        for _ in range(times):
            assert self.ledger.settle(attempt, usd) == ("settled" if attempt in self.open else "unknown")
            if attempt in self.open:
                self.over += max(0.0, usd - self.open.pop(attempt))
                self.spent += usd

    @rule(attempt=ATTEMPTS)
    def release(self, attempt: str) -> None:
        self.ledger.release(attempt)
        self.open.pop(attempt, None)

    @rule(attempt=ATTEMPTS, times=st.integers(1, 2))
    def book(self, attempt: str, times: int) -> None:
        for _ in range(times):
            self.ledger.book(attempt)
        self.spent += self.open.pop(attempt, 0.0)

    @rule()
    def midnight(self) -> None:
        """What has been spent and said belongs to the day that is over; what is open does not."""
        for key in self.redis.scan_iter(DAY + "*"):
            self.redis.rename(key, "diarize:ledger:yesterday")
        self.spent = self.over = 0.0
        self.shut = False

    @rule()
    def redis_loses_data(self) -> None:
        self.ledger.shut("it came back empty")
        self.shut = True

    @rule()
    def the_operator_knows_better(self) -> None:
        self.ledger.reopen()
        self.shut = False

    @invariant()
    def the_books_are_right_and_within_the_budget(self) -> None:
        if not hasattr(self, "ledger"):
            return
        today = self.ledger.today()
        assert today.spent_usd == pytest.approx(self.spent)
        assert today.reserved_usd == pytest.approx(sum(self.open.values()))
        assert (today.in_flight, bool(today.shut)) == (len(self.open), self.shut)
        assert self.ledger.open_runs() == pytest.approx(self.open)
        # Only a bill above its bound can break the budget; it is booked all the same.
        assert today.spent_usd + today.reserved_usd <= LIMIT_USD + self.over + 1e-6


def test_the_ledger_is_right_whatever_comes_together(redis: Redis) -> None:
    machine: Any = type("Machine", (LedgerMachine,), {"redis": redis})
    case = machine.TestCase
    case.settings = settings(
        max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
    )
    case().runTest()


def test_many_that_reserve_at_once_stay_within_the_budget(redis: Redis) -> None:
    known = read_settings().model_copy(update={"overflow_budget_usd_per_day": 1.0, "overflow_max_in_flight": 1000})

    def reserve(number: int) -> str:
        return Ledger(redis, known).reserve(f"attempt{number}", 0.03, 1000)

    with ThreadPoolExecutor(16) as pool:
        outcomes = list(pool.map(reserve, range(200)))
    assert outcomes.count("reserved") == 33
    assert outcomes.count("no budget") == 167
    assert Ledger(redis, known).today().reserved_usd == pytest.approx(0.99)


def test_nothing_can_be_reserved_without_a_budget(redis: Redis) -> None:
    assert made(redis, 0).reserve("attempt", 0.000001, 3) == "no budget"


def test_a_redis_that_lost_data_shuts_it_until_the_operator_says_otherwise(
    redis: Redis, start_worker: Callable[..., Worker]
) -> None:
    worker = start_worker(QUEUE_LEASE_SECONDS=3)
    diarize.delay("http://stand.in/turns/5/1").get(timeout=30)
    wait_until(lambda: int(redis.get("diarize:fleet:rounds") or 0) > 1)
    redis.flushall()
    wait_until(lambda: "Redis has lost data" in worker.log)
    assert made(redis).reserve("attempt", 0.01, 3) == "shut"
    assert "shut: Redis lost data" in run_cli("budget", "show").stdout
    assert run_cli("budget", "reopen").stdout == "reopened\n"
    assert made(redis).reserve("attempt", 0.01, 3) == "reserved"
    assert '"in_flight": 1' in run_cli("budget", "show", "--json").stdout
