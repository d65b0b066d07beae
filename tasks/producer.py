"""The producer's side of a task: a job's record is written before its ticket is published."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

from celery import Task, states
from celery.canvas import Signature
from celery.result import AsyncResult
from celery.utils import uuid

from diarization.errors import InvalidJob, PermanentError
from tasks.fleet import Fleet
from tasks.job import ANYWHERE, LOCAL, RUNPOD, JobRequest
from tasks.record import JobRecord, State, raisable
from tasks.records import Records, Submission
from tasks.schedule import Schedule
from tasks.server import connect, reachable
from tasks.settings import Settings, current_settings
from tasks.snapshot import Position
from tasks.tickets import describe_ticket, publish

_JOB_ID = re.compile(r"[\x21-\x7e]{1,200}")
_TIES = ("link", "link_error", "chain", "chord", "group_id", "group_index", "reply_to")
"""What ties a job to others, which wait for it under its own id."""


def another_request(submission: Submission) -> InvalidJob:
    """The error of an idempotency key that belongs to another request."""
    return InvalidJob(f"idempotency_key= belongs to job {submission.job_id}, which asks for something else")


class JobResult(AsyncResult[Any]):
    """Celery's AsyncResult, whose `revoke` also reaches jobs that no worker holds, and survives restarts."""

    task: SubmittedTask

    def revoke(self, *_args: Any, **_options: Any) -> None:
        """Cancel the job: a waiting one never starts, a running one stops after its current batch."""
        self.task.cancel(self.id)


class SubmittedTask(Task[Any, Any]):
    """A Celery task whose jobs stand in records; its worker's side is `tasks.guard.GuardedTask`."""

    abstract = True
    typing = False

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

    def apply_async(  # type: ignore[override]  # a caller may pass whatever Celery's takes
        self,
        args: tuple[Any, ...] | list[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        task_id: str | None = None,
        **options: Any,
    ) -> JobResult:
        """Submit a job, with the options of Celery's `apply_async`.

        Submitting again with a `task_id` that exists is safe: the same request joins the job that stands. So does one
        with an `idempotency_key` that is known, and the result is then the first job's. With callbacks, in a group, a
        chain or a chord, or with a `task_id` of its own it stays a job of its own, which ends as the first one does.

        Raises:
            InvalidJob: The arguments make no sense, or `task_id` or `idempotency_key` belongs to another request.
            UrlNotAllowed: No recording can have this URL.
            QueueUnavailable: Redis cannot be reached; within seconds.
        """
        job_id = task_id or uuid()
        try:
            request = self._checked(job_id, args or (), kwargs or {})
            schedule = Schedule.of(options)
            ticket = describe_ticket(self.name, {**options, "queue": self._queue(request, options.get("queue"))})
            # With callbacks, a webhook or a place in a group it must end by itself; else the one that stands may do.
            own_end = any(options.get(name) for name in _TIES) or request.webhook is not None
            shares = task_id is None and not own_end
            submission = self.records.create(job_id, request, ticket, schedule, shares=shares)
            if submission.outcome == "differs":
                raise another_request(submission)
        except PermanentError as error:
            # Raising here would make a failure of the step before, whose worker publishes this one.
            if self.app.current_worker_task is None:
                raise
            request = None
            ticket = describe_ticket(self.name, {**options, "queue": ANYWHERE})
            submission = self.records.create(job_id, None, ticket, rejected=error)
            schedule = Schedule()
        if submission.outcome == "exists":
            self._join(job_id, request)
        elif submission.outcome == "created" and not schedule.later:
            shown, shown_options = (request.shown, request.shown_options()) if request else ("", {})
            publish(self, JobRecord(job_id, State.QUEUED, shown=shown, options=shown_options, ticket=ticket))
        elif submission.outcome == "same":
            job_id = submission.job_id
        result = self.AsyncResult(job_id)
        result.ignored = bool(options.get("ignore_result", self.ignore_result))
        return result

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
            with reachable():
                self.backend.store_result(job_id, raisable(record.error if record else None), states.REVOKED)
            if record is not None and before is State.DUE:
                # A worker must meet its ticket for a chord to hear of it, and so far it has none.
                publish(self, record, again=True)
        return before

    def position(self, job: JobResult | str) -> Position:
        """Where a job, or the one of this id, stands: its place in the line and when it will be done.

        Raises:
            QueueUnavailable: Redis cannot be reached.
        """
        client = connect(self.settings, patient=self.patient)
        return Fleet(client, self.settings).position(job if isinstance(job, str) else job.id)

    def _checked(self, job_id: str, args: tuple[Any, ...] | list[Any], kwargs: Mapping[str, Any]) -> JobRequest:
        if not _JOB_ID.fullmatch(job_id):
            raise InvalidJob("task_id= is 1 to 200 letters, digits and marks, without spaces")
        return self._request(args, kwargs)

    def _request(self, args: tuple[Any, ...] | list[Any], kwargs: Mapping[str, Any]) -> JobRequest:
        try:
            bound = inspect.signature(self.run).bind(*args, **kwargs)
        except TypeError as error:
            raise InvalidJob(f"{self.name.rsplit('.', 1)[-1]}: {error}") from None
        bound.apply_defaults()
        return JobRequest.check(dict(bound.arguments))

    def _queue(self, request: JobRequest | None, wanted: Any) -> str:
        """Where a job may run is decided by what it asks for; a caller may only narrow it."""
        name = getattr(wanted, "name", wanted)
        if name not in (None, ANYWHERE, LOCAL):
            raise InvalidJob(f"queue= is {ANYWHERE!r} or {LOCAL!r}, not {name!r}; leave it out")
        home = request.queue(self.settings.overflow_reachable_networks) if request else ANYWHERE
        if home == RUNPOD and name == LOCAL:
            raise InvalidJob(f"queue={LOCAL!r} keeps a job in the house, provider='runpod' does not")
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
