"""The job record: one Redis hash a job, its states, and every key of ours.

A job changes its state in one atomic step, by a script of `tasks/scripts/`. Whoever runs a job holds its token, which
grows with each start; a write that carries an older token is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from diarization.errors import (
    AttemptsExhausted,
    Cancelled,
    DiarizationError,
    Expired,
    QueueUnavailable,
    from_code,
)
from tasks.job import JobRequest
from tasks.settings import Settings

if TYPE_CHECKING:
    from redis import Redis
    from redis.commands.core import Script

SCRIPTS = Path(__file__).with_name("scripts")
CLAIM_SECONDS = 30


class State(StrEnum):
    """Where a job stands."""

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

    `ticket` holds what is needed to publish the job's ticket again; `request` is gone once the job has ended well.
    """

    id: str
    state: State
    shown: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    request: Mapping[str, Any] | None = field(default=None, repr=False)
    ticket: Mapping[str, Any] = field(default_factory=dict, repr=False)
    ticket_number: int = 0
    attempts: int = 0
    token: int = 0
    worker: str | None = None
    stage: str | None = None
    percent: float = 0.0
    submitted_at: float = 0.0
    started_at: float | None = None
    ended_at: float | None = None
    due_at: float | None = None
    expires_at: float | None = None
    result: Mapping[str, Any] | None = field(default=None, repr=False)
    error: Mapping[str, str] | None = None
    last_error: Mapping[str, str] | None = None
    rejected: Mapping[str, str] | None = None

    @classmethod
    def parse(cls, job_id: str, stored: Mapping[Any, Any]) -> Self:
        """A record from its hash; fields of a newer version are passed over."""
        values: dict[str, Any] = {"id": job_id, "state": State(stored["state"])}
        for name in cls.__dataclass_fields__.keys() & stored.keys() - {"id", "state"}:
            values[name] = _READERS.get(name, str)(stored[name])
        return cls(**values)


def raisable(error: Mapping[str, str] | None) -> DiarizationError:
    """The error that `describe` described."""
    error = error or {}
    return from_code(error.get("code", "unknown"), error.get("message", "the record names no error"))


_READERS: Mapping[str, Any] = {
    **dict.fromkeys(("options", "request", "ticket", "result", "error", "last_error", "rejected"), json.loads),
    **dict.fromkeys(("ticket_number", "attempts", "token"), int),
    **dict.fromkeys(("percent", "submitted_at", "started_at", "ended_at", "due_at", "expires_at"), float),
}


def worker_name(nodename: str, main_pid: int) -> str:
    """How a worker is called in records: Celery's node name alone may be another one's, too."""
    return f"{nodename} ({main_pid})"


def connect(settings: Settings, *, patient: bool) -> Redis:
    """A client of the queue's Redis; a `patient` one (a worker's) waits out short outages, others fail in seconds."""
    # A quarter of the time that a backend takes to import the task would be the client's.
    from redis import Redis  # noqa: PLC0415
    from redis.backoff import ExponentialBackoff, NoBackoff  # noqa: PLC0415
    from redis.exceptions import ConnectionError as RedisConnectionError  # noqa: PLC0415
    from redis.retry import Retry  # noqa: PLC0415

    return Redis.from_url(
        settings.redis_url.get_secret_value(),
        decode_responses=True,
        socket_timeout=5 if patient else 2,
        socket_connect_timeout=5 if patient else 2,
        socket_keepalive=True,
        health_check_interval=10,
        # A connection that went stale while idle is worth one more try; a server that hangs is not.
        retry=Retry(ExponentialBackoff(cap=1, base=0.05), 5)
        if patient
        else Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
    )


class Records:
    """All jobs of one Redis.

    Every method raises `QueueUnavailable` where Redis cannot be reached or refuses to answer.
    """

    def __init__(self, settings: Settings, *, patient: bool = False) -> None:
        self._settings = settings
        self._redis = connect(settings, patient=patient)
        self._prefix = settings.redis_key_prefix
        self._retention_seconds = max(1, int(settings.queue_retention_days * 86400))
        shared = (SCRIPTS / "shared.lua").read_text()
        self._scripts: dict[str, Script] = {
            path.stem: self._redis.register_script(shared + path.read_text())
            for path in SCRIPTS.glob("*.lua")
            if path.stem != "shared"
        }

    def create(
        self,
        job_id: str,
        request: JobRequest | None,
        ticket: Mapping[str, Any],
        *,
        due_at: float | None = None,
        countdown: float | None = None,
        expires_in: float | None = None,
        expires_at: float | None = None,
        rejected: DiarizationError | None = None,
    ) -> bool:
        """Write a new job; False where one of this id exists (it is left as it is).

        `rejected` is why a later step of a chain cannot be done: the job is kept, and fails by its own ticket.
        """
        fields: dict[str, str] = {"ticket": json.dumps(ticket)}
        if request is not None:
            fields["request"] = json.dumps(request.arguments())
            fields["options"] = json.dumps(request.shown_options())
            fields["shown"] = request.shown
        if expires_at is not None:
            fields["expires_at"] = f"{expires_at:.3f}"
        if rejected is not None:
            fields["rejected"] = json.dumps(describe(rejected))
        flat = [part for pair in fields.items() for part in pair]
        return bool(self._call("create", job_id, _optional(due_at), _optional(countdown), _optional(expires_in), *flat))

    def get(self, job_id: str) -> JobRecord | None:
        """The job's record; None where there is none."""
        with reachable():
            stored = self._redis.hgetall(self._prefix + "job:" + job_id)
        return JobRecord.parse(job_id, stored) if "state" in stored else None

    def newest(self, state: State | None = None, limit: int = 100) -> list[JobRecord]:
        """Jobs by the time they came to their state, newest first."""
        states = [state] if state else list(State)
        with reachable(), self._redis.pipeline(transaction=False) as pipe:
            for one in states:
                pipe.zrange(f"{self._prefix}state:{one}", 0, limit - 1, desc=True, withscores=True)
            found = [pair for pairs in pipe.execute() for pair in pairs]
            newest = [job_id for job_id, _ in sorted(found, key=lambda pair: -pair[1])[:limit]]
            for job_id in newest:
                pipe.hgetall(self._prefix + "job:" + job_id)
            stored = zip(newest, pipe.execute(), strict=True)
        return [JobRecord.parse(job_id, fields) for job_id, fields in stored if "state" in fields]

    def take(self, job_id: str, ticket_number: int, worker: str) -> str:
        """A worker met a ticket: `taken` starts an attempt; else `missing`, `stale`, `held`, or how the job ended."""
        attempts = self._settings.queue_max_attempts
        errors = (
            Expired("the job was not started before its expires"),
            Cancelled("the job was cancelled while it ran"),
            AttemptsExhausted(f"the job was started {attempts} times and its worker died each time"),
        )
        stored = [json.dumps(describe(error)) for error in errors]
        lease = self._settings.queue_lease_seconds
        return str(self._call("take", job_id, ticket_number, worker, attempts, self._retention_seconds, *stored, lease))

    def renew(self, worker: str, job_ids: Sequence[str]) -> int:
        """Renew the leases of those of its jobs that `worker` runs; how many."""
        return int(self._call("renew", "", worker, self._settings.queue_lease_seconds, *job_ids))

    def hand_back(self, job_id: str, worker: str, *, counts: bool) -> str:
        """The worker cannot go on with the job: it is due at once. `stale` where it is somebody else's."""
        return str(self._call("hand_back", job_id, worker, int(counts)))

    def lapse(self, limit: int) -> list[str]:
        """Make jobs due whose worker has been silent for longer than the lease; their ids."""
        return [str(one) for one in self._call("lapse", "", limit)]

    def progress(self, job_id: str, token: int, stage: str, percent: float) -> str:
        """Note how far the attempt is: `go on`, `cancel`, or `lost` where somebody else runs the job now."""
        return str(self._call("progress", job_id, token, stage, f"{percent:.1f}"))

    def finish(self, job_id: str, token: int, result: Mapping[str, Any]) -> str:
        """End the job well. The state it is in afterwards; `stale` where somebody else runs it now."""
        stored = json.dumps(result, allow_nan=False)
        return str(self._call("finish", job_id, token, State.DONE, "result", stored, self._retention_seconds))

    def give_up(self, job_id: str, token: int, error: DiarizationError) -> str:
        """End the job with an error: cancelled, expired, or a dead letter. Answers as `finish`."""
        state = {Cancelled: State.CANCELLED, Expired: State.EXPIRED}.get(type(error), State.DEAD)
        stored = json.dumps(describe(error))
        return str(self._call("finish", job_id, token, state, "error", stored, self._retention_seconds))

    def retry(self, job_id: str, token: int, wait_seconds: float, error: DiarizationError) -> str:
        """Let the job wait in the due-set. `due`, or `stale` where somebody else runs it now."""
        return str(self._call("retry", job_id, token, f"{wait_seconds:.3f}", json.dumps(describe(error))))

    def cancel(self, job_id: str) -> State | None:
        """End a waiting job, ask a running one to stop. The state it was in; None where there is no such job."""
        error = Cancelled("the job was cancelled before it started")
        state = self._call("cancel", job_id, json.dumps(describe(error)), self._retention_seconds)
        return None if state == "missing" else State(state)

    def claim_due(self, limit: int) -> list[str]:
        """Ids of waiting jobs whose time has come; each is the caller's to issue within `CLAIM_SECONDS`."""
        return [str(one) for one in self._call("claim_due", "", limit, CLAIM_SECONDS)]

    def issued(self, job_id: str, ticket_number: int) -> None:
        """The ticket of a job that was due has been published."""
        self._call("issued", job_id, ticket_number)

    def renumber(self, job_id: str) -> int | None:
        """A new ticket number for a job that waits in the queue; None where it does not."""
        number = self._call("renumber", job_id)
        return None if number is None else int(number)

    def _call(self, script: str, job_id: str, *arguments: Any) -> Any:
        with reachable():
            return self._scripts[script](args=[self._prefix, job_id, *arguments])


def _optional(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


@contextmanager
def reachable() -> Iterator[None]:
    """Turns the client's errors into ours.

    Raises:
        QueueUnavailable: Redis cannot be reached or refuses to answer.
    """
    from redis.exceptions import RedisError  # noqa: PLC0415 - see `connect`

    try:
        yield
    except RedisError as error:
        # The client's messages name host and port, never the password.
        raise QueueUnavailable(f"Redis cannot be used: {error or type(error).__name__}") from None
