"""The ledger in races, outages and losses: a day costs no more than its budget, and each attempt counts once."""

from __future__ import annotations

import json
import logging
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from redis import Redis

from diarization.errors import QueueUnavailable
from tasks.overflow.budget import Ledger
from tasks.server import connect
from tasks.valkey import EmbeddedValkey
from tests.ledger import DAY_SECONDS, ROOMY, let_midnight_pass, make_settings, stay_within_a_day
from tests.processes import run_cli, wait_until


@pytest.fixture(autouse=True)
def _within_a_day(redis: Redis) -> None:
    stay_within_a_day(redis)


@pytest.fixture
def ledger(redis: Redis) -> Ledger:
    return Ledger(redis, make_settings())


RACER = """
import json, sys, time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from tasks.overflow.budget import Ledger
from tasks.server import connect
from tasks.settings import read_settings

settings = read_settings()
redis, (name, racers) = connect(settings, patient=True), sys.argv[1:]
ledgers = [Ledger(redis, settings) for _ in range(2)]
redis.incr("ready")
while int(redis.get("ready")) < int(racers):
    time.sleep(0.001)
with ThreadPoolExecutor(8) as pool:
    outcomes = pool.map(lambda n: ledgers[n % 2].reserve(f"{name}{n}", 0.3, 1000), range(60))
    print(json.dumps(Counter(outcomes)))
"""


def race(python: Callable[..., str], names: str, **given: Any) -> Counter[str]:
    """Outcomes of the reservations that processes of these names make at once, 60 of 0.3 USD each, by threads."""
    with ThreadPoolExecutor(len(names)) as pool:
        codes = [f"import sys; sys.argv = ['', {name!r}, {str(len(names))!r}]" + RACER for name in names]
        return sum(
            (Counter(json.loads(said)) for said in pool.map(lambda code: python(code, **given), codes)), Counter()
        )


@pytest.mark.parametrize(
    ("limit_usd", "most", "reserved", "refused"), [(10, ROOMY, 33, "no budget"), (1000, 3, 3, "no room")]
)
def test_who_reserves_at_once_gets_no_more_than_there_is(
    redis: Redis, python: Callable[..., str], limit_usd: float, most: int, reserved: int, refused: str
) -> None:
    given = {"OVERFLOW_BUDGET_USD_PER_DAY": limit_usd, "OVERFLOW_MAX_IN_FLIGHT": most}
    assert race(python, "abc", **given) == {"reserved": reserved, refused: 180 - reserved}
    today = Ledger(redis, make_settings()).today()
    assert (today.in_flight, today.reserved_usd, today.shut) == (reserved, pytest.approx(0.3 * reserved), None)


def test_who_reserves_the_same_at_once_reserves_it_once(redis: Redis, python: Callable[..., str]) -> None:
    given = {"OVERFLOW_BUDGET_USD_PER_DAY": 100, "OVERFLOW_MAX_IN_FLIGHT": ROOMY}
    assert race(python, "aaa", **given) == {"reserved": 180}
    assert Ledger(redis, make_settings()).today().in_flight == 60


@pytest.fixture
def own_server() -> Iterator[EmbeddedValkey]:
    """One that a test may hang, kill and empty."""
    with EmbeddedValkey(persistent=True) as running:
        yield running


def test_a_call_whose_answer_is_lost_counts_once(own_server: EmbeddedValkey) -> None:
    """The server hangs until the client has given up, and then does what it was told."""
    with Redis.from_url(own_server.url, decode_responses=True) as redis:
        given = make_settings(redis_url=own_server.url)
        ledger, here = Ledger(connect(given, patient=False), given), Ledger(redis, given)
        ledger.reserve("before", 1, ROOMY)
        ledger.release("before")
        for call, took_effect in (
            (lambda: ledger.reserve("a", 1, ROOMY), lambda: here.open_attempts() == {"a": 1}),
            (lambda: ledger.settle("a", 0.5), lambda: here.today().spent_usd == 0.5),
        ):
            own_server.process.send_signal(signal.SIGSTOP)
            with pytest.raises(QueueUnavailable):
                call()
            own_server.process.send_signal(signal.SIGCONT)
            wait_until(took_effect)
            assert call() in ("reserved", "unknown")
            assert took_effect()


def test_a_redis_that_is_killed_and_keeps_all_has_lost_nothing(own_server: EmbeddedValkey) -> None:
    with Redis.from_url(own_server.url, decode_responses=True) as redis:
        ledger = Ledger(redis, make_settings())
        for attempt in "abc":
            ledger.reserve(attempt, 1, ROOMY)
        ledger.settle("a", 0.25)
        before = ledger.today()
        own_server.kill()
        own_server.start()
        assert ledger.today() == before
        assert ledger.reserve("d", 1, ROOMY) == "reserved"


def test_a_redis_that_comes_back_empty_sends_nothing_until_the_operator_says_so(own_server: EmbeddedValkey) -> None:
    with Redis.from_url(own_server.url, decode_responses=True) as redis:
        ledger = Ledger(redis, make_settings())
        ledger.reserve("a", 1, ROOMY)
        redis.flushall()
        assert ledger.reserve("b", 1, ROOMY) == "shut"
        assert Ledger(redis, make_settings()).reserve("c", 1, ROOMY) == "shut", "others hear of it, too"
        assert ledger.settle("a", 1) == "unknown"
        ledger.reopen()
        assert ledger.reserve("b", 1, ROOMY) == "reserved"


def test_a_settlement_that_is_lost_alone_is_noticed(redis: Redis, ledger: Ledger) -> None:
    """Older data came back: the attempt is open again, and must not be sent again for that."""
    ledger.reserve("a", 1, ROOMY)
    keys = list(redis.scan_iter("diarize:budget:*"))
    for key in keys:
        redis.copy(key, "older:" + key)
    ledger.settle("a", 0.5)
    for key in keys:
        redis.copy("older:" + key, key, replace=True)
    assert ledger.reserve("a", 1, ROOMY) == "shut"
    assert ledger.open_attempts() == {"a": 1}


def test_a_job_that_runs_over_midnight_counts_on_both_days_and_is_paid_once(redis: Redis, ledger: Ledger) -> None:
    assert ledger.reserve("early", 6, ROOMY) == "reserved"
    assert ledger.reserve("late", 4, ROOMY) == "reserved"
    ledger.settle("early", 6)
    let_midnight_pass(redis, "diarize:")
    today = ledger.today()
    assert (today.spent_usd, today.reserved_usd, today.left_usd) == (0, 4, 6)
    assert ledger.reserve("new", 6.000001, ROOMY) == "no budget"
    ledger.settle("late", 3)
    assert (ledger.today().spent_usd, ledger.today().left_usd) == (3, 7)


def test_what_was_spent_on_a_day_is_forgotten_after_some_weeks(redis: Redis, ledger: Ledger) -> None:
    ledger.reserve("a", 1, ROOMY)
    ledger.settle("a", 1)
    (key,) = redis.scan_iter("diarize:budget:spent:*")
    assert 34 * DAY_SECONDS < redis.ttl(key) <= 35 * DAY_SECONDS


def test_the_day_is_utc_by_the_servers_clock(redis: Redis, ledger: Ledger) -> None:
    assert ledger.today().day == datetime.fromtimestamp(redis.time()[0], UTC).date().isoformat()


def test_a_cost_above_the_bound_is_booked_in_full_and_said(ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    ledger.reserve("a", 1, ROOMY)
    with caplog.at_level(logging.WARNING):
        assert ledger.settle("a", 11) == "settled"
    assert "attempt a has cost up to 11.000000 USD and only 1.000000 were reserved" in caplog.text
    assert (ledger.today().spent_usd, ledger.today().left_usd) == (11, 0)


def test_a_budget_of_nothing_sends_nothing(redis: Redis) -> None:
    ledger = Ledger(redis, make_settings(overflow_budget_usd_per_day=0))
    assert ledger.reserve("a", 1e-9, ROOMY) == "no budget"


def test_sums_of_cents_do_not_drift(redis: Redis) -> None:
    """0.1 USD a thousand times is 100 USD, not 99.9999999999986."""
    ledger = Ledger(redis, make_settings(overflow_budget_usd_per_day=100))
    assert {ledger.reserve(str(n), 0.1, ROOMY) for n in range(1000)} == {"reserved"}
    assert ledger.today().reserved_usd == 100
    assert ledger.reserve("one more", 0.000001, 2 * ROOMY) == "no room"
    ledger.settle("0", 0.1)
    assert ledger.reserve("one more", 0.000001, ROOMY) == "no budget"


@pytest.mark.parametrize("usd", [float("nan"), float("inf"), -0.01])
def test_what_is_no_amount_is_refused(ledger: Ledger, usd: float) -> None:
    for call in (lambda: ledger.reserve("a", usd, ROOMY), lambda: ledger.settle("a", usd)):
        with pytest.raises(ValueError, match="is no amount"):
            call()


def test_nothing_cannot_be_reserved(ledger: Ledger) -> None:
    with pytest.raises(ValueError, match="never free"):
        ledger.reserve("a", 0, ROOMY)


def test_the_operator_sees_the_day_and_reopens_it(ledger: Ledger) -> None:
    ledger.reserve("settled", 2, ROOMY)
    ledger.settle("settled", 0.5)
    ledger.reserve("in flight", 2, ROOMY)
    shown = run_cli("budget").stdout
    assert [line.split()[0] for line in shown.splitlines()] == ["day", "spent", "reserved", "limit", "2.0000"]
    assert "10.0000 USD, of which 7.5000 USD are left" in shown

    ledger.shut("Redis has lost data")
    assert "Redis has lost data; until the day is over, or `budget reopen`" in run_cli("budget").stdout
    said = json.loads(run_cli("budget", "--json").stdout)
    assert said == {
        "day": ledger.today().day,
        "spent_usd": 0.5,
        "reserved_usd": 2.0,
        "in_flight": 1,
        "limit_usd": 10.0,
        "left_usd": 7.5,
        "shut": "Redis has lost data",
        "open_attempts": {"in flight": 2.0},
    }
    assert run_cli("budget", "reopen").stdout == "the budget is open again; it was shut: Redis has lost data\n"
    assert run_cli("budget", "reopen").stdout == "the budget was open\n"
    assert ledger.reserve("next", 1, ROOMY) == "reserved"
