"""The Celery task: `diarize.delay(url)`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from diarization.turns import Diarization
from tasks.guard import GuardedTask
from tasks.typed_task import job_task


@job_task("tasks.diarize.diarize")
def diarize(
    self: GuardedTask,
    url: str,
    num_speakers: int | None = None,
    min_speakers: int | None = None,
    max_speakers: int | None = None,
    provider: Literal["local", "runpod"] | None = None,
    expected_audio_seconds: float | None = None,
    deadline_seconds: float | None = None,
    headers: Mapping[str, str] | None = None,
    idempotency_key: str | None = None,
    webhook: str | None = None,
    webhook_result: bool = False,
) -> Diarization:
    """Find out who speaks when in the recording at `url`.

    Submit it with `diarize.delay(url)` or `diarize.apply_async((url,), …)`: both give a `JobResult` at once, whose
    `.get()` waits for the JSON form of a `diarization.turns.Diarization`, or raises an error of `diarization.errors`.

    Args:
        self: The task; Celery passes it.
        url: http, https, or file below the workers' DIARIZATION_RECORDINGS_DIR.
        num_speakers: How many people speak, where that is known, from 1 to 100; then without the next two.
        min_speakers: At least so many.
        max_speakers: At most so many.
        provider: `local` keeps the job on the own GPUs, `runpod` has it done there.
        expected_audio_seconds: How long the recording is, as far as that is known: for what is predicted, not a limit.
        deadline_seconds: The job should be done so long after it may start (OVERFLOW_DEADLINE_SECONDS): decides whether
            it goes elsewhere, and ends no job. 30 days at most.
        headers: Sent along when the recording is fetched; kept as secrets.
        idempotency_key: Names what is asked for: submitted again with the same key, by whichever producer, the same
            request has the same answer, until QUEUE_RETENTION_DAYS after its end.
        webhook: http or https URL, told of the job's end by a signed POST, at least once (docs/webhooks.md).
        webhook_result: Whether that brings the result along.

    Raises:
        InvalidJob: When it is submitted: an option makes no sense, or `idempotency_key` belongs to another request.
        UrlNotAllowed: When it is submitted: no recording can have this URL.
        QueueUnavailable: When it is submitted, within seconds: Redis cannot be reached.
    """
    return self.diarize(
        url=url,
        num_speakers=num_speakers,
        min_speakers=min_speakers,
        max_speakers=max_speakers,
        provider=provider,
        expected_audio_seconds=expected_audio_seconds,
        deadline_seconds=deadline_seconds,
        headers=headers,
        idempotency_key=idempotency_key,
        webhook=webhook,
        webhook_result=webhook_result,
    )
