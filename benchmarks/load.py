"""The load of a soak: jobs of every shape that callers use, each known beforehand, submitted until they are accepted.

A producer that got `QueueUnavailable` cannot know whether its job got through; it submits again under the same ids.
"""

from __future__ import annotations

import heapq
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from celery import chain, chord, group
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from diarization.errors import QueueUnavailable
from tasks.record import State

AGAIN_SECONDS = 0.25
DONE = frozenset({State.DONE})


@dataclass(frozen=True)
class Job:
    """One that has to exist and to end. A callback has no id of its own making: its URL names it."""

    url: str
    id: str | None
    may_end: frozenset[State] = DONE


@dataclass(frozen=True)
class Order:
    """One call of a producer: its jobs, when it comes (seconds from the start), and what it calls."""

    shape: str
    jobs: tuple[Job, ...]
    at: float
    call: Callable[[Any], object]
    cancel_after: float | None = None


def draw_orders(rng: random.Random, count: int, seconds: float) -> list[Order]:
    """Orders of at least so many jobs in all, spread over so many seconds."""
    orders: list[Order] = []
    jobs = poisons = 0
    while jobs < count:
        shape = rng.choices(list(_SHAPES), [weight for weight, _ in _SHAPES.values()])[0]
        if shape == "poison":
            poisons += 1
            if poisons > 1 + count // 150:  # each ends a process as often as a job may be started
                continue
        order = _SHAPES[shape][1](rng, f"{shape}-{len(orders):03d}", rng.uniform(0, seconds))
        orders.append(order)
        jobs += len(order.jobs)
    return sorted(orders, key=lambda order: order.at)


def _url(path: str, name: str) -> str:
    return f"http://stand.in/{path}/{name}"


def _work(rng: random.Random) -> str:
    verb = rng.choices(["sleep", "deaf", "gil"], [8, 1, 1])[0]
    return f"{verb}/{rng.uniform(0.3, 6.0 if verb == 'sleep' else 2.0):.2f}"


def _single(name: str, path: str, at: float, may_end: frozenset[State] = DONE, **options: Any) -> Order:
    job = Job(_url(path, name), name, may_end)
    cancel_after = options.pop("cancel_after", None)
    shape = name.rpartition("-")[0]
    return Order(shape, (job,), at, lambda task: task.apply_async((job.url,), task_id=job.id, **options), cancel_after)


def _plain(rng: random.Random, name: str, at: float) -> Order:
    return _single(name, _work(rng), at)


def _later(rng: random.Random, name: str, at: float) -> Order:
    return _single(name, _work(rng), at, countdown=rng.uniform(0.5, 5))


def _transient(rng: random.Random, name: str, at: float) -> Order:
    return _single(name, f"fail/transient/{rng.randint(1, 2)}", at)


def _permanent(rng: random.Random, name: str, at: float) -> Order:
    return _single(name, "fail/permanent", at, frozenset({State.DEAD}))


def _deadly_once(rng: random.Random, name: str, at: float) -> Order:
    return _single(name, "kill/1", at)


def _hang(rng: random.Random, name: str, at: float) -> Order:
    return _single(name, "hang/1", at)


def _poison(rng: random.Random, name: str, at: float) -> Order:
    return _single(name, "exit/9", at, frozenset({State.DEAD}))


def _cancelled(rng: random.Random, name: str, at: float) -> Order:
    may_end = frozenset({State.CANCELLED, State.DONE})
    return _single(name, f"sleep/{rng.uniform(3, 8):.2f}", at, may_end, cancel_after=rng.uniform(0, 4))


def _linked(rng: random.Random, name: str, at: float) -> Order:
    first, after = Job(_url(_work(rng), name), name), Job(_url("sleep/0.3", f"{name}-link"), None)
    return Order(
        "link",
        (first, after),
        at,
        lambda task: task.apply_async((first.url,), task_id=first.id, link=task.si(after.url)),
    )


def _steps(rng: random.Random, name: str, count: int) -> tuple[Job, ...]:
    ids = [f"{name}-{number}" for number in range(count)]
    return tuple(Job(_url(_work(rng), one), one) for one in ids)


def _signatures(task: Any, jobs: tuple[Job, ...]) -> list[Any]:
    return [task.si(job.url).set(task_id=job.id) for job in jobs]


def _chain(rng: random.Random, name: str, at: float) -> Order:
    jobs = _steps(rng, name, rng.randint(2, 3))
    return Order("chain", jobs, at, lambda task: chain(*_signatures(task, jobs)).apply_async())


def _group(rng: random.Random, name: str, at: float) -> Order:
    jobs = _steps(rng, name, rng.randint(2, 4))
    return Order("group", jobs, at, lambda task: group(_signatures(task, jobs)).apply_async(task_id=name))


def _chord(rng: random.Random, name: str, at: float) -> Order:
    jobs = _steps(rng, name, rng.randint(3, 4))

    def call(task: Any) -> object:
        *header, body = _signatures(task, jobs)
        return chord(group(header, task_id=name), body).apply_async()

    return Order("chord", jobs, at, call)


_SHAPES: dict[str, tuple[int, Callable[[random.Random, str, float], Order]]] = {
    "plain": (40, _plain),
    "later": (4, _later),
    "link": (6, _linked),
    "chain": (6, _chain),
    "group": (5, _group),
    "chord": (7, _chord),
    "transient": (8, _transient),
    "permanent": (3, _permanent),
    "deadly": (4, _deadly_once),
    "poison": (2, _poison),
    "hang": (1, _hang),
    "cancel": (8, _cancelled),
}


class Producer(threading.Thread):
    """Submits the orders in time, and cancels those that are to be cancelled."""

    def __init__(self, task: Any, orders: list[Order]) -> None:
        super().__init__(name="producer", daemon=True)
        self._task = task
        self._agenda = [(order.at, number, order, False) for number, order in enumerate(orders)]
        self.accepted: list[Order] = []
        self.refusals: list[float] = []
        """How long each call took that was refused, in seconds."""
        self.complaints: list[str] = []

    def run(self) -> None:
        """The thread's body."""
        began = time.monotonic()
        heapq.heapify(self._agenda)
        while self._agenda:
            at, number, order, cancels = heapq.heappop(self._agenda)
            time.sleep(max(0.0, began + at - time.monotonic()))
            while not self._accepts(order, cancels=cancels):
                time.sleep(AGAIN_SECONDS)
            if not cancels:
                self.accepted.append(order)
                if order.cancel_after is not None:
                    heapq.heappush(self._agenda, (time.monotonic() - began + order.cancel_after, number, order, True))

    def _accepts(self, order: Order, *, cancels: bool) -> bool:
        began = time.monotonic()
        try:
            if cancels:
                self._task.AsyncResult(order.jobs[0].id).revoke()
            else:
                order.call(self._task)
        except QueueUnavailable:
            pass
        except (RedisError, OperationalError, RuntimeError) as error:
            # Celery's own, for the bookkeeping of a chord or the result of a cancelled job; ours alone elsewhere.
            if not cancels and len(order.jobs) == 1:
                self.complaints.append(f"{order.jobs[0].id}: {type(error).__name__} instead of QueueUnavailable")
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding, and the soak goes on
            self.complaints.append(f"{order.jobs[0].id}: submitting raised {error!r}")
            return True
        else:
            return True
        self.refusals.append(time.monotonic() - began)
        return False
