"""The worker's side of a task, which keeps the promise: nothing lost, nothing run twice.

A worker that meets a ticket takes the job it names, counts the attempt, and ends it by one write: with a result, with a
typed error, or by letting it wait for another attempt.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import cached_property
from typing import Any, ClassVar, NoReturn

from billiard.pool import SIG_SOFT_TIMEOUT, soft_timeout_sighandler
from celery.exceptions import Ignore, Retry, SoftTimeLimitExceeded

from diarization.diarizer import Report
from diarization.errors import (
    Cancelled,
    DiarizationError,
    InternalError,
    InvalidJob,
    NoRoom,
    OutOfMemory,
    OverflowClosed,
    OverflowLost,
    OverflowUnavailable,
    TimeLimitReached,
    TransientError,
    WorkerTooOld,
)
from diarization.recording import scrub
from diarization.turns import Diarization
from tasks.arrival import ArrivingTask
from tasks.job import JobRequest
from tasks.loading import Provider, loaded
from tasks.losses import Losses
from tasks.progress import Progress, Reports, Superseded
from tasks.pulse import Pulse
from tasks.record import JobRecord, State, end_of, raisable
from tasks.records import Records, worker_name
from tasks.registry import Registry
from tasks.room import Room
from tasks.schedule import backoff_seconds
from tasks.server import connect
from tasks.speed import Speed
from tasks.tickets import ticket_number

logger = logging.getLogger(__name__)

ELSEWHERE_SECONDS = 30.0
"""Between looks for a worker that can do the job, where the one that met it cannot."""


class GuardedTask(ArrivingTask):
    """A Celery task that keeps the promise; see the module."""

    abstract = True
    throws = (DiarizationError,)
    resultrepr_maxsize = 64
    Request = "tasks.delivered:DeliveredJob"

    main_pid: ClassVar[int] = os.getpid()
    """Of the process that holds this one's jobs; a pool child sets it to its parent's."""
    pulse: ClassVar[Pulse | None] = None
    """Of a pool child: how its main process sees that it does not hang."""
    losses: ClassVar[Losses | None] = None
    """Of a pool child: how its main process hears that its GPU has failed."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the job that the current ticket names, or answer with what it ended with."""
        if self.request.called_directly:
            raise InvalidJob(f"{self.name} runs in a worker: call .delay(url) and .get() its result")
        job_id = str(self.request.id)
        if args or kwargs:
            self.record_on_arrival(job_id, args, kwargs)
        number = ticket_number(self.request)
        outcome = self._wait(
            lambda: self.records.take(job_id, number, worker_name(str(self.request.hostname), self.main_pid))
        )
        if outcome == "stale":
            raise Ignore("a newer ticket of this job is under way")
        if outcome == "held":
            raise Ignore("the job is run by another worker now")
        if outcome == "follows":
            raise Ignore("the job waits for the first one of its idempotency key")
        record = self._wait(lambda: self.records.get(job_id))
        if outcome == "elsewhere" and record is not None:
            self.send_on(record)
        if record is None:
            raise InvalidJob(f"there is no record of job {job_id}: it is past its retention, or Redis lost it")
        if record.state.ended:
            return self.answer_ended(record)
        return self._attempt(record)

    @cached_property
    def hasty_records(self) -> Records:
        """For what may fail: progress is not worth a wait, nor is a hand-back, for which there is the lease."""
        return Records(self.settings)

    @cached_property
    def _registry(self) -> Registry:
        return Registry(connect(self.settings, patient=False), self.settings)

    @property
    def report(self) -> Report:
        """Where the running attempt reports its progress, and hears of its cancellation."""
        report: Report = self.request.get("report")
        return report

    def diarize(self, **arguments: Any) -> Diarization:
        """The attempt's work, by the diarizer of this process.

        A provider's is told of the job, in whose record it keeps what it has begun.
        """
        request, loaded_here = JobRequest.of_record(arguments), loaded()
        diarizer = loaded_here.of(self.request.get("record")) if isinstance(loaded_here, Provider) else loaded_here
        return diarizer.diarize(request.recording, request.hints, self.report)

    def _attempt(self, record: JobRecord) -> Any:
        began = time.monotonic()
        outcome = (
            self._run(record, record.request)
            if record.request is not None and record.rejected is None
            else raisable(record.rejected)
        )
        if isinstance(outcome, Superseded):
            raise Ignore(outcome.message)
        if self.losses:
            self.losses.learn(outcome)
        if isinstance(outcome, TransientError):
            self._try_again(record, outcome)
        if isinstance(outcome, DiarizationError):
            self._give_up(record, outcome)
        result, stored = outcome
        by = result["provenance"]
        work = Speed(result["audio_seconds"], time.monotonic() - began, by["stage_seconds"])
        self._store(lambda: self.records.finish(record.id, record.token, stored, work, by["provider"]), State.DONE)
        logger.info(
            "job %s done: %s, %.1f s of audio, %d speakers, %d turns, in %.1f s (attempt %d)",
            record.id,
            record.shown,
            result["audio_seconds"],
            len(result["speakers"]),
            len(result["segments"]),
            time.time() - (record.started_at or time.time()),
            record.attempts,
        )
        return self.answer(result)

    def _run(self, record: JobRecord, arguments: Mapping[str, Any]) -> tuple[dict[str, Any], str] | DiarizationError:
        """The attempt's result, also as the record keeps it, or an error.

        An error is made anew: frames and causes of the one caught may hold secrets.
        """
        try:
            recording = JobRequest.of_record(arguments).recording
        except WorkerTooOld as error:
            return error
        try:
            with self._soft_limit(), self.pulse.of(record.id) if self.pulse else nullcontext():
                report = Reports(*self._listeners(record), Progress(self.hasty_records, record))
                self.request.update(report=report, record=record)
                return self._result(record, self.run(**arguments))
        except (NoRoom, OverflowClosed, OverflowUnavailable, OverflowLost) as error:
            return error  # made for this job, and more than their message
        except DiarizationError as error:
            return type(error)(scrub(error.message, recording))
        except MemoryError:
            return OutOfMemory("the worker ran out of memory")
        except SoftTimeLimitExceeded:
            return TimeLimitReached("the soft_time_limit is over")
        except Exception as error:  # noqa: BLE001 - whatever is unknown is a bug, and ends the job as one
            trace = "".join(traceback.format_exception(error))
            logger.error("job %s: %s", record.id, scrub(trace, recording))
            return InternalError(scrub(f"{type(error).__name__}: {error}", recording))

    def _listeners(self, record: JobRecord) -> list[Report]:
        """Who else hears of progress: of a bridge nobody, whose memory is not what the job needs."""
        if self.settings.worker_role == "bridge":
            return []
        room = Room(self._registry, self.pulse, record.needs_bytes)
        return [self.pulse, room] if self.pulse else [room]

    @contextmanager
    def _soft_limit(self) -> Iterator[None]:
        """Hear of a `soft_time_limit` in this block alone: what follows may wait for Redis, and is no work."""
        if self.pulse is None:  # not in a pool child: nobody sends that signal
            yield
            return
        signal.signal(SIG_SOFT_TIMEOUT, soft_timeout_sighandler)
        try:
            yield
        finally:
            signal.signal(SIG_SOFT_TIMEOUT, signal.SIG_IGN)

    def _result(self, record: JobRecord, diarization: Diarization) -> tuple[dict[str, Any], str]:
        """What the job answers with, and the same as JSON."""
        started_at = record.started_at or record.submitted_at
        provenance = diarization.provenance.model_copy(
            update={
                "attempts": record.attempts,
                "queue_seconds": round(max(0.0, started_at - record.submitted_at), 3),
                "cost_usd": round(diarization.provenance.cost_usd + record.cost_usd, 6),
            }
        )
        result = diarization.model_copy(update={"provenance": provenance}).to_json()
        return result, json.dumps(result, allow_nan=False)

    def _try_again(self, record: JobRecord, error: TransientError) -> NoReturn:
        most, cap_seconds = self.settings.queue_max_attempts, self.settings.queue_retry_cap_seconds
        if error.counts and record.attempts >= most:
            self._give_up(record, error)
        elif error.wait_seconds is not None:
            wait_seconds = error.wait_seconds
        elif not error.counts:
            wait_seconds = min(cap_seconds, ELSEWHERE_SECONDS)
        else:
            wait_seconds = backoff_seconds(record.attempts, self.settings.queue_retry_base_seconds, cap_seconds)
        self._store(lambda: self.records.retry(record.id, record.token, wait_seconds, error), State.DUE)
        logger.info(
            "job %s waits %.1f s for attempt %d of %d: %s: %s",
            record.id,
            wait_seconds,
            record.attempts + 1,
            most,
            error.code,
            error.message,
        )
        reason = f"attempt {record.attempts} of {most}, again in {wait_seconds:.0f} s: {error.code}: {error.message}"
        raise Retry(reason, exc=error)

    def _give_up(self, record: JobRecord, error: DiarizationError) -> NoReturn:
        self._store(lambda: self.records.give_up(record.id, record.token, error), end_of(error))
        if isinstance(error, Cancelled):
            logger.info("job %s cancelled: %s", record.id, record.shown)
            self.tell_cancelled(error)
        logger.warning(
            "job %s dead: %s: %s: %s (attempt %d)",
            record.id,
            record.shown,
            error.code,
            error.message,
            record.attempts,
        )
        raise error

    def _store(self, write: Callable[[], str], state: State) -> None:
        """Write how the attempt ended, unless somebody else runs the job by now or has ended it.

        A record that Redis has lost is no reason to throw the result away.
        """
        outcome = self._wait(write)
        if outcome not in (state, "missing"):
            raise Ignore("the job is run by another worker now" if outcome == "stale" else f"the job is {outcome}")
