"""All job records: how a job begins, moves and ends, and every key of ours.

A job changes its state in one atomic step, by a script of `tasks/scripts/`. Whoever runs a job holds its token, which
grows with each start; a write that carries an older token is refused.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from diarization.errors import (
    AttemptsExhausted,
    Cancelled,
    DiarizationError,
    Expired,
    InvalidJob,
    NoRoom,
    TransientError,
)
from tasks.record import JobRecord, State, describe, end_of
from tasks.remote import RemoteRun
from tasks.server import connect, load_scripts, reachable
from tasks.settings import Settings
from tasks.speed import Speed
from tasks.submission import NewJob, Submission, seconds_text

SCRIPTS = Path(__file__).with_name("scripts")
CLAIM_SECONDS = 30
TOLD_SECONDS = 5.0
"""So long it may take from a job's end in its record until Celery has been told of it, where nothing is broken."""
PAGE_JOBS = 200
"""So many records are read at once: the results in them are about 100 kB each."""


def worker_name(nodename: str, main_pid: int) -> str:
    """How a worker is called in records: Celery's node name alone may be another one's, too."""
    return f"{nodename} ({main_pid})"


class Records:
    """All jobs of one Redis.

    Every method raises `QueueUnavailable` where Redis cannot be reached or refuses to answer.
    """

    def __init__(self, settings: Settings, *, patient: bool = False) -> None:
        self._settings = settings
        self._redis = connect(settings, patient=patient)
        self._prefix = settings.redis_key_prefix
        self._retention_seconds = max(1, int(settings.queue_retention_days * 86400))
        self._scripts = load_scripts(self._redis, SCRIPTS)

    def create(self, job: NewJob) -> Submission:
        """Write a new job."""
        outcome, first = self._call("create", job.id, *job.arguments(self._settings.overflow_deadline_seconds))
        return Submission(outcome, first)

    def create_many(self, jobs: Sequence[NewJob]) -> list[Submission]:
        """Write new jobs, in one round trip (two where Redis does not know the script)."""
        deadline_seconds = self._settings.overflow_deadline_seconds
        with reachable(), self._redis.pipeline(transaction=False) as pipe:
            for job in jobs:
                self._scripts["create"](args=[self._prefix, job.id, *job.arguments(deadline_seconds)], client=pipe)
            return [Submission(outcome, first) for outcome, first in pipe.execute()]

    def get(self, job_id: str) -> JobRecord | None:
        """The job's record; None where there is none."""
        with reachable():
            stored = self._redis.hgetall(self._prefix + "job:" + job_id)
        return JobRecord.parse(job_id, stored) if "state" in stored else None

    def get_many(self, job_ids: Sequence[str]) -> list[JobRecord | None]:
        """Each job's record, in the same order; None where there is none. A round trip for each `PAGE_JOBS`."""
        found: list[JobRecord | None] = []
        for begin in range(0, len(job_ids), PAGE_JOBS):
            page = job_ids[begin : begin + PAGE_JOBS]
            with reachable(), self._redis.pipeline(transaction=False) as pipe:
                for job_id in page:
                    pipe.hgetall(self._prefix + "job:" + job_id)
                stored = pipe.execute()
            pairs = zip(page, stored, strict=True)
            found += [JobRecord.parse(job_id, fields) if "state" in fields else None for job_id, fields in pairs]
        return found

    def newest(self, state: State | None = None, limit: int = 100) -> list[JobRecord]:
        """Jobs by the time they came to their state, newest first."""
        found = self.get_many(self._newest_ids([state] if state else list(State), limit))
        return [record for record in found if record is not None]

    def names(self, states: Iterable[State], limit: int) -> dict[str, str]:
        """The newest jobs in these states, as their recordings may be shown, by id; without reading the results."""
        ids = self._newest_ids(list(states), limit)
        with reachable(), self._redis.pipeline(transaction=False) as pipe:
            for job_id in ids:
                pipe.hget(self._prefix + "job:" + job_id, "shown")
            return {job_id: shown or "" for job_id, shown in zip(ids, pipe.execute(), strict=True)}

    def _newest_ids(self, states: Sequence[State], limit: int) -> list[str]:
        with reachable(), self._redis.pipeline(transaction=False) as pipe:
            for one in states:
                pipe.zrange(f"{self._prefix}state:{one}", 0, limit - 1, desc=True, withscores=True)
            found = [pair for pairs in pipe.execute() for pair in pairs]
        return [job_id for job_id, _ in sorted(found, key=lambda pair: -pair[1])[:limit]]

    def take(self, job_id: str, ticket_number: int, worker: str) -> str:
        """A worker met a ticket: `taken` starts an attempt; else why not.

        `missing`, `stale`, `held`, `follows`; `elsewhere` where it is for a worker of another role; or how it ended.
        """
        attempts = self._settings.queue_max_attempts
        errors = (
            Expired("the job was not started before its expires"),
            Cancelled("the job was cancelled while it ran"),
            AttemptsExhausted(f"the job was started {attempts} times and its worker died or hung each time"),
        )
        stored = [json.dumps(describe(error)) for error in errors]
        lease = self._settings.queue_lease_seconds
        role = self._settings.worker_role
        return str(
            self._call("take", job_id, ticket_number, worker, attempts, self._retention_seconds, *stored, lease, role)
        )

    def renew(self, worker: str, facts: str, job_ids: Sequence[str], *, idle: bool) -> int:
        """`worker` lives, and is what `facts` (JSON) say: renew the leases of the jobs that it runs; how many.

        An `idle` one would take a job at once, and has none.
        """
        return int(self._call("renew", "", worker, self._settings.queue_lease_seconds, facts, int(idle), *job_ids))

    def hand_back(
        self,
        job_id: str,
        worker: str,
        *,
        counts: bool,
        error: DiarizationError | None = None,
        ticket_number: int | None = None,
    ) -> str:
        """The worker cannot go on with the job: it is due at once. `stale` where it is somebody else's.

        `ticket_number` is of the ticket that the worker's child had, which tells it from another child of that worker.
        """
        why, number = json.dumps(describe(error)) if error else "", "" if ticket_number is None else ticket_number
        return str(self._call("hand_back", job_id, worker, int(counts), why, number))

    def lapse(self, limit: int) -> list[str]:
        """Make jobs due whose worker has been silent for longer than the lease; their ids."""
        return [str(one) for one in self._call("lapse", "", limit, self._settings.queue_lease_seconds)]

    def progress(
        self,
        job_id: str,
        token: int,
        stage: str,
        percent: float,
        audio_seconds: float | None = None,
        stage_seconds: Mapping[str, float] | None = None,
    ) -> str:
        """Note how far the attempt is, the recording's length as soon as it is known, and the stages that are over.

        Gives `go on`, `cancel`, or `lost` where somebody else runs the job now.
        """
        over = "" if stage_seconds is None else json.dumps(stage_seconds)
        facts = (f"{percent:.1f}", seconds_text(audio_seconds), over)
        return str(self._call("progress", job_id, token, stage, *facts))

    def remote(
        self,
        job_id: str,
        token: int,
        run: RemoteRun | None,
        *,
        cost_usd: float = 0.0,
        stays_home: bool = False,
    ) -> str:
        """Note how the attempt's try at a provider stands; `stale` where the job is somebody else's now.

        Args:
            job_id: The job.
            token: Of the attempt.
            run: The try; None once it is over.
            cost_usd: What a try that is over has cost.
            stays_home: Whether the own GPUs are to do the job from now on.
        """
        written = run.to_json() if run else ""
        arguments = (token, written, f"{cost_usd:.6f}", int(stays_home))
        return str(self._call("remote", job_id, *arguments))

    def finish(self, job_id: str, token: int, result: str, work: Speed, provider: str = "local") -> str:
        """End the job well, with `result` (JSON), and let its worker's speed learn from the `work` that it was.

        The job's state from then on; `stale` where somebody else runs it now.
        """
        facts = (work.to_json(), provider)
        return str(self._call("finish", job_id, token, State.DONE, "result", result, self._retention_seconds, *facts))

    def give_up(self, job_id: str, token: int, error: DiarizationError) -> str:
        """End the job with an error: cancelled, expired, or a dead letter. Answers as `finish`."""
        stored = json.dumps(describe(error))
        return str(self._call("finish", job_id, token, end_of(error), "error", stored, self._retention_seconds))

    def retry(self, job_id: str, token: int, wait_seconds: float, error: TransientError) -> str:
        """Let the job wait in the due-set. `due`, or `stale` where somebody else runs it now."""
        needs = error.needed_bytes if isinstance(error, NoRoom) else ""
        arguments = (f"{wait_seconds:.3f}", json.dumps(describe(error)), int(error.counts), needs)
        return str(self._call("retry", job_id, token, *arguments))

    def answered(self, job_id: str, ticket_number: int) -> None:
        """Celery has been told of the job's end, by that ticket."""
        self._call("answered", job_id, ticket_number)

    def replay(self, record: JobRecord, ticket: Mapping[str, Any]) -> str:
        """Give a dead letter a new life, due at once. `due`, or why not: its state, `untold` or `missing`."""
        return str(
            self._call("replay", record.id, json.dumps(ticket), json.dumps([*record.history, record.past_life()]))
        )

    def delete(self, job_id: str, only: State | None = None) -> str:
        """Forget an ended job; with `only`, where it ended so.

        `deleted`, or why not: its state, `missing`, or `untold` while Celery has yet to be told of its end.
        """
        return str(self._call("delete", job_id, only or ""))

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

    def claim_webhook(
        self, claim_seconds: int, refused: Iterable[str], most_passed: int, wait_seconds: int
    ) -> tuple[str, str] | None:
        """An ended job whose webhook is due, and its receiver; None where there is none.

        Args:
            claim_seconds: So long it is the caller's to deliver.
            refused: Receivers (host and port) whose webhooks are passed over.
            most_passed: So many of those are looked at again by the next call.
            wait_seconds: So long the others of them are not.
        """
        found = self._call("claim_webhook", "", claim_seconds, most_passed, wait_seconds, *refused)
        return None if found is None else (str(found[0]), str(found[1]))

    def webhook_told(self, job_id: str, ended_at: float | None) -> None:
        """The receiver has taken the webhook of that end."""
        self._call("webhook", job_id, seconds_text(ended_at), "told")

    def webhook_later(self, job_id: str, ended_at: float | None, why: str, wait_seconds: float) -> None:
        """The receiver has not taken it; it is tried again."""
        self._call("webhook", job_id, seconds_text(ended_at), "later", why, f"{wait_seconds:.3f}")

    def hand_back_webhook(self, job_id: str, ended_at: float | None) -> None:
        """Leave it to another worker, at once; it is not counted as a try."""
        self._call("webhook", job_id, seconds_text(ended_at), "handed back")

    def webhook_given_up(self, job_id: str, ended_at: float | None, why: str) -> None:
        """Nobody will take it; it is kept for `webhook_again`."""
        self._call("webhook", job_id, seconds_text(ended_at), "given up", why)

    def webhook_again(self, job_id: str, ended_at: float | None) -> str:
        """Deliver one that was given up, or that was taken, once more: `noted`, or `stale` or `missing`."""
        return str(self._call("webhook", job_id, seconds_text(ended_at), "again"))

    def undelivered(self, limit: int = 1000) -> list[JobRecord]:
        """Jobs whose webhooks were given up, newest first."""
        with reachable():
            ids: Any = self._redis.zrange(self._prefix + "webhooks:dead", 0, limit - 1, desc=True)
        return [record for job_id in ids if (record := self.get(job_id)) is not None]

    def renumber(self, job_id: str) -> int | None:
        """A new ticket number for a job that waits in the queue; None where it does not."""
        number = self._call("renumber", job_id)
        return None if number is None else int(number)

    def _call(self, script: str, job_id: str, *arguments: Any) -> Any:
        with reachable():
            return self._scripts[script](args=[self._prefix, job_id, *arguments])


def once_told(job_id: str, act: Callable[[], str]) -> str:
    """What `act` gives as soon as Celery has been told of the job's end: a moment after whoever waited for it was.

    Raises:
        InvalidJob: Nobody has told it within `TOLD_SECONDS`.
    """
    deadline = time.monotonic() + TOLD_SECONDS
    while (outcome := act()) == "untold":
        if time.monotonic() >= deadline:
            raise InvalidJob(f"job {job_id} has just ended, and who waits for it is being told: try again in a moment")
        time.sleep(TOLD_SECONDS / 50)
    return outcome
