"""What an answer of RunPod says about a run: pure.

RunPod is read with care: an `output` counts only once the status says COMPLETED, because it holds progress before; an
error is the text that our handler wrote, or the SDK's JSON of an exception, of which no traceback is told on.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from pydantic import ValidationError

from diarization.errors import DiarizationError, OverflowLost, PermanentError, RecordingFetchFailed, from_code
from diarization.turns import Diarization
from tasks.runpod.api import Answer, Kind

OURS_TO_SOLVE = frozenset(
    {
        "decoder_unavailable",
        "does_not_fit",
        "internal_error",
        "model_unavailable",
        "recording_forbidden",
        "recording_too_large",
        "recording_too_long",
        "result_too_large",
        "url_not_allowed",
    }
)
"""Errors that are permanent there, but may be the endpoint's own: its settings, its size, its place in the network."""

_CODED = re.compile(r"([a-z_]{3,40}): (.*)", re.DOTALL)


class Phase(Enum):
    """Where a run stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"
    GONE = "gone"
    """RunPod knows no such run, or no such endpoint."""
    DENIED = "denied"
    UNCLEAR = "unclear"
    """Nothing that can be relied on was said."""


@dataclass(frozen=True)
class Look:
    """What one look at a run showed.

    Attributes:
        phase: Where it stands.
        says: For people, where something is wrong.
        result: Of a run that is done.
        error: Of one that failed.
        delay_seconds: It waited for so long at RunPod.
        execution_seconds: It ran for so long.
        wait_seconds: Before the next look, where RunPod asked for it.
    """

    phase: Phase
    says: str = ""
    result: Diarization | None = None
    error: DiarizationError | None = None
    delay_seconds: float | None = None
    execution_seconds: float | None = None
    wait_seconds: float | None = None


def read_status(answer: Answer) -> Look:
    """What the answer to /status, or to /cancel, says about the run."""
    if answer.kind is not Kind.OK or answer.body is None:
        phase = {404: Phase.GONE, 401: Phase.DENIED, 403: Phase.DENIED}.get(answer.status or 0, Phase.UNCLEAR)
        return Look(phase, answer.says, wait_seconds=answer.retry_after_seconds)
    body = answer.body
    delay, execution = _seconds(body.get("delayTime")), _seconds(body.get("executionTime"))
    match body.get("status"):
        case "IN_QUEUE":
            return Look(Phase.QUEUED)
        case "IN_PROGRESS" | "RUNNING":
            return Look(Phase.RUNNING, delay_seconds=delay)
        case "CANCELLED":
            return Look(Phase.STOPPED, "it was cancelled", None, None, delay, execution)
        case "COMPLETED":
            result, error = _result(body)
            return Look(Phase.DONE if result else Phase.FAILED, "", result, error, delay, execution)
        case "FAILED":
            return Look(Phase.FAILED, "", None, _error(body.get("error")), delay, execution)
        case "TIMED_OUT":
            lost = OverflowLost("RunPod ended the run: it was not started, or not done, in time")
            return Look(Phase.FAILED, "", None, lost, delay, execution)
        case other:
            return Look(Phase.UNCLEAR, f"the status {str(other)[:40]!r}, which is not known")


def _result(body: Mapping[str, Any]) -> tuple[Diarization | None, DiarizationError | None]:
    output = body.get("output")
    if isinstance(output, dict) and isinstance(output.get("error"), str):
        return None, _error(output["error"])
    try:
        return Diarization.from_json(output), None
    except ValidationError as error:
        return None, OverflowLost(f"RunPod answered COMPLETED without a usable result ({error.error_count()} faults)")


def _error(said: Any) -> DiarizationError:
    """The error that our handler wrote; whatever else it is may be better elsewhere."""
    text = said if isinstance(said, str) else ""
    if coded := _CODED.fullmatch(text):
        error = from_code(coded.group(1), coded.group(2))
        of_the_recording = isinstance(error, PermanentError) and error.code not in OURS_TO_SOLVE
        if of_the_recording or isinstance(error, RecordingFetchFailed):
            return error
    return OverflowLost(f"the run failed: {_plain(text) or 'RunPod names no error'}")


def _plain(text: str) -> str:
    """One line of an error, without the SDK's traceback, which names paths and may hold more."""
    try:
        told = json.loads(text)
    except ValueError:
        told = None
    if isinstance(told, dict):
        return f"{told.get('error_type', 'error')} in the handler"
    return " ".join(text.split("traceback:")[0].split())[:300]


def _seconds(milliseconds: Any) -> float | None:
    if isinstance(milliseconds, bool) or not isinstance(milliseconds, int | float):
        return None
    return milliseconds / 1000 if 0 <= milliseconds < math.inf else None
