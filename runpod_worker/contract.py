"""RunPod's contract: what a job's input may hold, and how its result and its errors look. Pure; no SDK, no model.

{"input": {"task": "diarization", "audio_url": "https://…", "num_speakers": 2}}
{"segments": […], …}                       as `Diarization.to_json` writes it
{"error": "recording_not_found: HTTP 404 for https://…"}
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from diarization.errors import DiarizationError, InvalidJob, ResultTooLarge, UrlNotAllowed, WorkerTooOld
from diarization.turns import Diarization
from tasks.job import JobRequest

TASK: Final = "diarization"
HINTS: Final = ("num_speakers", "min_speakers", "max_speakers")
FIELDS: Final = frozenset({"task", "audio_url", "headers", *HINTS})

MAX_RESULT_BYTES: Final = 9_900_000
"""RunPod documents 10 MB for what goes through /run; the rest is for what is put around the result."""
MAX_ERROR_CHARACTERS: Final = 1000


def read_input(job_input: Any) -> JobRequest:
    """The request that a job's input makes.

    Raises:
        InvalidJob: It is none, or one of its options makes no sense.
        UrlNotAllowed: No recording can have this URL, or RunPod can have no such recording.
        WorkerTooOld: It asks for something that this version does not know.
    """
    if not isinstance(job_input, dict):
        raise InvalidJob("input: must be an object")
    if job_input.get("task", TASK) != TASK:
        raise InvalidJob(f'task: this endpoint knows one, "{TASK}"')
    if unknown := sorted(job_input.keys() - FIELDS):
        known = ", ".join(sorted(FIELDS))
        raise WorkerTooOld(f"the input holds {', '.join(unknown)}, which this version does not know; it knows {known}")
    if not isinstance(job_input.get("audio_url"), str):
        raise InvalidJob("audio_url: must be the recording's URL")
    wanted = {name: job_input.get(name) for name in (*HINTS, "headers")}
    request = JobRequest.check({"url": job_input["audio_url"], **wanted})
    if request.url.startswith("file:"):
        raise UrlNotAllowed("a file on the producer's disk cannot be read at RunPod; use an http or https URL")
    return request


def write_result(diarization: Diarization, max_bytes: int = MAX_RESULT_BYTES) -> dict[str, Any]:
    """The result in plain JSON types, small enough to be sent back.

    What is larger would be refused on its way, and the job would never end. So it loses first the speakers'
    embeddings, then `exclusive_segments`, each with a warning; never a turn of `segments`.

    Args:
        diarization: What the diarizer gave.
        max_bytes: Of the result, written as the SDK writes it.

    Raises:
        ResultTooLarge: The turns alone are more.
        ValueError: It holds what JSON cannot say, such as NaN.
    """
    provenance = diarization.provenance.model_copy(update={"provider": "runpod"})
    kept = diarization.model_copy(update={"provenance": provenance})
    for name, without in (("", None), *TRIMMINGS):
        if without is not None:
            warning = f"{name} left out: RunPod sends back no more than {max_bytes / 1e6:g} MB"
            kept = without(kept).model_copy(update={"warnings": (*kept.warnings, warning)})
        result = kept.to_json()
        size = len(json.dumps(result, ensure_ascii=False, allow_nan=False).encode())
        if size <= max_bytes:
            return result
    raise ResultTooLarge(f"{len(kept.segments)} turns are {size} bytes; RunPod sends back {max_bytes} at most")


def write_error(error: DiarizationError) -> dict[str, str]:
    """The error as RunPod's clients see it: always a string, in one line, the code first.

    Anything else than a string that can be encoded would be lost on its way, and the job would never end.
    """
    text = f"{error.code}: {' '.join(error.message.split())}"
    if len(text) > MAX_ERROR_CHARACTERS:
        text = text[: MAX_ERROR_CHARACTERS - 1] + "…"
    return {"error": text.encode("utf-8", errors="replace").decode()}


def _without_embeddings(diarization: Diarization) -> Diarization:
    speakers = tuple(speaker.model_copy(update={"embedding": None}) for speaker in diarization.speakers)
    return diarization.model_copy(update={"speakers": speakers})


def _without_exclusive(diarization: Diarization) -> Diarization:
    return diarization.model_copy(update={"exclusive_segments": ()})


TRIMMINGS: Final[tuple[tuple[str, Callable[[Diarization], Diarization]], ...]] = (
    ("the speakers' embeddings are", _without_embeddings),
    ("exclusive_segments are", _without_exclusive),
)
"""What a result loses, in this order."""
