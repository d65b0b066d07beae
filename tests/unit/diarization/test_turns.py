"""Turns, hints and results: what they accept, and what goes over the wire."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from diarization.errors import InvalidJob
from diarization.turns import MAX_SPEAKERS, Diarization, Provenance, Speaker, SpeakerHints, Turn, total_seconds

turns = st.builds(
    lambda start, seconds, speaker: Turn(start=start, end=start + seconds, speaker=speaker),
    st.floats(0, 1e6),
    st.floats(0, 1e4),
    st.text(max_size=10),
)
diarizations = st.builds(
    Diarization,
    segments=st.lists(turns, max_size=5).map(tuple),
    exclusive_segments=st.lists(turns, max_size=5).map(tuple),
    speakers=st.lists(
        st.builds(
            Speaker,
            speaker=st.text(max_size=10),
            total_seconds=st.floats(0, 1e6),
            embedding=st.none() | st.lists(st.floats(-1, 1), max_size=3).map(tuple),
        ),
        max_size=3,
    ).map(tuple),
    audio_seconds=st.floats(0, 1e6),
    warnings=st.lists(st.text(max_size=10), max_size=2).map(tuple),
    provenance=st.builds(
        Provenance, model=st.text(max_size=10), cost_usd=st.floats(0, 100), attempts=st.integers(1, 9)
    ),
)


@settings(deadline=None)
@given(diarizations)
def test_a_result_survives_the_wire_unchanged(diarization: Diarization) -> None:
    wire = json.dumps(diarization.to_json(), allow_nan=False)
    assert Diarization.from_json(json.loads(wire)) == diarization


def test_the_wire_names_are_those_of_the_contract() -> None:
    turn = Turn(start=0.0, end=5.2, speaker="SPEAKER_00")
    data = Diarization(segments=(turn,), audio_seconds=6.0).to_json()
    assert data["segments"] == [{"start": 0.0, "end": 5.2, "speaker": "SPEAKER_00"}]
    assert list(data) == ["segments", "exclusive_segments", "speakers", "audio_seconds", "warnings", "provenance"]
    assert set(data["provenance"]) == {
        *("model", "revision", "versions", "device", "gpu", "precision", "trunk", "provider"),
        *("stage_seconds", "queue_seconds", "attempts", "cost_usd"),
    }


def test_a_result_of_a_newer_version_can_still_be_read() -> None:
    newer = {
        "segments": [{"start": 0, "end": 1, "speaker": "A", "confidence": 0.9}],
        "audio_seconds": 1,
        "language": "en",
    }
    assert Diarization.from_json(newer).segments == (Turn(start=0, end=1, speaker="A"),)


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {"segments": []},
        {"segments": "none", "audio_seconds": 1},
        {"segments": [{"start": 0, "end": 1}], "audio_seconds": 1},
        {"segments": [], "audio_seconds": -1},
        {"segments": [], "audio_seconds": math.nan},
        {"segments": [{"start": 2, "end": 1, "speaker": "A"}], "audio_seconds": 3},
    ],
)
def test_what_is_no_result_is_refused(data: Any) -> None:
    with pytest.raises(ValidationError):
        Diarization.from_json(data)


@pytest.mark.parametrize(
    ("start", "end"), [(-0.1, 1.0), (2.0, 1.0), (math.nan, 1.0), (0.0, math.nan), (0.0, math.inf), (math.inf, math.inf)]
)
def test_a_turn_runs_forward_in_finite_time(start: float, end: float) -> None:
    with pytest.raises(ValidationError):
        Turn(start=start, end=end, speaker="A")


def test_a_turn_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Turn(start=0, end=1, speaker="A").end = 2  # type: ignore[misc]


def test_a_turn_knows_how_long_it_lasts() -> None:
    assert Turn(start=1.5, end=4.0, speaker="A").seconds == 2.5
    assert Turn(start=1.5, end=1.5, speaker="A").seconds == 0.0


def test_talking_time_counts_overlaps_for_each_and_comes_by_label() -> None:
    overlapping = (
        Turn(start=0, end=4, speaker="B"),
        Turn(start=1, end=2, speaker="A"),
        Turn(start=6, end=6.5, speaker="B"),
    )
    assert total_seconds(overlapping) == (
        Speaker(speaker="A", total_seconds=1.0),
        Speaker(speaker="B", total_seconds=4.5),
    )
    assert total_seconds(()) == ()


def test_talking_time_gathers_no_rounding_error() -> None:
    tenths = tuple(Turn(start=index, end=index + 0.1, speaker="A") for index in range(1000))
    assert total_seconds(tenths)[0].total_seconds == 100.0


@pytest.mark.parametrize(
    "hints",
    [
        {},
        {"num_speakers": 1},
        {"num_speakers": MAX_SPEAKERS},
        {"min_speakers": 2},
        {"max_speakers": 2},
        {"min_speakers": 2, "max_speakers": 2},
        {"num_speakers": 2, "min_speakers": None, "max_speakers": None},
    ],
)
def test_sensible_hints_pass(hints: dict[str, int | None]) -> None:
    assert SpeakerHints.check(**hints).model_dump(exclude_none=True) == {
        k: v for k, v in hints.items() if v is not None
    }


@pytest.mark.parametrize(
    ("hints", "complaint"),
    [
        ({"num_speakers": 0}, "num_speakers"),
        ({"min_speakers": -1}, "min_speakers"),
        ({"max_speakers": MAX_SPEAKERS + 1}, "max_speakers"),
        ({"num_speakers": 2.0}, "num_speakers"),
        ({"num_speakers": "2"}, "num_speakers"),
        ({"num_speakers": True}, "num_speakers"),
        ({"num_speaker": 2}, "num_speaker"),
        ({"num_speakers": 2, "min_speakers": 1}, "num_speakers says it all"),
        ({"num_speakers": 2, "max_speakers": 3}, "num_speakers says it all"),
        ({"min_speakers": 3, "max_speakers": 2}, "min_speakers 3 is more than max_speakers 2"),
    ],
)
def test_senseless_hints_are_an_invalid_job_that_names_them(hints: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidJob, match=complaint) as caught:
        SpeakerHints.check(**hints)
    assert "\n" not in caught.value.message
    assert caught.value.__cause__ is None


def test_a_complaint_does_not_repeat_the_input() -> None:
    with pytest.raises(InvalidJob) as caught:
        SpeakerHints.check(num_speakers="hunter2")  # type: ignore[arg-type]
    assert "hunter2" not in str(caught.value)
