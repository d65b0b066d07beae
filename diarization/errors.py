"""What can go wrong with a job. Permanent or transient is decided here and nowhere else.

    DiarizationError
    ├── PermanentError            trying again would fail again: a dead letter at once
    │   ├── InvalidJob
    │   ├── UrlNotAllowed
    │   ├── RecordingNotFound
    │   ├── RecordingForbidden
    │   ├── RecordingUndecodable
    │   ├── RecordingTooLarge
    │   ├── RecordingTooLong
    │   ├── ModelUnavailable
    │   ├── DecoderUnavailable
    │   ├── DoesNotFit
    │   ├── Expired
    │   ├── AttemptsExhausted
    │   ├── TimeLimitReached
    │   ├── ResultTooLarge
    │   ├── OverflowRejected
    │   └── InternalError         whatever is unknown is a bug, hence permanent
    ├── TransientError            retried with backoff, then a dead letter
    │   ├── RecordingFetchFailed
    │   ├── OutOfMemory
    │   ├── NoRoom                waits until there is, and counts as no attempt
    │   ├── WorkerTooOld          waits for a newer one, likewise
    │   ├── AttemptStalled
    │   ├── DeviceLost
    │   ├── DiskFull
    │   ├── DecoderStopped
    │   ├── OverflowClosed        waits for the valve, the budget or another worker, and counts as no attempt
    │   ├── OverflowUnavailable   likewise, for the provider
    │   └── OverflowLost
    ├── QueueUnavailable          the queue itself cannot be reached; raised in the producer
    └── Cancelled                 somebody asked for the job to stop

Every error takes exactly one argument, its message: Celery's JSON results keep the class only then.
A message never holds a URL's query, a password or a token.
"""

from __future__ import annotations

import re
from typing import ClassVar


class DiarizationError(Exception):
    """Root of the tree.

    Attributes:
        code: Stable name of the class for other languages, such as ``recording_not_found``.
        advice: What the caller or the operator can do about it, one sentence.
    """

    code: ClassVar[str] = "diarization_error"
    advice: ClassVar[str] = "Look at the message."

    def __init__(self, message: str = "") -> None:
        super().__init__(message)

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.code = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()

    @property
    def message(self) -> str:
        """The text this error was raised with."""
        return str(self)


class PermanentError(DiarizationError):
    """The same job would fail again."""

    advice = "Fix the input; trying again as it is will fail again."


class TransientError(DiarizationError):
    """The same job may succeed later or elsewhere.

    Attributes:
        counts: Whether the try counts as one of the job's attempts.
        wait_seconds: Until the next try, where the error knows better than the queue.
    """

    counts: bool = True
    wait_seconds: float | None = None
    advice = "It is tried again by itself; if it keeps failing, look at the message."


class InvalidJob(PermanentError):
    """The job's options make no sense."""

    advice = "Correct the option that the message names and submit again."


class UrlNotAllowed(PermanentError):
    """The URL is malformed, or points to where recordings may not be fetched from."""

    advice = (
        "Use an http or https URL on a public address. For one of your own network, "
        "the operator lists it in DIARIZATION_ALLOWED_NETWORKS; a file URL is a path below the workers' "
        "DIARIZATION_RECORDINGS_DIR."
    )


class RecordingNotFound(PermanentError):
    """There is no recording at the URL (HTTP 404 or 410, no such host, no such file)."""

    advice = "Check the URL; the recording may have been moved or deleted."


class RecordingForbidden(PermanentError):
    """The server refuses to hand out the recording (HTTP 401, 403 or another 4xx)."""

    advice = "A signed URL may have run out: sign a new one and submit again, or send credentials with headers=."


class RecordingUndecodable(PermanentError):
    """The file holds no audio that ffmpeg can read."""

    advice = "Check that the file plays; export it again as WAV, MP3, M4A or FLAC."


class RecordingTooLarge(PermanentError):
    """More bytes than DIARIZATION_MAX_BYTES."""

    advice = "Send a smaller file (audio only, compressed), or have the operator raise DIARIZATION_MAX_BYTES."


class RecordingTooLong(PermanentError):
    """More audio than DIARIZATION_MAX_HOURS."""

    advice = "Split the recording, or have the operator raise DIARIZATION_MAX_HOURS."


class ModelUnavailable(PermanentError):
    """The model cannot be loaded."""

    advice = "Set DIARIZATION_MODEL to a folder that holds a pipeline, or to a hub name together with HF_TOKEN."


class DecoderUnavailable(PermanentError):
    """The worker has no ffmpeg that can be used."""

    advice = "Install ffmpeg 6.0 or later on the worker's host, or the worker extra, which brings one."


class DoesNotFit(PermanentError):
    """The recording needs more memory than any worker has."""

    advice = "Split the recording, or have the operator start a worker with the memory that the message names."


class Expired(PermanentError):
    """The job was not started before its `expires`."""

    advice = "Submit it again, with a later expires= or with more workers."


class AttemptsExhausted(PermanentError):
    """The job was started as often as it may be, and its worker died each time."""

    advice = "Look at the worker's log and memory at the times of the attempts; the recording may be what kills it."


class TimeLimitReached(PermanentError):
    """The job ran for longer than the `time_limit` it was submitted with."""

    advice = "Submit it again with a longer time_limit=, or without one."


class ResultTooLarge(PermanentError):
    """The turns are more than the provider that did the job can send back."""

    advice = 'Split the recording, or have it done on the own GPUs: provider="local".'


class OverflowRejected(PermanentError):
    """The remote provider will never do this job."""

    advice = "Look at the message; a job that need not go to RunPod is better submitted with diarize.delay(url)."


class InternalError(PermanentError):
    """An error this project does not know: a bug."""

    advice = "This is a bug: please report it with the worker's log."


class RecordingFetchFailed(TransientError):
    """The recording's server failed, stalled or broke off."""

    advice = "The recording's server did not deliver; it is tried again by itself."


class OutOfMemory(TransientError):
    """The device ran out of memory."""

    advice = "Give the worker a device with more memory, or fewer neighbours on it."


class NoRoom(TransientError):
    """The worker's host has too little memory left for the recording, for now.

    Attributes:
        needed_bytes: What the job's process would need in all.
    """

    counts = False
    advice = "It waits for a worker with enough free memory; give the host fewer neighbours if that takes too long."
    needed_bytes: int = 0


class WorkerTooOld(TransientError):
    """The job asks for something that this worker's version does not know."""

    counts = False
    advice = "It waits for a newer worker: finish the deploy, or submit it from a backend of the workers' version."


class AttemptStalled(TransientError):
    """The worker's process made no progress for too long and was ended."""

    advice = (
        "It is tried again by itself; look at the worker's host, or raise QUEUE_STALL_SECONDS if that is a slow one."
    )


class DeviceLost(TransientError):
    """The GPU stopped answering."""

    advice = "Check the GPU with nvidia-smi; restart the worker's host if it does not come back."


class DiskFull(TransientError):
    """No space is left for the temporary file."""

    advice = "Free space in the worker's temporary directory."


class DecoderStopped(TransientError):
    """ffmpeg was killed or told to stop from outside before it was through."""

    advice = "The worker's host stopped ffmpeg (a shutdown, or memory ran out); it is tried again by itself."


class OverflowClosed(TransientError):
    """The job is not to be done by the remote provider now: it costs too much, or this bridge stops."""

    counts = False
    advice = "It waits, or the own GPUs take it; `diarize-queue budget` says what is left of today's budget."


class OverflowUnavailable(TransientError):
    """The remote provider did not take the job. Nothing runs there, and nothing is owed."""

    counts = False
    advice = "It is tried again by itself, or the own GPUs take it; the bridge's log says what RunPod answered."


class OverflowLost(TransientError):
    """The remote provider took the job and gave no answer, or nobody can know whether it took it."""

    advice = "It is tried again by itself, at home where there is a GPU; what RunPod billed for it is booked."


class QueueUnavailable(DiarizationError):
    """Redis cannot be reached or refuses to answer; nothing is known to be queued."""

    advice = "Check REDIS_URL and that Redis is up; submitting again with the same task_id is safe."


class Cancelled(DiarizationError):
    """The job was cancelled."""

    advice = "Submit it again if it is wanted after all."


def _descendants(cls: type[DiarizationError]) -> list[type[DiarizationError]]:
    return [cls, *(leaf for child in cls.__subclasses__() for leaf in _descendants(child))]


def from_code(code: str, message: str) -> DiarizationError:
    """The error that `code` names; an unknown code gives an `InternalError` that keeps the code in its text."""
    for cls in _descendants(DiarizationError):
        if cls.code == code:
            return cls(message)
    return InternalError(f"{code}: {message}")
