"""What an answer of RunPod says about a run."""

from __future__ import annotations

import json
from typing import Any

import pytest

from diarization.errors import OverflowLost, RecordingFetchFailed, RecordingNotFound
from diarization.turns import Diarization, Turn
from tasks.overflow.outcomes import Outcome, measure
from tasks.runpod.api import Answer, Kind
from tasks.runpod.status import Phase, read_status

RESULT = Diarization(segments=(Turn(start=0, end=1, speaker="SPEAKER_00"),), audio_seconds=2).to_json()
RAISED = json.dumps({"error_type": "<class 'KeyError'>", "error_message": "x", "error_traceback": "/app/secret.py"})


def told(**body: Any) -> Answer:
    return Answer(Kind.OK, 200, body)


@pytest.mark.parametrize(
    ("answer", "phase"),
    [
        (told(status="IN_QUEUE"), Phase.QUEUED),
        (told(status="IN_PROGRESS", output=RESULT), Phase.RUNNING),
        (told(status="RUNNING"), Phase.RUNNING),
        (told(status="CANCELLED"), Phase.STOPPED),
        (told(status="TIMED_OUT"), Phase.FAILED),
        (told(status="PAUSED"), Phase.UNCLEAR),
        (told(), Phase.UNCLEAR),
        (Answer(Kind.REFUSED, 404, {"error": "job not found"}), Phase.GONE),
        (Answer(Kind.REFUSED, 401), Phase.DENIED),
        (Answer(Kind.REFUSED, 403), Phase.DENIED),
        (Answer(Kind.REFUSED, 429), Phase.UNCLEAR),
        (Answer(Kind.UNCLEAR, 502), Phase.UNCLEAR),
        (Answer(Kind.UNREACHABLE), Phase.UNCLEAR),
    ],
)
def test_where_a_run_stands(answer: Answer, phase: Phase) -> None:
    look = read_status(answer)
    assert (look.phase, look.result) == (phase, None)


def test_a_result_counts_once_it_is_completed() -> None:
    look = read_status(told(status="COMPLETED", output=RESULT, delayTime=31_618, executionTime=1437))
    assert look.phase is Phase.DONE
    assert look.result == Diarization.from_json(RESULT)
    assert (look.delay_seconds, look.execution_seconds) == (31.618, 1.437)


@pytest.mark.parametrize("output", [None, {}, {"segments": None}, "discrete_diarization;None;None", [1]])
def test_a_result_that_is_none_is_lost(output: Any) -> None:
    look = read_status(told(status="COMPLETED", output=output))
    assert (look.phase, type(look.error)) == (Phase.FAILED, OverflowLost)


@pytest.mark.parametrize(
    ("said", "error", "message"),
    [
        ("recording_not_found: HTTP 404 for https://…", RecordingNotFound, "HTTP 404 for https://…"),
        ("recording_fetch_failed: no answer", RecordingFetchFailed, "no answer"),
        ("url_not_allowed: not public", OverflowLost, "the run failed: url_not_allowed: not public"),
        ("out_of_memory: the GPU is full", OverflowLost, "the run failed: out_of_memory: the GPU is full"),
        ("never_heard_of: x", OverflowLost, "the run failed: never_heard_of: x"),
        ("handler: x \ntraceback: /app/secret.py", OverflowLost, "the run failed: handler: x"),
        (RAISED, OverflowLost, "the run failed: <class 'KeyError'> in the handler"),
        ({"code": 1}, OverflowLost, "the run failed: RunPod names no error"),
        (None, OverflowLost, "the run failed: RunPod names no error"),
    ],
)
def test_an_error_keeps_its_class_where_it_is_the_recording_s(said: Any, error: type[Exception], message: str) -> None:
    look = read_status(told(status="FAILED", error=said))
    assert (type(look.error), str(look.error)) == (error, message)


@pytest.mark.parametrize("time", ["31", -1, None, True, {}, float("inf"), float("nan")])
def test_times_that_are_none_are_not_known(time: Any) -> None:
    assert read_status(told(status="FAILED", executionTime=time)).execution_seconds is None


def test_what_is_measured_of_runpod() -> None:
    nothing = measure([], 10)
    assert (nothing.cold_seconds, nothing.seconds_per_audio_hour, nothing.failure_share) == (None, None, 0)
    runs = [
        Outcome(9, True, 40, 20, 1800),
        Outcome(8, True, 1, 10, 600),
        Outcome(7, False),
        Outcome(6, True, 60, 8, 900),
    ]
    known = measure(runs, 10)
    assert known.cold_seconds == 65, "the upper quartile of 40 and 60, beyond both: so few are no bound"
    assert known.seconds_per_audio_hour == 40, "the median"
    assert known.failure_share == 1 / 8
    assert known.last_at == 9
    assert measure([Outcome(7, False)] * 20, 7 + 6 * 3600).failure_share == 0, "it may work again by now"
