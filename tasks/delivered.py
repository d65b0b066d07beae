"""A job as the main process of its worker holds it, and what becomes of it when its child is gone."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar

from billiard.einfo import ExceptionWithTraceback  # type: ignore[attr-defined]  # the stubs lack it
from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery.exceptions import Retry
from celery.worker import state
from celery.worker.request import Request

from diarization.errors import (
    AttemptStalled,
    Cancelled,
    DeviceLost,
    DiarizationError,
    NoRoom,
    QueueUnavailable,
    TimeLimitReached,
)
from tasks.guard import GuardedTask
from tasks.records import worker_name
from tasks.tickets import issue_due, ticket_number

logger = logging.getLogger(__name__)


class DeliveredJob(Request):
    """Celery's request of a job."""

    task: GuardedTask
    _already_cancelled: bool
    _already_revoked: bool
    _context: Any
    worker_pid: int  # type: ignore[assignment]  # the stubs take it for a text

    on_device_lost: ClassVar[Callable[[], None]]
    """What else the main process does when a child's GPU has failed."""
    on_no_room: ClassVar[Callable[[], None]]
    """What it does when a child found too little memory for a job."""

    _ended_for: AttemptStalled | None = None
    """Why this worker has ended the child itself."""
    _counts = True
    """Whether the attempt counts where the child ends before the job does."""

    def end_child(self, reason: AttemptStalled | None) -> None:
        """End the child that runs the job, which is then taken anew; without a reason, because this worker stops."""
        self._ended_for, self._counts = reason, reason is not None
        if self.worker_pid != os.getpid():  # a thread cannot be ended
            with suppress(ProcessLookupError):
                os.kill(self.worker_pid, signal.SIGKILL)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """Celery's hook. It would tell of a hard limit here and in `on_failure`, which comes as well: twice."""
        if soft:
            super().on_timeout(soft, timeout)

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        """A child that died leaves its job to be taken anew, first in line; a `time_limit` ends it."""
        error = exc_info.exception
        if isinstance(error, ExceptionWithTraceback):
            error = error.exc
        cause = error.exc if isinstance(error, Retry) else error
        if isinstance(cause, DeviceLost):
            self._replace_child()
        if isinstance(cause, NoRoom):
            self._wait_for_room()
        lost = isinstance(error, WorkerLostError | SystemExit | KeyboardInterrupt)
        ours = lost and not self._already_cancelled and not self._already_revoked
        if ours and self._hand_back(counts=self._counts and not state.should_terminate):
            state.task_ready(self)
            return self.acknowledge()
        if isinstance(error, TimeLimitExceeded):
            return self._time_is_over(TimeLimitReached(f"time_limit={error.args[0]} s is over"))
        # A lost job that does not run, or Redis is away: Celery puts it back, and whoever meets it asks the record.
        return super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)

    def _replace_child(self) -> None:
        """End the child whose GPU has failed under this job, before it is given the next one."""
        if self.worker_pid != os.getpid():  # else it was a GPU at RunPod
            type(self).on_device_lost()
            logger.error("job %s: the GPU failed under it: its process is replaced", self.id)
            with suppress(ProcessLookupError):
                os.kill(self.worker_pid, signal.SIGKILL)

    def _wait_for_room(self) -> None:
        """Let this worker become empty; was the job refused for its neighbours, it then comes next."""
        type(self).on_no_room()
        with suppress(QueueUnavailable):
            issue_due(self.task.app, self.task.hasty_records)

    def _time_is_over(self, error: TimeLimitReached) -> None:
        logger.error("job %s dead: %s: %s", self.id, error.code, error.message)
        state.task_ready(self)
        self._end(error)
        self.task.backend.mark_as_failure(self.id, error, request=self._context, store_result=self.store_errors)
        self._answered()
        self.acknowledge()
        self.send_event("task-failed", exception=repr(error), traceback="")

    def maybe_expire(self) -> None:
        """Never: the record says until when a job may start, and whether it has."""

    def cancel(self, pool: Any, signal: Any = None, emit_retry: bool = True) -> None:
        """A shutdown that does not wait: the attempt does not count."""
        if self.worker_pid != os.getpid():
            self._hand_back(counts=False)
        super().cancel(pool, signal=signal, emit_retry=emit_retry)

    def _announce_revoked(self, reason: str, terminated: bool, signum: Any, expired: bool) -> None:
        """Celery's own `revoke`: the record ends as the task does."""
        self._end(Cancelled("the job was revoked"))
        super()._announce_revoked(reason, terminated, signum, expired)  # type: ignore[misc]  # the stubs lack it
        self._answered()

    def _end(self, error: DiarizationError) -> None:
        """Celery ends the job; so does its record."""
        records, outcome = self.task.hasty_records, "stale"
        try:
            # A child that is just starting the job may be between the two steps; it is gone by the next time.
            while outcome == "stale" and (record := records.get(self.id)) is not None:
                outcome = records.give_up(self.id, record.token, error)
        except QueueUnavailable as outage:
            logger.warning("job %s: its end cannot be stored: %s", self.id, outage)

    def _answered(self) -> None:
        """Celery has been told of the end that it made itself."""
        with suppress(QueueUnavailable):  # then a copy of the ticket tells it once more
            self.task.hasty_records.answered(self.id, ticket_number(self.request_dict))

    def _hand_back(self, *, counts: bool) -> bool:
        """Let the job be taken anew; False where it does not run here, or that cannot be said now."""
        records = self.task.hasty_records
        try:
            worker, number = worker_name(self.hostname, os.getpid()), ticket_number(self.request_dict)
            outcome = records.hand_back(self.id, worker, counts=counts, error=self._ended_for, ticket_number=number)
            if outcome == "due":
                # At once, before this worker takes the next job of those that wait.
                issue_due(self.task.app, records)
        except QueueUnavailable as error:
            # Then the lease runs out, and another worker sees to it.
            logger.warning("job %s cannot be handed back now: %s", self.id, error)
            return False
        if outcome == "due":
            logger.warning("job %s is handed back, and first in line again", self.id)
        return outcome == "due"
