"""Celery's side of a job's end: callbacks, chain, result, chord, in this order, and each once.

The record says how a job has ended before Celery hears of it. A worker that dies in between leaves the rest to a copy
of the ticket, and that is why each step can be done twice: callbacks have ids that stay the same, a result is stored
once, a chord keeps who has been counted. `answered` says that all of it has been done; a job of which nobody has said
so gets another ticket from the fleet's leader (`tasks.chores`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn, TypeVar
from uuid import NAMESPACE_OID, uuid5

from celery import chord, states
from celery.canvas import Signature
from celery.exceptions import Ignore
from celery.utils import uuid

from diarization.errors import DiarizationError, QueueUnavailable
from tasks.backend import passes, wait_for_redis
from tasks.job_result import JobResult
from tasks.producer import SubmittedTask
from tasks.record import JobRecord, State, raisable
from tasks.tickets import ticket_number

logger = logging.getLogger(__name__)

T = TypeVar("T")


class AnsweringTask(SubmittedTask):
    """A task whose jobs have ended in their records before Celery hears of it."""

    abstract = True

    def apply_async(  # type: ignore[override]  # as the one it extends
        self,
        args: tuple[Any, ...] | list[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        task_id: str | None = None,
        **options: Any,
    ) -> JobResult:
        """As a producer's; in a worker it waits for Redis, because there it is Celery that publishes a chord's body."""
        submit = super().apply_async
        if not self.patient:
            return submit(args, kwargs, task_id, **options)
        job_id = task_id or uuid()
        return self._wait(lambda: submit(args, kwargs, job_id, **options))

    def after_return(self, *_args: Any) -> None:
        """Celery's hook, in a pool child: it has stored the end and counted it."""
        number = ticket_number(self.request)
        self._wait(lambda: self.records.answered(str(self.request.id), number))

    def answer_ended(self, record: JobRecord) -> Any:
        """Tell Celery how a job has ended before, or only what it has not been told.

        Raises:
            DiarizationError: What the job ended with.
            Ignore: It was cancelled.
        """
        if record.answered:
            self.request.update(callbacks=None, errbacks=None, chain=None, chord=None)
        if record.state is State.DONE:
            if self.backend.get_state(record.id) == states.SUCCESS:
                # Celery has stored it, hence published its callbacks; only its chord may not have been told.
                self.request.update(callbacks=None, chain=None)
            return self.answer(record.result)
        if record.state is State.CANCELLED and record.answered:
            raise Ignore("the job was cancelled, and that has been told")
        if record.state is State.CANCELLED:
            self.tell_cancelled(raisable(record.error))
        raise raisable(record.error)

    def answer(self, result: Any) -> Any:
        """Publish callbacks and the chain's next step here, then leave the result to Celery.

        Celery publishes them before it stores the result, and makes a failure of a job whose callback cannot be
        published; but the job has been done, whatever becomes of its callbacks.
        """
        context = self.request
        steps = list(self._steps())
        context.update(callbacks=None, chain=None)
        for step, rest in steps:
            try:
                self._wait(lambda step=step, rest=rest: self._publish_step(step, rest, result))  # type: ignore[misc]
            except Exception as error:  # noqa: BLE001 - it is the callback's error, of whatever kind
                logger.error(
                    "job %s is done, but %s cannot be called: %s", context.id, step.get("task"), type(error).__name__
                )
        return result

    def _steps(self) -> Iterator[tuple[Signature[Any], dict[str, Any]]]:
        """Callbacks, then the chain's next step, with options; by an id that stays a second try is no second job."""
        context = self.request
        for index, callback in enumerate(context.callbacks or []):
            yield pinned(self.app.signature(callback), f"{context.id}/{index}"), {}
        if context.chain:
            yield self.app.signature(context.chain[-1]), {"chain": context.chain[:-1]}

    def _publish_step(self, step: Signature[Any], rest: dict[str, Any], result: Any) -> None:
        """Publish it.

        Raises:
            QueueUnavailable: Redis cannot be used now.
        """
        context = self.request
        try:
            step.apply_async((result,), parent_id=context.id, root_id=context.root_id or context.id, **rest)
        except Exception as error:
            if not passes(error):
                raise
            raise QueueUnavailable(f"a callback cannot be published: {type(error).__name__}") from None

    def tell_cancelled(self, error: DiarizationError) -> NoReturn:
        """End a cancelled job as Celery ends a revoked one: its chord hears of it, its errbacks do not."""
        self.backend.store_result(str(self.request.id), error, states.REVOKED, request=self.request)
        if self.request.chord:
            self.backend.on_chord_part_return(self.request, states.REVOKED, error)
        self.send_event("task-revoked", terminated=False, signum=None, expired=False)
        # Celery calls `after_return` of no task that is ignored.
        self.after_return()
        raise Ignore(error.message)

    def _wait(self, call: Callable[[], T]) -> T:
        """What `call` gives; while Redis cannot be used, wait for it rather than throw a job or its result away."""
        return wait_for_redis(call, f"job {self.request.id}")


def pinned(signature: Any, name: str) -> Any:
    """`signature` with an id for each task in it that has none: published twice, they are the same."""
    parts = [*signature.tasks, signature.body] if isinstance(signature, chord) else getattr(signature, "tasks", ())
    for number, part in enumerate(parts):
        pinned(part, f"{name}/{number}")
    if not parts:
        signature.options.setdefault("task_id", str(uuid5(NAMESPACE_OID, name)))
    return signature
