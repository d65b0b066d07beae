"""The producer's side of a task: a job's record is written before its ticket is published."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

from celery import Task, states
from celery.canvas import Signature
from celery.utils import uuid

from diarization.errors import InvalidJob, PermanentError
from tasks.fleet import Fleet
from tasks.foresight import Foresight
from tasks.job import ANYWHERE, BATCH_PRIORITY, LOCAL, RUNPOD, JobRequest
from tasks.job_result import JobResult
from tasks.record import State, raisable
from tasks.records import Records, once_told
from tasks.schedule import Schedule
from tasks.server import connect, reachable
from tasks.settings import Settings, current_settings
from tasks.snapshot import Position
from tasks.submission import NewJob, Submission
from tasks.tickets import describe_ticket, publish, publish_many

logger = logging.getLogger(__name__)

BULK_JOBS = 500
"""So many records, and then so many tickets, go to Redis at once: about a megabyte each time."""

_JOB_ID = re.compile(r"[\x21-\x7e]{1,200}")
_TIES = ("link", "link_error", "chain", "chord", "group_id", "group_index", "reply_to")
"""What ties a job to others, which wait for it under its own id."""


def another_request(submission: Submission) -> InvalidJob:
    """The error of an idempotency key that belongs to another request."""
    return InvalidJob(f"idempotency_key= belongs to job {submission.job_id}, which asks for something else")


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

        Args:
            args: The arguments of `delay`, by place.
            kwargs: And by name.
            task_id: The job's id, 1 to 200 letters, digits and marks; one is made up where it is None.
            options: Celery's, such as `priority` (0 is first in line, 6 the default, 9 last), `countdown` (seconds),
                `eta`, `expires` (seconds or a time), `link`, `link_error`.

        Raises:
            InvalidJob: The arguments make no sense, or `task_id` or `idempotency_key` belongs to another request.
            UrlNotAllowed: No recording can have this URL.
            QueueUnavailable: Redis cannot be reached; within seconds.
        """
        try:
            job = self._new_job(args or (), kwargs or {}, task_id, options)
            submission = self.records.create(job)
            if submission.outcome == "differs":
                raise another_request(submission)
        except PermanentError as error:
            # Raising here would make a failure of the step before, whose worker publishes this one.
            if self.app.current_worker_task is None:
                raise
            ticket = describe_ticket(self.name, {**options, "queue": ANYWHERE})
            job = NewJob(task_id or uuid(), None, ticket, rejected=error)
            submission = self.records.create(job)
        if submission.outcome == "exists":
            self._join(job.id, job.request)
        elif submission.outcome == "created" and not job.schedule.later:
            publish(self, job.record())
        return self._results([job], [submission], options)[0]

    def submit_many(
        self,
        recordings: Iterable[str | Mapping[str, Any]],
        *,
        priority: int = BATCH_PRIORITY,
        **options: Any,
    ) -> list[JobResult]:
        """Submit many recordings at once, behind all single jobs; their results, in the same order.

        They cost a few round trips for each `BULK_JOBS` of them. Nothing is submitted unless each of them can be. Where
        Redis goes away meanwhile, some are: those with an `idempotency_key` can be submitted again without harm.

        Args:
            recordings: URLs, or mappings of the arguments of `delay` where a recording needs some of its own.
            priority: 0 is first in line, 9 last.
            options: Of `apply_async`, for each of them.

        Raises:
            InvalidJob: The arguments of one make no sense (nothing has been submitted then), or its `idempotency_key`
                belongs to another request (the others have been submitted).
            UrlNotAllowed: No recording can have one of these URLs.
            QueueUnavailable: Redis cannot be reached.
        """
        options = {**options, "priority": priority}
        if "task_id" in options:
            raise InvalidJob("task_id= names one job; in bulk, idempotency_key= tells one from another")
        jobs = self._new_jobs(list(recordings), options)
        results: list[JobResult] = []
        refused: list[str] = []
        for begin in range(0, len(jobs), BULK_JOBS):
            some = jobs[begin : begin + BULK_JOBS]
            submissions = self.records.create_many(some)
            pairs = list(zip(some, submissions, strict=True))
            fresh = [job for job, submission in pairs if submission.outcome == "created" and not job.schedule.later]
            publish_many(self, [job.record() for job in fresh])
            results += self._results(some, submissions, options)
            refused += [
                f"recording {begin + index}: {another_request(submission).message}"
                for index, (_, submission) in enumerate(pairs, 1)
                if submission.outcome == "differs"
            ]
        if refused:
            raise InvalidJob(f"{'; '.join(refused[:5])}; the other {len(jobs) - len(refused)} have been submitted")
        return results

    def AsyncResult(self, task_id: str, **options: Any) -> JobResult:  # noqa: N802 - Celery's name
        """The result of the job of this id, read through our own app; Redis is asked for nothing yet."""
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
        """Cancel the job of this id: a waiting one never starts, a running one stops after its current batch.

        Returns:
            The state it was in; None where there is no such job. One that has ended stays as it is.

        Raises:
            QueueUnavailable: Redis cannot be reached.
        """
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

    def delete(self, job: JobResult | str) -> bool:
        """Forget an ended job, or the one of this id, with all that is stored of it; whether there was one.

        Its record, result, error and webhook go, and its idempotency key is free again. It cannot be replayed.

        Raises:
            InvalidJob: The job has not ended, or who waits for it is just being told so.
            QueueUnavailable: Redis cannot be reached.
        """
        job_id = job if isinstance(job, str) else job.id
        outcome = once_told(job_id, lambda: self.records.delete(job_id))
        if outcome not in ("deleted", "missing"):
            raise InvalidJob(f"job {job_id} is {outcome}: cancel it, and delete it once it has ended")
        with reachable():
            self.backend.forget(job_id)
        return outcome == "deleted"

    def position(self, job: JobResult | str) -> Position:
        """Where a job, or the one of this id, stands: its place in the line and when it will be done.

        Raises:
            QueueUnavailable: Redis cannot be reached.
        """
        return self._fleet.position(job if isinstance(job, str) else job.id)

    @cached_property
    def _fleet(self) -> Fleet:
        return Fleet(connect(self.settings, patient=self.patient), self.settings)

    @cached_property
    def _foresight(self) -> Foresight:
        return Foresight(self._fleet)

    def _new_jobs(self, recordings: Sequence[str | Mapping[str, Any]], options: Mapping[str, Any]) -> list[NewJob]:
        jobs = []
        for number, recording in enumerate(recordings, 1):
            args, kwargs = ((recording,), {}) if isinstance(recording, str) else ((), recording)
            try:
                if not isinstance(kwargs, Mapping):
                    raise InvalidJob(f"is neither a URL nor a mapping, but a {type(recording).__name__}")
                jobs.append(self._new_job(args, kwargs, None, options))
            except PermanentError as error:
                where = f"recording {number} of {len(recordings)}"
                raise type(error)(f"{where}: {error.message}; nothing was submitted") from None
        return jobs

    def _new_job(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], task_id: str | None, options: Mapping[str, Any]
    ) -> NewJob:
        if task_id is not None and not _JOB_ID.fullmatch(task_id):
            raise InvalidJob("task_id= is 1 to 200 letters, digits and marks, without spaces")
        request = self._request(args, kwargs)
        ticket = describe_ticket(self.name, {**options, "queue": self._queue(request, options.get("queue"))})
        # With callbacks, a webhook or a place in a group it must end by itself; else the one that stands may do.
        own_end = any(options.get(name) for name in _TIES) or request.webhook is not None
        shares = task_id is None and not own_end
        return NewJob(task_id or uuid(), request, ticket, Schedule.of(options), shares=shares)

    def _results(
        self, jobs: Sequence[NewJob], submissions: Sequence[Submission], options: Mapping[str, Any]
    ) -> list[JobResult]:
        created = [job for job, submission in zip(jobs, submissions, strict=True) if submission.outcome == "created"]
        # A worker that publishes the next step of a chain has nobody to warn.
        warnings = self._foresight.warnings(created) if self.app.current_worker_task is None else {}
        for job_id, text in warnings.items():
            logger.warning("job %s: %s", job_id, text)
        results = []
        for job, submission in zip(jobs, submissions, strict=True):
            result = self.AsyncResult(submission.job_id if submission.outcome == "same" else job.id)
            result.ignored = bool(options.get("ignore_result", self.ignore_result))
            result.warning = warnings.get(job.id)
            results.append(result)
        return results

    def _request(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> JobRequest:
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
