"""Prediction: list scheduling, on its own and over a snapshot of the fleet."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.forecast import Child, Forecast
from tasks.registry import WorkerFacts
from tasks.snapshot import Position, RunningJob, Snapshot, WaitingJob
from tasks.speed import DEFAULT_SECONDS_PER_AUDIO_HOUR, Speed

CHILDREN = st.lists(st.builds(Child, st.floats(0, 1e4), st.floats(0.001, 2)), min_size=1, max_size=6)
LENGTHS = st.lists(st.floats(1, 4e4), max_size=30)


@given(children=CHILDREN, lengths=LENGTHS)
def test_nobody_is_idle_while_a_job_waits(children: list[Child], lengths: list[float]) -> None:
    forecast = Forecast(children)
    free = sorted(children)
    for length in lengths:
        first = min(free)
        assert forecast.add(length) == pytest.approx(first.after(length).free_in_seconds)
        free.remove(first)
        free.append(first.after(length))
    assert forecast.last_in_seconds() == pytest.approx(max(child.free_in_seconds for child in free))


@given(children=CHILDREN, lengths=LENGTHS, more=st.floats(0, 1e6))
def test_audio_that_could_be_split_ends_no_later_than_jobs_do(
    children: list[Child], lengths: list[float], more: float
) -> None:
    split = Forecast(children).last_in_seconds(sum(lengths))
    forecast = Forecast(children)
    for length in lengths:
        forecast.add(length)
    assert split <= forecast.last_in_seconds() * (1 + 1e-9)
    assert forecast.last_in_seconds() <= forecast.last_in_seconds(more) + 1e-9
    busy_at = forecast.last_in_seconds(more)
    done = sum(max(0.0, busy_at - child.free_in_seconds) / child.seconds_per_audio_second for child in children)
    assert done >= (sum(lengths) + more) * (1 - 1e-9) - 1e-6, "so much can be done by then"


@given(lengths=LENGTHS, rtf=st.floats(0.001, 2), busy=st.floats(0, 1e4))
def test_one_child_does_one_after_the_other(lengths: list[float], rtf: float, busy: float) -> None:
    forecast, done = Forecast([Child(busy, rtf)]), busy
    for length in lengths:
        done += length * rtf
        assert forecast.add(length) == pytest.approx(done)
    assert forecast.last_in_seconds(100) == pytest.approx(done + 100 * rtf)


def test_without_workers_nothing_is_ever_done() -> None:
    forecast = Forecast([])
    assert forecast.last_in_seconds() == 0, "where nothing is to do, all is done"
    assert forecast.last_in_seconds(1) == math.inf
    assert forecast.add(60) == forecast.last_in_seconds() == math.inf


def gpu(seconds_per_audio_hour: float | None = 360, **facts: object) -> WorkerFacts:
    speed = None if seconds_per_audio_hour is None else Speed(3600, seconds_per_audio_hour)
    return WorkerFacts(speed=speed, **{"role": "gpu", "device": "cuda:0", **facts})  # type: ignore[arg-type]


def waiting(job_id: str, audio_seconds: float | None = 600, queue: str = "diarize", deadline_at: float = 2000):
    return WaitingJob(job_id, queue, deadline_at, audio_seconds)


def test_who_waits_starts_when_a_child_is_free() -> None:
    snapshot = Snapshot(
        now=1000,
        workers={"a": gpu(children=2), "bridge": gpu(1, role="bridge")},
        running=[RunningJob("r", "a", 990, 600, seconds_left=50), RunningJob("remote", "bridge", 990, 600)],
        waiting=[waiting("1"), waiting("2", queue="diarize.local"), waiting("3", queue="diarize.runpod"), waiting("4")],
        waiting_jobs=4,
        due_jobs=1,
    )
    # An hour takes 360 s, hence 600 s of audio 60 s; one child is free now, the other in 50 s.
    assert snapshot.finish_in_seconds == {"1": 60, "2": 110, "4": 120}
    assert snapshot.last_in_seconds == 120
    assert snapshot.waiting_audio_seconds == 2400
    assert snapshot.position("2") == Position(2, 1110, 1050)
    assert snapshot.position("3") == Position(3, None), "the own GPUs do not take it"
    assert snapshot.position("r") == Position(0, 1050)
    assert snapshot.position("nobody") == Position()


def test_jobs_beyond_the_first_are_taken_to_be_as_long() -> None:
    snapshot = Snapshot(now=0, workers={"a": gpu()}, waiting=[waiting("1", 400), waiting("2", 800)], waiting_jobs=10)
    assert snapshot.waiting_audio_seconds == 10 * 600
    assert snapshot.last_in_seconds == pytest.approx(10 * 60)
    assert snapshot.position("7", place=7) == Position(7, pytest.approx(7 * 60), pytest.approx(6 * 60))
    assert snapshot.position("new", place=1).place == 3, "it is not among the first two"


def test_lengths_and_speeds_that_nobody_knows() -> None:
    workers = {
        "measured": gpu(360),
        "alike": gpu(None),
        "other": WorkerFacts("bridge"),
    }
    snapshot = Snapshot(now=0, workers=workers, waiting=[waiting("1", None)], waiting_jobs=1, mean_audio_seconds=1200)
    assert snapshot.seconds_per_audio_hour("alike") == 360, "that of those of its role"
    assert snapshot.seconds_per_audio_hour("other") == DEFAULT_SECONDS_PER_AUDIO_HOUR["cuda"]
    assert snapshot.finish_in_seconds["1"] == pytest.approx(120)
    cpu = Snapshot(now=0, workers={"a": gpu(None, device="cpu")})
    assert cpu.seconds_per_audio_hour("a") == DEFAULT_SECONDS_PER_AUDIO_HOUR["cpu"]


def test_two_jobs_on_one_gpu_take_as_long_as_their_networks_one_after_the_other() -> None:
    alone = Speed(3600, 400, {"decode": 100, "segmentation": 100, "embedding": 200})
    line = [waiting(name, 3600) for name in "1234"]

    def finishes(device: str) -> list[float]:
        worker = WorkerFacts(device=device, children=2, speed=alone)
        return list(Snapshot(now=0, workers={"a": worker}, waiting=line, waiting_jobs=4).finish_in_seconds.values())

    assert finishes("cuda:0") == [600, 600, 1200, 1200]
    assert finishes("cpu") == [400, 400, 800, 800], "on a CPU none waits for another"


def test_a_running_job_of_unknown_progress_has_what_its_time_leaves() -> None:
    running = [RunningJob("r", "a", 990, 600), RunningJob("over", "a", 0, 600), RunningJob("lost", "dead", 0, 600)]
    snapshot = Snapshot(now=1000, workers={"a": gpu(children=2)}, running=running)
    assert snapshot.seconds_left == {"r": pytest.approx(50), "over": 0}
    assert snapshot.last_in_seconds == pytest.approx(50)
    assert snapshot.position("lost") == Position(), "its worker is silent: it will be due again"


def test_late_is_who_would_miss_the_deadline() -> None:
    line = [waiting("in time", deadline_at=1060), waiting("late", deadline_at=1119), waiting("past", deadline_at=999)]
    snapshot = Snapshot(now=1000, workers={"a": gpu()}, waiting=line, waiting_jobs=3)
    assert [job.id for job in snapshot.late] == ["late", "past"]
    nobody = Snapshot(now=1000, workers={}, waiting=line, waiting_jobs=3)
    assert len(nobody.late) == 3
    assert nobody.position("late") == Position(2, None)
