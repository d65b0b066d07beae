"""A worker's speed: what it says of the seconds that are left, and how it travels."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diarization.diarizer import STAGES
from tasks.record import JobRecord, State
from tasks.registry import WorkerFacts
from tasks.speed import Speed, combined

STAGE_SECONDS = {"download": 10.0, "decode": 10.0, "segmentation": 20.0, "embedding": 50.0, "clustering": 10.0}
ONE_HOUR = Speed(audio_seconds=3600, seconds=100, stage_seconds=STAGE_SECONDS)


@pytest.mark.parametrize(
    ("stage", "percent", "left"),
    [
        (None, 0, 50),
        ("download", 0, 50),
        ("download", 100, 45),
        ("segmentation", 50, 35),
        ("embedding", 20, 25),
        ("clustering", 100, 0),
        ("dreaming", 50, None),
    ],
)
def test_what_is_left_of_half_an_hour(stage: str | None, percent: float, left: float | None) -> None:
    assert ONE_HOUR.seconds_left(1800, stage, percent) == left


@given(
    stage_seconds=st.dictionaries(st.sampled_from(STAGES), st.floats(0.01, 1e4), min_size=1),
    audio_seconds=st.floats(1, 1e5),
    percents=st.lists(st.floats(0, 100), min_size=2, max_size=5),
)
def test_it_never_grows_while_a_job_goes_on(
    stage_seconds: dict[str, float], audio_seconds: float, percents: list[float]
) -> None:
    speed = Speed(3600, sum(stage_seconds.values()), stage_seconds)
    left = [
        speed.seconds_left(audio_seconds, stage, percent) or 0.0 for stage in STAGES for percent in sorted(percents)
    ]
    whole = speed.seconds_left(audio_seconds, None, 0)
    assert whole == pytest.approx(audio_seconds / 3600 * speed.seconds)
    assert all(later <= earlier * (1 + 1e-9) for earlier, later in zip([whole, *left], left, strict=False))


def test_nothing_is_said_without_a_measurement() -> None:
    assert Speed(0, 5, {"decode": 5}).seconds_per_audio_hour is None
    assert Speed(0, 5, {"decode": 5}).seconds_left(60, "decode", 0) is None
    assert Speed(3600, 5).seconds_left(60, "decode", 0) is None


def test_several_workers_weigh_by_what_they_have_done() -> None:
    assert combined([Speed(3600, 100), Speed(7200, 50)]).seconds_per_audio_hour == 50
    assert combined([]).seconds_per_audio_hour is None


def test_of_children_that_share_a_gpu_none_is_done_before_each_has_computed() -> None:
    assert ONE_HOUR.side_by_side(1) == 100
    assert ONE_HOUR.side_by_side(2) == 140, "twice segmentation and embedding: it was alone when it was measured"
    side_by_side = Speed(3600, 150, STAGE_SECONDS)
    assert side_by_side.side_by_side(2) == 150, "its waits for the other are in the mean already"
    assert Speed(3600, 100).side_by_side(2) == 100
    assert Speed(0, 5).side_by_side(2) is None
    assert combined([ONE_HOUR, Speed(7200, 200, {"embedding": 350})]).side_by_side(2) == pytest.approx(2 * 420 / 3)


def test_it_travels_as_json_and_grows_new_fields() -> None:
    assert Speed.parse(ONE_HOUR.to_json()) == ONE_HOUR
    assert Speed.parse('{"audio_seconds": 7200, "seconds": 20, "watts": 300}').seconds_per_audio_hour == 10


def test_a_running_job_says_what_is_left() -> None:
    job = JobRecord("a", State.RUNNING, stage="segmentation", percent=50, audio_seconds=1800, speed=ONE_HOUR)
    assert job.seconds_left == 35
    assert JobRecord("a", State.RUNNING, audio_seconds=1800).seconds_left is None, "of an unmeasured worker"
    assert JobRecord("a", State.RUNNING, speed=ONE_HOUR).seconds_left is None, "of unknown length"
    assert JobRecord("a", State.DONE, audio_seconds=1800, speed=ONE_HOUR).seconds_left is None


def test_workers_of_other_versions_are_understood() -> None:
    assert WorkerFacts.parse('{"role": "gpu", "room_bytes": 5}') == WorkerFacts("gpu", 5)
    newer = WorkerFacts.parse('{"role": "bridge", "room_bytes": 5, "children": 3, "speed": 3.5, "colour": "blue"}')
    assert newer == WorkerFacts("bridge", 5, children=3)
    told = WorkerFacts("gpu", 7, children=2, device="cuda:0", gpu="A GPU", model="m", speed=ONE_HOUR)
    assert WorkerFacts.parse(told.to_json(), ONE_HOUR.to_json()) == told
    assert set(json.loads(told.to_json())) >= {"role", "room_bytes"}, "what the first version reads"


def test_names_that_came_with_a_result_are_not_kept() -> None:
    """An endpoint of another make may send any: each would be a label of its own in the metrics."""
    kept = Speed.parse(Speed(10.0, 2.0, {"segmentation": 1.0, "a:b": 1.0, "run 4711": 1.0}).to_json())
    assert kept == Speed(10.0, 2.0, {"segmentation": 1.0})
