"""What Redis holds of the operator's orders, and what a worker makes of it."""

from __future__ import annotations

import json

from tasks.intake import Intake
from tasks.orders import DRAIN_DAYS, Order, OrderBook, Orders, node_name

NOW = 1_000_000_000.0
DAY = 86400.0


def stored(**more: object) -> str:
    return json.dumps({"reason": "new driver", "by": "ann@desk", "at": NOW, **more})


class Told(OrderBook):
    """A book that says what it was told to."""

    def __init__(self, orders: Orders) -> None:
        self.orders = orders

    def read(self) -> Orders:
        return self.orders


def test_a_drain_lasts_for_the_name_of_a_worker_and_for_so_many_days() -> None:
    text = {"drain:w0@host": stored(), "drain:w1@host": stored(at=NOW - DAY), "pause": stored(at=0)}
    orders = Orders.parse(text, NOW + (DRAIN_DAYS - 0.5) * DAY)
    assert set(orders.drained) == {"w0@host"}
    assert orders.drain_of("w0@host (17)") == orders.drain_of("w0@host") == Order("new driver", "ann@desk", NOW)
    assert orders.drain_of("w1@host (17)") is None
    assert orders.paused is not None, "a pause lasts until it is taken back"


def test_what_a_newer_version_orders_is_passed_over() -> None:
    orders = Orders.parse({"pause:everything": stored(), "pause": stored(until=5)}, NOW)
    assert orders == Orders(paused=Order("new driver", "ann@desk", NOW))


def test_a_name_is_known_with_and_without_its_pid() -> None:
    assert [node_name(name) for name in ("a@b (12)", "a@b", "odd (name)@b (3)")] == ["a@b", "a@b", "odd (name)@b"]


def test_orders_read_as_a_sentence() -> None:
    assert f"drained {Order('new driver', 'ann@desk')}" == "drained by ann@desk: new driver"
    assert f"paused {Order()}" == "paused by an operator"


def intake_of(role: str, held: int = 0) -> Intake:
    return Intake("w0@host (1)", role=role, held=lambda: held)


def test_a_worker_takes_nothing_before_it_has_heard_its_orders() -> None:
    intake = intake_of("gpu")
    assert not intake.may_read(awaits_answer=False)
    intake.look(Told(Orders()))
    assert intake.may_read(awaits_answer=False)
    assert not intake.is_closed


def test_an_answer_that_is_on_its_way_is_read_before_the_intake_closes() -> None:
    intake = intake_of("gpu")
    intake.look(Told(Orders(drained={"w0@host": Order()})))
    assert intake.may_read(awaits_answer=True)
    assert not intake.is_closed
    assert not intake.may_read(awaits_answer=False)
    assert intake.is_closed


def test_a_pause_keeps_new_jobs_from_a_bridge_and_leaves_it_the_runs_that_are_there() -> None:
    gpu, bridge = intake_of("gpu"), intake_of("bridge")
    for intake in (gpu, bridge):
        intake.look(Told(Orders(paused=Order(by="ann@desk"))))
    assert gpu.refuses == "paused by ann@desk"
    assert not bridge.refuses
    assert not bridge.lets_overflow
    bridge.look(Told(Orders(overflow_paused=Order())))
    assert not bridge.lets_overflow
    bridge.look(Told(Orders()))
    assert bridge.lets_overflow


def test_a_worker_that_is_broken_takes_nothing_whatever_it_is_told() -> None:
    intake = intake_of("gpu")
    intake.look(Told(Orders()))
    intake.breaks("its GPU failed")
    assert intake.refuses == "its GPU failed"
    intake.breaks("")
    assert not intake.refuses


def test_a_worker_takes_a_job_beside_another_where_it_knows_of_no_idle_one() -> None:
    busy = intake_of("gpu", held=1)
    busy.look(Told(Orders()))
    assert not busy.may_read(awaits_answer=False), "it has not looked round yet"
    busy.look_round(lambda worker: worker != "w0@host (1)")
    assert busy.may_read(awaits_answer=False)
    busy.look_round(lambda worker: worker == "w0@host (1)")
    assert not busy.may_read(awaits_answer=False)
    assert busy.may_read(awaits_answer=True)
    assert not busy.is_closed, "it takes jobs, but leaves this one to somebody else"


def test_idle_workers_keep_no_bridge_from_its_runs() -> None:
    bridge = intake_of("bridge", held=2)
    bridge.look(Told(Orders()))
    assert bridge.may_read(awaits_answer=False)
