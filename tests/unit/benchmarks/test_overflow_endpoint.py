"""The simulated endpoint: what it starts, and what it bills."""

from __future__ import annotations

import math
from random import Random

import pytest

from benchmarks.overflow_endpoint import IDLE_SECONDS, MAX_WORKERS, USD_PER_SECOND, Clock, Endpoint, Job, Run, Weather

COLD_SECONDS = 50.0
WEATHER = Weather(cold_seconds=(COLD_SECONDS, COLD_SECONDS), seconds_per_audio_hour=100.0)


class World:
    """An endpoint, and what it has answered."""

    def __init__(self, weather: Weather = WEATHER) -> None:
        self.clock = Clock()
        self.ended: list[tuple[float, bool]] = []
        self.endpoint = Endpoint(self.clock, weather, Random(1), self._hear)

    def _hear(self, run: Run, done: bool) -> None:
        self.ended.append((self.clock.now, done))

    def submit(self, at: float, fails_at: float | None = None) -> None:
        job = Job(at, 3600.0, None, math.inf, may_leave=True, fails_at=fails_at)
        self.clock.after(at, lambda: self.endpoint.submit(job))


def test_a_worker_is_paid_for_from_its_start_to_the_end_of_its_idle_tail() -> None:
    world = World()
    world.submit(0)
    world.clock.run()
    assert world.ended == [(COLD_SECONDS + 100, True)]
    assert world.endpoint.bill_usd == pytest.approx((COLD_SECONDS + 100 + IDLE_SECONDS) * USD_PER_SECOND)


def test_a_warm_worker_takes_the_next_job_at_once_and_a_stopped_one_none() -> None:
    world = World()
    world.submit(0)
    world.submit(COLD_SECONDS + 102)
    world.submit(1000)
    world.clock.run()
    assert [at for at, _ in world.ended] == [150, 252, 1150]


def test_jobs_that_wait_start_more_workers_up_to_the_maximum() -> None:
    world = World()
    for _ in range(5):
        world.submit(0)
    world.clock.run()
    assert [at for at, _ in world.ended] == [150, 154, 158, 250, 254]
    assert world.endpoint.bill_usd == pytest.approx((4 * 5 + 500 + MAX_WORKERS * 50 - 5) * USD_PER_SECOND)


def test_a_job_that_fails_is_paid_for_up_to_there() -> None:
    world = World()
    world.submit(0, fails_at=0.25)
    world.clock.run()
    assert world.ended == [(COLD_SECONDS + 25, False)]


def test_while_it_is_throttled_nothing_starts_and_a_waiting_job_can_be_cancelled() -> None:
    world = World(Weather(cold_seconds=(COLD_SECONDS, COLD_SECONDS), throttled=(0, 100), seconds_per_audio_hour=100.0))
    world.submit(0)
    world.clock.after(10, lambda: assert_cancelled(world))
    world.submit(20)
    world.clock.run()
    assert world.ended == [(250, True)]


def assert_cancelled(world: World) -> None:
    (run,) = world.endpoint.queue
    assert world.endpoint.throttled
    assert world.endpoint.cancel(run)
    assert not world.endpoint.cancel(run)
