"""Messages with arguments, sent by name and not by `delay`: where they arrive, they get a record like any other job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from celery.exceptions import Ignore

from diarization.errors import PermanentError
from tasks.answer import AnsweringTask
from tasks.job import ANYWHERE, LOCAL, RUNPOD
from tasks.producer import another_request
from tasks.record import JobRecord, State
from tasks.schedule import Schedule
from tasks.submission import NewJob
from tasks.tickets import describe_ticket, publish

NOT_FOR: Mapping[str, str] = {"bridge": LOCAL, "gpu": RUNPOD}
"""The queue whose jobs a worker of that role must not do. Whoever writes a message may put it where it does not belong,
and then a recording that must stay in the house would leave it."""


class ArrivingTask(AnsweringTask):
    """A task whose worker makes the records that no producer has made."""

    abstract = True

    def record_on_arrival(self, job_id: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """From here on the job stands in a record.

        Raises:
            Ignore: It is for a worker of another role, and has been sent on.
        """
        schedule = Schedule.of({"expires": self.request.expires})
        try:
            request = self._request(args, kwargs)
            queue = self._queue(request, None)
            ticket = describe_ticket(self.name, {**self._options(), "queue": queue})
            submission = self._wait(lambda: self.records.create(NewJob(job_id, request, ticket, schedule)))
            if submission.outcome != "differs":
                self._keep_or_send_on(job_id, queue)
                return
            rejected: PermanentError = another_request(submission)
        except PermanentError as error:
            rejected = error
        ticket = describe_ticket(self.name, {**self._options(), "queue": ANYWHERE})
        self._wait(lambda: self.records.create(NewJob(job_id, None, ticket, rejected=rejected)))

    def send_on(self, record: JobRecord) -> NoReturn:
        """The job is for a worker of another role, and first in line there."""
        number = self._wait(lambda: self.records.renumber(record.id))
        if number is not None:
            self._wait(lambda: publish(self, record, number=number, again=True))
        raise Ignore("the job is for a worker of another role")

    def _keep_or_send_on(self, job_id: str, queue: str) -> None:
        if queue != NOT_FOR[self.settings.worker_role]:
            return
        record = self._wait(lambda: self.records.get(job_id))
        if record is not None and record.state is State.QUEUED:
            self.send_on(record)

    def _options(self) -> dict[str, Any]:
        """The options of `apply_async` that the message stands for."""
        context = self.request
        hard, soft = context.timelimit or (None, None)
        return {
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
