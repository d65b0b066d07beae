"""One job, from its input to its result or a typed error, in the thread that owns the model."""

from __future__ import annotations

import logging
import threading
import time
import traceback
from typing import Any

from diarization.diarizer import Diarizer
from diarization.errors import Cancelled, DiarizationError, InternalError, NoRoom, OutOfMemory
from diarization.memory import available_bytes, needed_bytes, resident_bytes
from diarization.recording import scrub
from runpod_worker.contract import read_input, write_result
from tasks.job import JobRequest

logger = logging.getLogger(__name__)

GIGABYTE = 1e9


class Ear:
    """A `Report` that hears of the job's end and of a recording for which there is no memory. It posts nothing.

    A progress post of the SDK's is sent from a thread of its own and can arrive after the result, which then is lost:
    https://github.com/runpod/runpod-python/issues/250
    """

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._held_bytes = resident_bytes()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """See `diarization.diarizer.Report`.

        Raises:
            Cancelled: RunPod stops the job.
            NoRoom: This worker has too little memory for it.
        """
        if self._stop.is_set():
            raise Cancelled("RunPod stopped the job")
        if stage == "decode":
            needed, free = needed_bytes(done), available_bytes() + max(0, resident_bytes() - self._held_bytes)
            if needed > free:
                wanted, there = needed / GIGABYTE, free / GIGABYTE
                raise NoRoom(f"the recording needs {wanted:.1f} GB of memory, {there:.1f} GB are free here")


def run(diarizer: Diarizer, job_id: str, job_input: Any, stop: threading.Event) -> dict[str, Any] | DiarizationError:
    """What the job ends with.

    Args:
        diarizer: Of this process; one job at a time.
        job_id: RunPod's, for the log.
        job_input: What the client sent.
        stop: Once it is set, the job ends with `Cancelled` at its next report.

    Returns:
        The result as plain JSON, or an error without a secret in it and without the frames of the one caught.
    """
    began = time.monotonic()
    outcome = _outcome(diarizer, job_id, job_input, stop)
    seconds = time.monotonic() - began
    if isinstance(outcome, DiarizationError):
        logger.warning("job %s failed in %.1f s: %s: %s", job_id, seconds, outcome.code, outcome.message)
    else:
        logger.info(
            "job %s done: %.1f s of audio, %d speakers, %d turns, in %.1f s",
            job_id,
            outcome["audio_seconds"],
            len(outcome["speakers"]),
            len(outcome["segments"]),
            seconds,
        )
    return outcome


def _outcome(
    diarizer: Diarizer, job_id: str, job_input: Any, stop: threading.Event
) -> dict[str, Any] | DiarizationError:
    try:
        request = read_input(job_input)
    except DiarizationError as error:
        return type(error)(error.message)
    logger.info("job %s: %s %s", job_id, request.shown, request.shown_options() or "")
    return _diarize(diarizer, job_id, request, Ear(stop))


def _diarize(diarizer: Diarizer, job_id: str, request: JobRequest, ear: Ear) -> dict[str, Any] | DiarizationError:
    recording = request.recording
    try:
        return write_result(diarizer.diarize(recording, request.hints, ear))
    except DiarizationError as error:
        return type(error)(scrub(error.message, recording))
    except MemoryError:
        return OutOfMemory("the worker ran out of memory")
    except Exception as error:  # noqa: BLE001 - whatever is unknown is a bug, and ends the job as one
        logger.error("job %s: %s", job_id, scrub("".join(traceback.format_exception(error)), recording))
        return InternalError(scrub(f"{type(error).__name__}: {error}", recording))
