"""A `Diarizer` that has one job done by a RunPod endpoint, once.

What it has begun stands in the job's record and in the ledger before RunPod hears of it, in this order: budget
reserved, intent written, submitted by one POST, RunPod's id stored, and only then the first look at the status. So a
bridge that comes after a crash finds the run again and pays for no second one. Where nobody can know whether RunPod
accepted a job, the reservation is booked as spent, and the job is done at home.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, NoReturn, TypeVar
from uuid import uuid4

from diarization.diarizer import Report
from diarization.errors import (
    OverflowClosed,
    OverflowLost,
    OverflowRejected,
    OverflowUnavailable,
    QueueUnavailable,
)
from diarization.recording import Recording, scrub
from diarization.turns import Diarization, SpeakerHints
from tasks.backend import wait_for_redis
from tasks.job import RUNPOD
from tasks.progress import Superseded
from tasks.record import JobRecord
from tasks.remote import RemoteRun
from tasks.runpod.api import Answer, Kind
from tasks.runpod.endpoint import Endpoint
from tasks.runpod.run import Ended, Run

logger = logging.getLogger(__name__)

T = TypeVar("T")

PINNED_WAIT_SECONDS = 15.0
"""Between looks for budget or room, of a job that only RunPod may do."""
CURES: Mapping[int, str] = {
    401: "RunPod refuses the key: check RUNPOD_API_KEY",
    403: "the key may not use this endpoint: check RUNPOD_API_KEY's permissions",
    404: "RunPod knows no such endpoint: check RUNPOD_ENDPOINT_ID and RUNPOD_ENDPOINT_BASE_URL",
}


class RemoteDiarizer:
    """One attempt of one job."""

    def __init__(self, endpoint: Endpoint, record: JobRecord) -> None:
        self._endpoint = endpoint
        self._record = record
        self._pinned = record.ticket["options"].get("queue") == RUNPOD

    def diarize(self, recording: Recording, hints: SpeakerHints, report: Report) -> Diarization:
        """See `diarization.diarizer.Diarizer`.

        Raises:
            OverflowClosed: It is not to be done by RunPod now.
            OverflowUnavailable: RunPod did not take it.
            OverflowLost: RunPod did not do it, or cannot be known to.
            OverflowRejected: Only RunPod may do it, and will not.
        """
        remote = self._record.remote
        if remote is None:
            remote = self._submit(recording, hints)
        elif remote.run_id is None:
            self._unknown(remote, "a bridge stopped while it submitted the job")
        else:
            logger.info("job %s is found again as run %s", self._record.id, remote.run_id)
        api = self._endpoint.api(remote.base_url, remote.endpoint_id)
        endpoint = self._endpoint
        run = Run(
            remote,
            api,
            left_seconds=remote.gone_at - self._patiently(endpoint.now),
            stopping=endpoint.stopping,
            reclaimed=(lambda: False) if self._pinned else self._wanted_at_home,
            alarm=self._alarm,
        )
        try:
            end = run.follow(report)
        except (Superseded, OverflowClosed):
            raise
        except Exception:  # a cancel, or a bug: whatever it is, the run must not go on, nor its reservation stay
            self._settle(remote, run.stop())
            raise
        return self._close(remote, end, recording)

    def _submit(self, recording: Recording, hints: SpeakerHints) -> RemoteRun:
        thought = self._intend()
        self._reserve(thought)
        remote = replace(thought, is_sent=True, intended_at=self._patiently(self._endpoint.now))
        try:
            self._note(remote)
        except Superseded:
            # Whoever runs the job by now may have released it before it was reserved here.
            self._patiently(lambda: self._endpoint.ledger.release(thought.attempt_id))
            raise
        answer = self._endpoint.api(remote.base_url, remote.endpoint_id).run(_body(remote, recording, hints))
        run_id = answer.body.get("id") if answer.kind is Kind.OK and answer.body else None
        if isinstance(run_id, str) and run_id:
            return self._accepted(remote, run_id)
        if answer.kind in (Kind.REFUSED, Kind.UNREACHABLE):
            self._refused(remote, answer, recording)
        return self._unknown(remote, answer.says or "RunPod's answer names no id")

    def _intend(self) -> RemoteRun:
        """Note that there will be a run, unless RunPod gets none."""
        endpoint, price, settings = self._endpoint, self._endpoint.price, self._endpoint.settings
        if halted := self._patiently(endpoint.orders.read).halted:
            self._not_now(OverflowClosed(f"paused {halted}"), ends_by_deadline=False)
        if broken := self._patiently(endpoint.breaker.state):
            self._not_now(OverflowUnavailable(broken.why))
        # The length that the caller expects is believed once: the attempt before may have shown that it was too short.
        expected = self._record.audio_seconds if self._record.attempts == 1 else None
        timeout = price.execution_timeout_seconds(price.bound_audio_seconds(expected))
        remote = RemoteRun(
            attempt_id=str(uuid4()),
            base_url=settings.runpod_endpoint_base_url,
            endpoint_id=endpoint.endpoint_id,
            intended_at=self._patiently(endpoint.now),
            ttl_seconds=price.ttl_seconds(timeout),
            execution_timeout_seconds=timeout,
            reserved_usd=price.bound_usd(timeout),
        )
        self._note(remote)
        return remote

    def _reserve(self, remote: RemoteRun) -> None:
        """Budget and a place in flight, or why not."""
        endpoint, usd = self._endpoint, remote.reserved_usd
        slots = endpoint.settings.overflow_max_in_flight if self._pinned else self._patiently(endpoint.valve.slots)
        outcome = self._patiently(lambda: endpoint.ledger.reserve(remote.attempt_id, usd, slots))
        if outcome != "reserved":
            self._over()
            why = {
                "no budget": f"today's budget has less than the {usd:.2f} USD left that this job may cost",
                "no room": "as many jobs are at RunPod as may be",
            }
            self._not_now(OverflowClosed(why.get(outcome, f"the ledger is {outcome}")))

    def _accepted(self, remote: RemoteRun, run_id: str) -> RemoteRun:
        accepted = replace(remote, run_id=run_id)
        try:
            self._note(accepted)
        except Superseded:
            # Whoever runs the job by now has found a submission without an id, and has booked it as spent.
            self._endpoint.api(remote.base_url, remote.endpoint_id).cancel(run_id)
            raise
        self._patiently(self._endpoint.breaker.close)
        logger.info(
            "job %s went to RunPod as run %s, for %.4f USD at most", self._record.id, run_id, remote.reserved_usd
        )
        return accepted

    def _refused(self, remote: RemoteRun, answer: Answer, recording: Recording) -> NoReturn:
        """RunPod has no such job, for certain."""
        self._patiently(lambda: self._endpoint.ledger.release(remote.attempt_id))
        if answer.status in (400, 413):
            says = f"RunPod will not take the job: {answer.says}: {scrub(answer.detail, recording)}"
            logger.error("job %s: %s", self._record.id, says)
            home = not self._pinned and self._has_gpu()
            self._over(stays_home=home)
            if not home:
                raise OverflowRejected(says)
            self._not_now(OverflowUnavailable(says))
        self._over()
        cure = CURES.get(answer.status or 0)
        why = f"{cure} ({answer.says})" if cure else answer.says
        self._patiently(lambda: self._endpoint.breaker.trip(why, answer.retry_after_seconds))
        self._not_now(OverflowUnavailable(f"RunPod did not take the job: {answer.says}"))

    def _unknown(self, remote: RemoteRun, why: str) -> NoReturn:
        """Nobody can know whether RunPod has the job: it counts as paid for, and is not sent there a second time.

        Where no other worker can do it, it waits until RunPod has forgotten it for certain.
        """
        endpoint = self._endpoint
        self._patiently(lambda: endpoint.ledger.book(remote.attempt_id))
        home = not self._pinned and self._has_gpu()
        self._over(cost_usd=remote.reserved_usd, stays_home=home)
        error = OverflowLost(f"nobody can know whether RunPod has the job: {why}")
        error.wait_seconds = 0.0 if home else max(0.0, remote.gone_at - self._patiently(endpoint.now))
        logger.error(
            "job %s: %s; %.4f USD are booked, it %s",
            self._record.id,
            error.message,
            remote.reserved_usd,
            "is done at home" if home else f"waits {error.wait_seconds:.0f} s until such a run is over",
        )
        raise error

    def _close(self, remote: RemoteRun, end: Ended, recording: Recording) -> Diarization:
        """Settle a run that is over; its result, or why there is none."""
        cost_usd = self._settle(remote, end)
        self._learn(end)
        if end.result is not None:
            provenance = end.result.provenance.model_copy(update={"provider": "runpod", "cost_usd": cost_usd})
            return end.result.model_copy(update={"provenance": provenance})
        error = end.error or OverflowLost("the run ended without a result")
        error = type(error)(scrub(str(error), recording))
        home = end.comes_home and not self._pinned and self._has_gpu()
        self._over(cost_usd=cost_usd, stays_home=home)
        if isinstance(error, OverflowClosed) or (home and isinstance(error, OverflowLost)):
            error.wait_seconds = 0.0
        raise error

    def _settle(self, remote: RemoteRun, end: Ended) -> float:
        cost_usd = self._endpoint.price.settled_usd(remote.reserved_usd, end.delay_seconds, end.execution_seconds)
        self._patiently(lambda: self._endpoint.ledger.settle(remote.attempt_id, cost_usd))
        return cost_usd

    def _learn(self, end: Ended) -> None:
        """What the run says of RunPod; one that was called home says nothing."""
        if isinstance(end.error, OverflowClosed):
            return
        with suppress(QueueUnavailable):
            self._endpoint.outcomes.add(
                worked=not isinstance(end.error, OverflowLost),
                delay_seconds=end.delay_seconds,
                execution_seconds=end.execution_seconds,
                audio_seconds=end.result.audio_seconds if end.result else None,
            )

    def _not_now(self, error: OverflowClosed | OverflowUnavailable, *, ends_by_deadline: bool = True) -> NoReturn:
        """A job that may run anywhere goes back to where it came from; a pinned one waits, until its deadline."""
        if not self._pinned:
            self._endpoint.valve.shut()
            error.wait_seconds = 0.0
            raise error
        record = self._record
        deadline = record.deadline_at or record.submitted_at + self._endpoint.settings.overflow_deadline_seconds
        left_seconds = deadline - self._patiently(self._endpoint.now)
        if left_seconds <= 0 and ends_by_deadline:
            raise OverflowRejected(f"its deadline is over, and RunPod has not taken it: {error.message}")
        error.wait_seconds = min(PINNED_WAIT_SECONDS, left_seconds) if left_seconds > 0 else PINNED_WAIT_SECONDS
        raise error

    def _has_gpu(self) -> bool:
        workers, orders = self._patiently(self._endpoint.registry.alive), self._patiently(self._endpoint.orders.read)
        return any(facts.role == "gpu" and orders.drain_of(name) is None for name, facts in workers.items())

    def _alarm(self, why: str) -> None:
        with suppress(QueueUnavailable):  # it is said again at the next look
            self._endpoint.breaker.trip(why)

    def _wanted_at_home(self) -> bool:
        try:
            return self._endpoint.valve.reclaims()
        except QueueUnavailable:
            return False

    def _over(self, *, cost_usd: float = 0.0, stays_home: bool = False) -> None:
        self._note(None, cost_usd=cost_usd, stays_home=stays_home)

    def _note(self, remote: RemoteRun | None, *, cost_usd: float = 0.0, stays_home: bool = False) -> None:
        """Write how the try stands.

        Raises:
            Superseded: The job is somebody else's by now; nothing was written.
        """
        record, write = self._record, self._endpoint.records.remote
        outcome = self._patiently(
            lambda: write(record.id, record.token, remote, cost_usd=cost_usd, stays_home=stays_home)
        )
        if outcome == "stale":
            raise Superseded("the job is run by another worker now")

    def _patiently(self, call: Callable[[], T]) -> T:
        """What stands in Redis is worth a wait: what RunPod has begun must not be lost."""
        return wait_for_redis(call, f"job {self._record.id}")


def _body(remote: RemoteRun, recording: Recording, hints: SpeakerHints) -> dict[str, Any]:
    """What is submitted; `runpod_worker.contract` reads it."""
    job_input: dict[str, Any] = {"task": "diarization", "audio_url": recording.url, **hints.given()}
    if recording.headers:
        job_input["headers"] = dict(recording.headers)
    milliseconds = {"ttl": remote.ttl_seconds, "executionTimeout": remote.execution_timeout_seconds}
    return {"input": job_input, "policy": {name: int(seconds * 1000) for name, seconds in milliseconds.items()}}
