"""JobResult: what a producer holds of a job."""

from __future__ import annotations

from typing import Any, Protocol

from celery.result import AsyncResult

from tasks.server import reachable


class Cancels(Protocol):
    """The task of a job, as far as its result needs it."""

    def cancel(self, job_id: str) -> Any:
        """Cancel a job."""


class JobResult(AsyncResult[Any]):
    """Celery's AsyncResult, whose `revoke` also reaches jobs that no worker holds, and survives restarts.

    `get` waits out an outage of Redis of up to a minute, then raises `QueueUnavailable`, and can be called again.
    """

    task: Cancels

    warning: str | None = None
    """Of a job that was just submitted: why its signed URL may run out too soon."""

    def revoke(self, *_args: Any, **_options: Any) -> None:
        """Cancel the job: a waiting one never starts, a running one stops after its current batch.

        Raises:
            QueueUnavailable: Redis cannot be reached.
        """
        self.task.cancel(self.id)

    def _get_task_meta(self) -> Any:
        """What `state`, `result`, `ready()` and their like read.

        Raises:
            QueueUnavailable: Redis cannot be reached.
        """
        with reachable():
            return super()._get_task_meta()  # type: ignore[misc]  # the stubs lack it
