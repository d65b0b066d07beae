"""JobRecord: what Redis says about one job.

Fields that a newer version has added are passed over, and those that an older one does not know have defaults: the
workers of a fleet in the middle of a deploy read each other's records.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

from diarization.errors import Cancelled, DiarizationError, Expired, from_code
from tasks.remote import RemoteRun
from tasks.speed import Speed
from tasks.webhook import Webhook


class State(StrEnum):
    """Where a job stands; a string.

    Attributes:
        QUEUED: Waits for a worker.
        DUE: Is to start later: a countdown, a retry's wait, or another job's answer.
        RUNNING: A worker has it, here or at RunPod.
        DONE: Ended with a result.
        DEAD: Ended with an error: a dead letter, which can be replayed.
        CANCELLED: Ended because somebody asked for it.
        EXPIRED: Ended because it was not started before its `expires`.
    """

    QUEUED = "queued"
    DUE = "due"
    RUNNING = "running"
    DONE = "done"
    DEAD = "dead"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def ended(self) -> bool:
        """Whether nothing more happens to such a job by itself."""
        return self in (State.DONE, State.DEAD, State.CANCELLED, State.EXPIRED)


def describe(error: DiarizationError) -> dict[str, str]:
    """An error as the record, the webhook and the command line carry it."""
    return {"code": error.code, "message": error.message, "advice": error.advice}


@dataclass(frozen=True)
class JobRecord:
    """A job's facts, as they stand in Redis. Times are seconds since 1970, by the server's clock.

    Attributes:
        shown: The recording's URL as it may be shown.
        options: What was asked for, as it may be shown.
        request: What was asked for; it is gone once the job has ended, but for dead letters.
        ticket: What is needed to publish the job's ticket again.
        ticket_number: Of its newest ticket.
        taken_number: Of the ticket by which a worker took it last.
        attempts: Starts that count.
        stage_seconds: What each stage took that is over, of the latest attempt.
        token: Grows with each start; whoever holds an older one can write no more.
        last_error: Why the attempt before did not end the job.
        rejected: Why the job can never be done: it fails by its ticket.
        follows: The job of the same idempotency key whose end will be this one's.
        audio_seconds: The recording's length: what the caller expects, or what an attempt has found.
        deadline_at: By then it should be done.
        speed: Its worker's, when it took the job.
        needs_bytes: Memory that an attempt found missing.
        answered: When Celery had been told of the end.
        remote: A try at a provider that is not over.
        stays_home: Whether a provider was tried in vain, so that the own GPUs are to do it.
        cost_usd: What they have cost, at most.
        webhook: Where its end is to be told; gone once it has been, but for a dead letter.
        webhook_tries: Deliveries that failed.
        webhook_error: Why the last one did.
        webhook_told_at: When its receiver took it.
        webhook_again_at: Since when it has all its tries anew, where an operator said so.
        history: The lives of a dead letter before its replays, oldest first.
    """

    id: str
    state: State
    shown: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    request: Mapping[str, Any] | None = field(default=None, repr=False)
    ticket: Mapping[str, Any] = field(default_factory=dict, repr=False)
    ticket_number: int = 0
    taken_number: int | None = None
    attempts: int = 0
    token: int = 0
    worker: str | None = None
    stage: str | None = None
    percent: float = 0.0
    stage_seconds: Mapping[str, float] = field(default_factory=dict)
    submitted_at: float = 0.0
    started_at: float | None = None
    ended_at: float | None = None
    due_at: float | None = None
    expires_at: float | None = None
    result: Mapping[str, Any] | None = field(default=None, repr=False)
    error: Mapping[str, str] | None = None
    last_error: Mapping[str, str] | None = None
    rejected: Mapping[str, str] | None = None
    follows: str | None = None
    audio_seconds: float | None = None
    deadline_at: float | None = None
    speed: Speed | None = None
    needs_bytes: int | None = None
    answered: float | None = None
    remote: RemoteRun | None = field(default=None, repr=False)
    stays_home: bool = False
    cost_usd: float = 0.0
    webhook: Webhook | None = field(default=None, repr=False)
    webhook_tries: int = 0
    webhook_error: str | None = None
    webhook_told_at: float | None = None
    webhook_again_at: float | None = None
    history: Sequence[Mapping[str, Any]] = ()

    @classmethod
    def parse(cls, job_id: str, stored: Mapping[Any, Any]) -> Self:
        """A record from its hash; fields of a newer version are passed over."""
        values: dict[str, Any] = {"id": job_id, "state": State(stored["state"])}
        for name in cls.__dataclass_fields__.keys() & stored.keys() - {"id", "state"}:
            values[name] = _READERS.get(name, str)(stored[name])
        return cls(**values)

    @property
    def seconds_by_stage(self) -> Mapping[str, float]:
        """What each stage took: all of them where the job is done, else those of the latest attempt that are over."""
        if self.result is None:
            return self.stage_seconds
        took: Mapping[str, float] = self.result.get("provenance", {}).get("stage_seconds", {})
        return took

    @property
    def seconds_left(self) -> float | None:
        """What a running job still takes by its worker's own speed; None where that or its length is unknown."""
        if self.state is not State.RUNNING or self.speed is None or self.audio_seconds is None:
            return None
        return self.speed.seconds_left(self.audio_seconds, self.stage, self.percent)

    def past_life(self) -> dict[str, Any]:
        """What the history keeps of a dead letter that is replayed."""
        kept = ("error", "last_error", "attempts", "worker", "submitted_at", "started_at", "ended_at")
        return {name: value for name in kept if (value := getattr(self, name)) is not None}


def end_of(error: DiarizationError) -> State:
    """The state of a job that ends with `error`."""
    return {Cancelled: State.CANCELLED, Expired: State.EXPIRED}.get(type(error), State.DEAD)


def raisable(error: Mapping[str, str] | None) -> DiarizationError:
    """The error that `describe` described."""
    error = error or {}
    return from_code(error.get("code", "unknown"), error.get("message", "the record names no error"))


_READERS: Mapping[str, Any] = {
    **dict.fromkeys(
        ("options", "request", "ticket", "result", "error", "last_error", "rejected", "history", "stage_seconds"),
        json.loads,
    ),
    **dict.fromkeys(("ticket_number", "taken_number", "attempts", "token", "needs_bytes", "webhook_tries"), int),
    **dict.fromkeys(("percent", "submitted_at", "started_at", "ended_at", "due_at", "expires_at", "answered"), float),
    **dict.fromkeys(("audio_seconds", "deadline_at", "cost_usd", "webhook_told_at", "webhook_again_at"), float),
    "webhook": Webhook.parse,
    "remote": RemoteRun.parse,
    "stays_home": "1".__eq__,
    "speed": Speed.parse,
}
