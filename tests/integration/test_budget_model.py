"""The ledger beside a model of it, through random calls, crashes, losses and midnights: no day exceeds its budget."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from redis import Redis

from tasks.overflow.budget import Ledger
from tests.ledger import let_midnight_pass, make_settings, stay_within_a_day


@dataclass
class Model:
    """The ledger in plain Python, in micro-dollars; `number` counts its changes."""

    limit: int
    most: int
    number: int = 0
    spent: int = 0
    open: dict[str, int] = field(default_factory=dict)
    shut: str | None = None

    def reserve(self, attempt: str, amount: int, slots: int) -> str:
        if self.shut:
            return "shut"
        if attempt in self.open:
            return "reserved"
        if len(self.open) >= min(slots, self.most):
            return "no room"
        if self.spent + sum(self.open.values()) + amount > self.limit:
            return "no budget"
        self.open[attempt] = amount
        self.number += 1
        return "reserved"

    def close(self, attempt: str, outcome: str, cost: int | None) -> str:
        if attempt not in self.open:
            return "unknown"
        reserved = self.open.pop(attempt)
        self.spent += reserved if cost is None else cost
        self.number += 1
        return outcome


attempts = st.sampled_from("abcdef")
amounts = st.integers(150_000, 600_000)
counts = st.booleans().map(lambda lost: 2 if lost else 1)
"""How often a call is made: twice by whoever did not hear the answer."""


class Machine(RuleBasedStateMachine):
    """The ledger beside its model, and beside the money that is really gone: that one no Redis can lose."""

    names = itertools.count()

    def __init__(self, redis: Redis) -> None:
        super().__init__()
        self.redis = redis
        self.prefix = f"ledger{next(self.names)}:"
        self.settings = make_settings(
            overflow_budget_usd_per_day=1, overflow_max_in_flight=4, redis_key_prefix=self.prefix
        )
        self.model = Model(limit=1_000_000, most=4)
        self.backup = deepcopy(self.model)
        self.heard_of = 0
        self.overrun = 0
        self.paid, self.running = 0, dict[str, int]()  # what is true, whatever Redis forgets
        self.ledger = Ledger(redis, self.settings)

    def copy_keys(self, source: str, target: str) -> None:
        """What is below `target` becomes what is below `source`, with the times at which it ends."""
        for key in self.redis.scan_iter(target + "budget:*"):
            self.redis.delete(key)
        for key in self.redis.scan_iter(source + "budget:*"):
            self.redis.copy(key, target + key.removeprefix(source))

    def called(self) -> None:
        """Any call notices that the server knows of less than this process has heard of."""
        if self.model.number < self.heard_of:
            self.model.shut, self.model.number = "Redis has lost data of the ledger", self.heard_of

    def answered(self) -> None:
        self.heard_of = max(self.heard_of, self.model.number)

    @rule(attempt=attempts, amount=amounts, slots=st.integers(0, 6), times=counts)
    def reserve(self, attempt: str, amount: int, slots: int, times: int) -> None:
        for _ in range(times):
            self.called()
            outcome = self.ledger.reserve(attempt, amount / 1e6, slots)
            assert outcome == self.model.reserve(attempt, amount, slots)
            self.answered()
        if outcome == "reserved":
            self.running.setdefault(attempt, amount)

    @rule(attempt=attempts, cost=st.integers(0, 100_000) | amounts, times=counts)
    def settle(self, attempt: str, cost: int, times: int) -> None:
        """It may cost more than was reserved: that is the one way above the budget."""
        reserved = min(self.model.open.get(attempt, cost), self.running.get(attempt, cost))
        self.overrun += max(0, cost - reserved)
        self.close(attempt, "settled", cost, lambda: self.ledger.settle(attempt, cost / 1e6), times)

    @rule(attempt=attempts, times=counts)
    def release(self, attempt: str, times: int) -> None:
        self.close(attempt, "released", 0, lambda: self.ledger.release(attempt), times)

    @rule(attempt=attempts, times=counts)
    def book(self, attempt: str, times: int) -> None:
        self.close(attempt, "booked", None, lambda: self.ledger.book(attempt), times)

    def close(self, attempt: str, outcome: str, cost: int | None, call: Callable[[], str], times: int) -> None:
        for _ in range(times):
            self.called()
            assert call() == self.model.close(attempt, outcome, cost)
            self.answered()
        reserved = self.running.pop(attempt, 0)
        if reserved:
            self.paid += reserved if cost is None else cost

    @rule()
    def crash(self) -> None:
        """The process dies and starts anew: it has heard of nothing."""
        self.called()
        self.ledger.today()
        self.ledger, self.heard_of = Ledger(self.redis, self.settings), 0

    @rule()
    def back_up(self) -> None:
        self.backup = deepcopy(self.model)
        self.copy_keys(self.prefix, "backup:" + self.prefix)

    @precondition(lambda self: self.model.spent)
    @rule(told=st.booleans())
    def lose_data(self, told: bool) -> None:
        """Redis comes back with what it had at the last backup; where the process is new too, the chores tell it."""
        self.model = deepcopy(self.backup)
        self.copy_keys("backup:" + self.prefix, self.prefix)
        if told:
            self.ledger, self.heard_of = Ledger(self.redis, self.settings), 0
            self.shut("the chores have noticed")

    @precondition(lambda self: self.model.spent)
    @rule(why=st.sampled_from(["the chores have noticed", "the operator says so"]))
    def shut(self, why: str) -> None:
        self.called()
        self.ledger.shut(why)
        self.model.shut = why
        self.model.number += 1
        self.answered()

    @rule()
    def reopen(self) -> None:
        """From here on the operator takes the ledger at its word."""
        self.called()
        assert self.ledger.reopen() == self.model.shut
        self.model.shut = None
        self.model.number += 1
        self.answered()
        self.paid, self.running = self.model.spent, dict(self.model.open)

    @rule()
    def midnight(self) -> None:
        self.called()
        self.ledger.today()
        let_midnight_pass(self.redis, self.prefix)
        self.model.spent, self.model.shut = 0, None
        self.back_up()
        self.overrun = self.paid = 0
        self.running = dict(self.model.open)

    @invariant()
    def the_ledger_is_as_the_model(self) -> None:
        if self.model.number < self.heard_of:
            return  # asking would be noticing: the next rule shall find it so
        today = self.ledger.today()
        self.answered()
        assert today.spent_usd == self.model.spent / 1e6
        assert today.reserved_usd == sum(self.model.open.values()) / 1e6
        assert today.in_flight == len(self.model.open)
        assert today.shut == self.model.shut
        assert self.ledger.open_attempts() == {key: amount / 1e6 for key, amount in self.model.open.items()}

    @invariant()
    def the_budget_holds(self) -> None:
        assert self.model.spent + sum(self.model.open.values()) <= self.model.limit + self.overrun
        assert self.paid + sum(self.running.values()) <= self.model.limit + self.overrun
        assert len(self.model.open) <= self.model.most

    def teardown(self) -> None:
        for prefix in (self.prefix, "backup:" + self.prefix):
            self.redis.delete(*self.redis.scan_iter(prefix + "*"), prefix)


def test_the_ledger_and_its_model_agree_whatever_happens(redis: Redis) -> None:
    stay_within_a_day(redis)
    run_state_machine_as_test(
        lambda: Machine(redis),
        settings=settings(
            max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
        ),
    )
