"""RunPod's contract, without the SDK: inputs, results near the limit, errors."""

from __future__ import annotations

import json
from typing import Any

import pytest

from diarization import errors
from diarization.errors import DiarizationError, InvalidJob, ResultTooLarge, UrlNotAllowed, WorkerTooOld
from diarization.turns import Diarization, Speaker, Turn
from runpod_worker.contract import MAX_ERROR_CHARACTERS, read_input, write_error, write_result

URL = "https://stand.in/meeting.wav?X-Signature=canary"


def test_the_guide_s_input_is_read() -> None:
    request = read_input({"task": "diarization", "audio_url": URL, "num_speakers": 2, "headers": {"A": "b"}})
    assert request.url == URL
    assert request.hints.num_speakers == 2
    assert request.recording.headers == {"A": "b"}


def test_what_may_be_left_out_may_be() -> None:
    request = read_input({"audio_url": URL, "min_speakers": None, "headers": None})
    assert request.hints.min_speakers is None


@pytest.mark.parametrize(
    ("job_input", "error", "says"),
    [
        (None, InvalidJob, "input"),
        ("diarization", InvalidJob, "input"),
        ({"task": "transcription", "audio_url": URL}, InvalidJob, "task"),
        ({"task": None, "audio_url": URL}, InvalidJob, "task"),
        ({"task": "diarization"}, InvalidJob, "audio_url"),
        ({"audio_url": 7}, InvalidJob, "audio_url"),
        ({"audio_url": URL, "num_speakers": "2"}, InvalidJob, "num_speakers"),
        ({"audio_url": URL, "num_speakers": 2, "max_speakers": 3}, InvalidJob, "num_speakers"),
        ({"audio_url": URL, "headers": {"Host": "elsewhere"}}, InvalidJob, "Host"),
        ({"audio_url": URL, "nun_speakers": 2}, WorkerTooOld, "nun_speakers"),
        ({"audio_url": "ftp://stand.in/a.wav"}, UrlNotAllowed, "ftp"),
        ({"audio_url": "file:///etc/passwd"}, UrlNotAllowed, "file"),
    ],
)
def test_other_inputs_are_refused(job_input: Any, error: type[DiarizationError], says: str) -> None:
    with pytest.raises(error, match=says) as refusal:
        read_input(job_input)
    assert "canary" not in refusal.value.message


def diarization(turns: int, numbers: int = 0) -> Diarization:
    some = (Turn(start=0, end=1.5, speaker="SPEAKER_00"),) * turns
    speaker = Speaker(speaker="SPEAKER_00", total_seconds=1.5, embedding=(0.25,) * numbers or None)
    return Diarization(
        segments=some, exclusive_segments=some, speakers=(speaker,), audio_seconds=9, warnings=("its own",)
    )


def size(result: dict[str, Any]) -> int:
    return len(json.dumps(result, ensure_ascii=False))


def test_a_result_says_that_runpod_made_it() -> None:
    result = write_result(diarization(3))
    assert result["provenance"]["provider"] == "runpod"
    assert result["warnings"] == ["its own"]
    assert Diarization.from_json(result).segments == diarization(3).segments


def test_a_large_result_loses_embeddings_first_then_the_exclusive_turns_and_never_a_turn() -> None:
    full = write_result(diarization(100, numbers=256))
    most = size(full)
    assert write_result(diarization(100, numbers=256), most) == full

    trimmed = write_result(diarization(100, numbers=256), most - 1)
    assert trimmed["speakers"][0]["embedding"] is None
    assert len(trimmed["exclusive_segments"]) == 100
    assert [warning.split(" ", 3)[:3] for warning in trimmed["warnings"][1:]] == [["the", "speakers'", "embeddings"]]

    smaller = write_result(diarization(100, numbers=256), size(trimmed) - 1)
    assert smaller["exclusive_segments"] == []
    assert smaller["segments"] == full["segments"]
    assert len(smaller["warnings"]) == 3
    assert size(smaller) < size(trimmed)

    with pytest.raises(ResultTooLarge, match="100 turns"):
        write_result(diarization(100, numbers=256), size(smaller) - 1)


def test_what_json_cannot_say_is_no_result() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_result(Diarization.model_construct(segments=(), audio_seconds=float("nan")))


CLASSES = [error for error in vars(errors).values() if isinstance(error, type) and issubclass(error, DiarizationError)]


@pytest.mark.parametrize("error", CLASSES)
def test_an_error_is_a_string_from_which_its_class_can_be_read(error: type[DiarizationError]) -> None:
    written = write_error(error("something: went\nwrong"))["error"]
    code, _, message = written.partition(": ")
    assert type(errors.from_code(code, message)) is error
    assert message == "something: went wrong"


def test_an_error_is_short_and_can_be_encoded() -> None:
    written = write_error(InvalidJob("\ud800" + "x" * 5000))["error"]
    assert len(written.encode()) <= MAX_ERROR_CHARACTERS + len("…".encode())
    assert written.startswith("invalid_job: ?x")
