"""The task base class that keeps the promise: nothing lost, nothing run twice.

In the producer it writes the job's record before its ticket is published. In the worker it takes the job named by a
ticket, counts the attempt, and ends it by one write: with a result, with a typed error, or by waiting for another try.
"""

from __future__ import annotations

import inspect
import logging
import os
import random
import time
import traceback
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, ClassVar, NoReturn

from celery import Task, states
from celery.canvas import Signature
from celery.exceptions import Ignore, Retry
from celery.result import AsyncResult
from celery.utils import uuid

from diarization.diarizer import Report
from diarization.errors import (
    Cancelled,
    DiarizationError,
    InternalError,
    InvalidJob,
    OutOfMemory,
    PermanentError,
    QueueUnavailable,
    TransientError,
)
from diarization.recording import scrub
from diarization.turns import Diarization
from tasks.job import ANYWHERE, LOCAL, JobRequest
from tasks.progress import Progress, Superseded
from tasks.records import JobRecord, Records, State, raisable
from tasks.schedule import Schedule
from tasks.settings import Settings, current_settings
from tasks.tickets import NUMBER_HEADER, describe_ticket, publish

logger = logging.getLogger(__name__)


class JobResult(AsyncResult[Any]):
    """Celery's AsyncResult, whose `revoke` also reaches jobs that no worker holds, and survives restarts."""

    task: GuardedTask

    def revoke(self, *_args: Any, **_options: Any) -> None:
        """Cancel the job: a waiting one never starts, a running one stops after its current batch."""
        self.task.cancel(self.id)


class GuardedTask(Task[Any, Any]):
    """A Celery task whose jobs stand in records; see the module."""

    abstract = True
    typing = False
    throws = (DiarizationError,)
    resultrepr_maxsize = 64

    patient: ClassVar[bool] = False
    """Whether this process waits out an outage of Redis: true in workers, never in producers."""

    @cached_property
    def settings(self) -> Settings:
        """The settings of this process."""
        return current_settings()

    @cached_property
    def records(self) -> Records:
        """The records, as patient as this process is."""
        return Records(self.settings, patient=self.patient)

    # The producer's side.

    def apply_async(  # type: ignore[override]  # a caller may pass whatever Celery's takes
        self,
        args: tuple[Any, ...] | list[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        task_id: str | None = None,
        **options: Any,
    ) -> JobResult:
        """Submit a job, with the options of Celery's `apply_async`.

        Submitting again with a `task_id` that exists is safe: the same request joins the job that stands.

        Raises:
            InvalidJob: The arguments make no sense, or `task_id` belongs to another request.
            UrlNotAllowed: No recording can have this URL.
            QueueUnavailable: Redis cannot be reached; within seconds.
        """
        job_id = task_id or uuid()
        rejected: PermanentError | None = None
        request: JobRequest | None = None
        try:
            request = self._request(args or (), kwargs or {})
        except PermanentError as error:
            # Raising here would make a failure of the step before, whose worker publishes this one.
            if self.app.current_worker_task is None:
                raise
            rejected = error
        schedule = Schedule.of(options)
        ticket = describe_ticket(self.name, {**options, "queue": self._queue(request, options.get("queue"))})
        created = self.records.create(
            job_id,
            request,
            ticket,
            due_at=schedule.due_at,
            countdown=schedule.countdown,
            expires_at=schedule.expires_at,
            rejected=rejected,
        )
        if not created:
            self._join(job_id, request)
        elif not schedule.later:
            shown, shown_options = (request.shown, request.shown_options()) if request else ("", {})
            publish(self, JobRecord(job_id, State.QUEUED, shown=shown, options=shown_options, ticket=ticket))
        return self.AsyncResult(job_id)

    def AsyncResult(self, task_id: str, **options: Any) -> JobResult:  # noqa: N802 - Celery's name
        """The result of a job of this task, read through our own app."""
        result = JobResult(task_id, backend=self.backend, task_name=self.name, app=self.app, **options)
        result.task = self
        return result

    def signature(self, args: Any = None, *starargs: Any, **starkwargs: Any) -> Signature[Any]:
        """As Celery's; it names our queue, so that the worker of another app, for whom it is a step, finds it."""
        signature = super().signature(args, *starargs, **starkwargs)
        signature.options.setdefault("queue", ANYWHERE)
        signature.options.setdefault("priority", self.app.conf.task_default_priority)
        return signature

    subtask = signature

    def cancel(self, job_id: str) -> State | None:
        """Cancel a job. The state it was in; None where there is no such job."""
        before = self.records.cancel(job_id)
        if before in (State.QUEUED, State.DUE):
            # Whoever waits for the result hears of it now, not when a worker meets the ticket.
            record = self.records.get(job_id)
            self.backend.store_result(job_id, raisable(record.error if record else None), states.REVOKED)
        return before

    def _request(self, args: tuple[Any, ...] | list[Any], kwargs: Mapping[str, Any]) -> JobRequest:
        try:
            bound = inspect.signature(self.run).bind(*args, **kwargs)
        except TypeError as error:
            raise InvalidJob(f"{self.name.rsplit('.', 1)[-1]}: {error}") from None
        return JobRequest.check(dict(bound.arguments))

    def _queue(self, request: JobRequest | None, wanted: Any) -> str:
        """Where a job may run is decided by what it asks for; a caller may only narrow it."""
        name = getattr(wanted, "name", wanted)
        if name not in (None, ANYWHERE, LOCAL):
            raise InvalidJob(f"queue= is {ANYWHERE!r} or {LOCAL!r}, not {name!r}; leave it out")
        home = request.queue if request else ANYWHERE
        return LOCAL if LOCAL in (home, name) else home

    def _join(self, job_id: str, request: JobRequest | None) -> None:
        """A job of this id exists: the same request means that the producer could not know whether it got through."""
        record = self.records.get(job_id)
        if record is None or request is None:
            return
        if (record.shown, dict(record.options)) != (request.shown, request.shown_options()) or (
            record.request is not None and dict(record.request) != request.arguments()
        ):
            raise InvalidJob(f"task_id {job_id} belongs to a job with other arguments")
        number = self.records.renumber(job_id)
        if number is not None:
            publish(self, record, number=number)

    # The worker's side.

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the job that the current ticket names, or answer with what it ended with."""
        if self.request.called_directly:
            raise InvalidJob(f"{self.name} runs in a worker: call .delay(url) and .get() its result")
        job_id = str(self.request.id)
        if args or kwargs:
            self._record_on_arrival(job_id, args, kwargs)
        number = int(self.request.get(NUMBER_HEADER) or 0)
        outcome = self.records.take(job_id, number, f"{self.request.hostname} ({os.getpid()})")
        if outcome == "stale":
            raise Ignore("a newer ticket of this job is under way")
        record = self.records.get(job_id)
        if record is None:
            raise InvalidJob(f"there is no record of job {job_id}: it is past its retention, or Redis lost it")
        if record.state is State.DONE:
            return record.result
        if record.state is State.CANCELLED:
            self._tell_cancelled(raisable(record.error))
        if record.state.ended:
            raise raisable(record.error)
        return self._attempt(record)

    @property
    def report(self) -> Report:
        """Where the running attempt reports its progress, and hears of its cancellation."""
        report: Report = self.request.get("report")
        return report

    def _record_on_arrival(self, job_id: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """A message with arguments, sent by name: from here on the job stands in a record like any other."""
        context = self.request
        hard, soft = context.timelimit or (None, None)
        options = {
            "link": context.callbacks,
            "link_error": context.errbacks,
            "chord": context.chord,
            "chain": context.chain,
            "group_id": context.group,
            "group_index": context.group_index,
            "root_id": context.root_id,
            "parent_id": context.parent_id,
            "time_limit": hard,
            "soft_time_limit": soft,
            "ignore_result": context.ignore_result,
        }
        try:
            request, rejected = self._request(args, kwargs), None
        except PermanentError as error:
            request, rejected = None, error
        ticket = describe_ticket(self.name, {**options, "queue": self._queue(request, None)})
        self.records.create(job_id, request, ticket, rejected=rejected)

    def _attempt(self, record: JobRecord) -> Any:
        if record.request is None:
            return self._give_up(record, raisable(record.rejected))
        request = JobRequest.model_validate(dict(record.request))
        self.request.update(report=Progress(Records(self.settings), record))
        try:
            diarization = self.run(**record.request)
        except Superseded:
            raise Ignore("the job is run by another worker now") from None
        except TransientError as error:
            return self._try_again(record, _copy(error))
        except DiarizationError as error:
            return self._give_up(record, _copy(error))
        except MemoryError:
            return self._try_again(record, OutOfMemory("the worker ran out of memory"))
        except Exception as error:  # noqa: BLE001 - whatever is unknown is a bug, and ends the job as one
            trace = "".join(traceback.format_exception(error))
            logger.error("job %s: %s", record.id, scrub(trace, request.recording))
            text = scrub(f"{type(error).__name__}: {error}", request.recording)
            return self._give_up(record, InternalError(text))
        return self._finish(record, diarization)

    def _finish(self, record: JobRecord, diarization: Diarization) -> Mapping[str, Any]:
        waited = (record.started_at or record.submitted_at) - record.submitted_at
        provenance = diarization.provenance.model_copy(
            update={"attempts": record.attempts, "queue_seconds": round(max(0.0, waited), 3)}
        )
        result = diarization.model_copy(update={"provenance": provenance}).to_json()
        self._store(lambda: self.records.finish(record.id, record.token, result))
        seconds = time.time() - (record.started_at or time.time())
        logger.info(
            "job %s done: %s, %.1f s of audio, %d speakers, %d turns, in %.1f s (attempt %d)",
            record.id,
            record.shown,
            diarization.audio_seconds,
            len(diarization.speakers),
            len(diarization.segments),
            seconds,
            record.attempts,
        )
        return result

    def _try_again(self, record: JobRecord, error: DiarizationError) -> NoReturn:
        most = self.settings.queue_max_attempts
        if record.attempts >= most:
            self._give_up(record, error)
        wait_seconds = backoff_seconds(
            record.attempts, self.settings.queue_retry_base_seconds, self.settings.queue_retry_cap_seconds
        )
        self._store(lambda: self.records.retry(record.id, record.token, wait_seconds, error))
        reason = f"attempt {record.attempts} of {most}, again in {wait_seconds:.0f} s: {error.code}: {error.message}"
        raise Retry(reason, exc=error)

    def _give_up(self, record: JobRecord, error: DiarizationError) -> NoReturn:
        self._store(lambda: self.records.give_up(record.id, record.token, error))
        if isinstance(error, Cancelled):
            self._tell_cancelled(error)
        raise error

    def _tell_cancelled(self, error: DiarizationError) -> NoReturn:
        """End a cancelled job as Celery ends a revoked one: its chord hears of it, its errbacks do not."""
        self.backend.store_result(str(self.request.id), error, states.REVOKED, request=self.request)
        if self.request.chord:
            self.backend.on_chord_part_return(self.request, states.REVOKED, error)
        self.send_event("task-revoked", terminated=False, signum=None, expired=False)
        raise Ignore(error.message)

    def _store(self, write: Callable[[], str]) -> None:
        """Write how the attempt ended; wait for Redis rather than throw the work away."""
        wait_seconds = 0.5
        while True:
            try:
                outcome = write()
                break
            except QueueUnavailable as error:
                logger.warning("job %s has ended; its end cannot be stored yet: %s", self.request.id, error)
                time.sleep(wait_seconds)
                wait_seconds = min(5.0, wait_seconds * 2)
        if outcome == "stale":
            raise Ignore("the job is run by another worker now")


def backoff_seconds(attempt: int, base_seconds: float, cap_seconds: float) -> float:
    """Wait after attempt number `attempt`: doubles each time up to the cap, and half of it is jitter."""
    return float(min(cap_seconds, base_seconds * 2 ** (attempt - 1)) * random.uniform(0.5, 1.0))  # noqa: S311


def _copy(error: DiarizationError) -> DiarizationError:
    """The error anew, without the frames and causes that a traceback would show."""
    return type(error)(error.message)
