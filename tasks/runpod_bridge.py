"""The bridge: a worker whose diarizer is a RunPod endpoint; and the task of jobs that only RunPod is to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from diarization.diarizer import Diarizer
from diarization.turns import Diarization
from tasks.guard import GuardedTask
from tasks.record import JobRecord
from tasks.runpod.diarizer import RemoteDiarizer
from tasks.runpod.endpoint import Endpoint
from tasks.settings import Settings
from tasks.typed_task import job_task


@job_task("tasks.runpod_bridge.diarize_on_runpod")
def diarize_on_runpod(
    self: GuardedTask,
    url: str,
    num_speakers: int | None = None,
    min_speakers: int | None = None,
    max_speakers: int | None = None,
    provider: Literal["runpod"] = "runpod",
    expected_audio_seconds: float | None = None,
    deadline_seconds: float | None = None,
    headers: Mapping[str, str] | None = None,
    idempotency_key: str | None = None,
    webhook: str | None = None,
    webhook_result: bool = False,
) -> Diarization:
    """As `tasks.diarize.diarize`, by RunPod alone: without budget or room there it waits, until its deadline is over.

    The recording must have a public address, or one of OVERFLOW_REACHABLE_NETWORKS.

    Raises:
        UrlNotAllowed: When it is submitted: RunPod could not fetch the recording.
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


class Bridge:
    """Makes the diarizer of each job: a `tasks.loading.Provider`.

    Attributes:
        endpoint: Where they go.
    """

    def __init__(self, settings: Settings) -> None:
        """Begin.

        Raises:
            ModelUnavailable: There is no endpoint to send anything to.
        """
        self.endpoint = Endpoint(settings)

    def of(self, record: JobRecord) -> Diarizer:
        """The diarizer for that job."""
        return RemoteDiarizer(self.endpoint, record)
