"""The simulated days: the same for every policy, the same by seed, and every job of them ends."""

from __future__ import annotations

from random import Random

import pytest

from benchmarks.overflow_loads import LOADS, Load, arrivals
from benchmarks.overflow_policies import FAMILIES, Row, measure, shortfalls

BY_NAME = {load.name: load for load in LOADS}
BURST = BY_NAME["Monday morning"]


@pytest.mark.parametrize("load", LOADS, ids=lambda load: load.name)
def test_a_seed_draws_the_same_day_again(load: Load) -> None:
    assert arrivals(load, Random("1")) == arrivals(load, Random("1")) != arrivals(load, Random("2"))


def test_a_day_goes_the_same_again() -> None:
    assert measure(BURST, "shipped", "", 1, seed=1) == measure(BURST, "shipped", "", 1, seed=1)


@pytest.mark.parametrize("policy", FAMILIES)
@pytest.mark.parametrize("name", ["burst, throttled", "burst, 30 % fail"])
def test_every_job_ends_whatever_runpod_does(policy: str, name: str) -> None:
    row = measure(BY_NAME[name], policy, next(iter(FAMILIES[policy])), 1, seed=3)
    assert row.p95_seconds < 3600 * 3
    assert (row.sent > 0) == (row.usd > 0)


def test_never_sends_nothing() -> None:
    assert measure(BURST, "never", "", 1, seed=1).usd == 0


def row(policy: str, misses: int, usd: float, load: Load = BURST) -> Row:
    return Row(load.name, policy, "", 1000, misses, 1.0, 2.0, usd, sent=1)


@pytest.mark.parametrize(
    ("misses", "usd", "falls_short"),
    [(0, 1.0, False), (0, 3.0, True), (2, 1.0, False), (3, 1.0, True), (5, 2.0, True)],
)
def test_the_verdict(misses: int, usd: float, falls_short: bool) -> None:
    rows = [row("shipped", misses, usd), row("never", 100, 0.0), row("always", 0, 2.0), row("queue length", 4, 1.5)]
    assert bool(shortfalls(BURST, rows)) is falls_short


def test_the_verdict_on_a_quiet_load_is_that_nothing_may_be_sent() -> None:
    quiet = BY_NAME["quiet"]
    assert shortfalls(quiet, [row("shipped", 0, 0.1, quiet)])
