"""One endpoint: its jobs from submission to deletion, its workers as it knows them, its clock and its bill.

No HTTP and no processes. Everything is called from one event loop, so there are no locks.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from tests.emulator.faults import Faults

FINAL = frozenset({"COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"})
RAISED = {"error_type": "<class 'KeyError'>", "error_message": "'x'", "error_traceback": 'File "/app/handler.py"'}
INSTEAD: dict[str | None, tuple[str, dict[str, Any]]] = {
    "empty": ("COMPLETED", {}),
    "garbled": ("COMPLETED", {"output": {"segments": None}}),
    "raised": ("FAILED", {"error": json.dumps(RAISED)}),
    "odd": ("PAUSED", {}),
}
"""What a job ends with, whatever its worker posts, by its fault."""

IDLE_DAYS = ((7, 0), (3, 2))  # docs.runpod.io, "Endpoint settings": days without a job, and the most workers after that
MAX_RESULT_BYTES = 10_000_000  # docs.runpod.io, "Handler functions": payload limits of /run


@dataclass
class Settings:
    """An endpoint's settings; defaults are RunPod's own (docs.runpod.io, "Endpoint settings"), prices of June 2026.

    Attributes:
        throttled: Its hosts have no GPU free: no worker starts.
        cold_start_seconds: From the moment a worker is paid for until its process starts.
        scale_after_seconds: A job that waits for longer brings one more worker.
        idle_seconds: A worker without a job for so long is stopped.
        restart_seconds: A worker that ended by itself is unhealthy for so long, then replaced.
        retention_seconds: A result can be fetched for so long, `sync_` one of /runsync.
        retries: How often a job whose worker died is given to another one (RunPod does not say how often).
    """

    endpoint_id: str = "emulated"
    api_key: str = "emulated-key"
    active_workers: int = 0
    max_workers: int = 1
    throttled: bool = False
    cold_start_seconds: float = 0.0
    scale_after_seconds: float = 4.0
    idle_seconds: float = 5.0
    restart_seconds: float = 5.0
    execution_timeout_seconds: float = 600.0
    ttl_seconds: float = 86400.0
    retention_seconds: float = 1800.0
    sync_retention_seconds: float = 60.0
    retries: int = 1
    usd_per_second: float = 0.00031


@dataclass
class Job:
    """One job. Times are the endpoint's own seconds."""

    id: str
    input: Any
    submitted_at: float
    ttl_seconds: float
    execution_timeout_seconds: float
    retention_seconds: float
    retries: int
    webhook: str | None = None
    status: str = "IN_QUEUE"
    started_at: float | None = None
    ended_at: float | None = None
    answer: dict[str, Any] = field(default_factory=dict)
    takers: list[str] = field(default_factory=list)
    posts: int = 0
    late_posts: int = 0
    progress_posts: int = 0
    copies: int = 0
    fault: str | None = None

    @property
    def is_final(self) -> bool:
        return self.status in FINAL


@dataclass
class Worker:
    """A worker as the endpoint knows it: `initializing`, `idle`, `running`, `stopping`, `unhealthy` or `stopped`."""

    id: str
    started_at: float
    state: str = "initializing"
    stopped_at: float | None = None
    idle_since: float = 0.0
    stopping_since: float = 0.0
    exit_code: int | None = None
    stops: list[str] = field(default_factory=list)
    pings: int = 0

    @property
    def takes_jobs(self) -> bool:
        return self.state in ("initializing", "idle", "running")


@dataclass(frozen=True)
class Submission:
    """A POST that was accepted, whether or not its client ever heard of it."""

    id: str
    input: Any


class Endpoint:
    """The jobs and workers of one endpoint.

    Attributes:
        submissions: Every job that was ever accepted: what a client pays for.
        workers: Every worker that was ever started.
    """

    def __init__(self, settings: Settings, faults: Faults) -> None:
        self.settings = settings
        self.faults = faults
        self.jobs: dict[str, Job] = {}
        self.workers: dict[str, Worker] = {}
        self.submissions: list[Submission] = []
        self.ended: Counter[str] = Counter()
        self.retried = 0
        self.on_end: Callable[[Job], None] = lambda _: None
        self._skipped_seconds = 0.0
        self._used_at = self.now()

    def now(self) -> float:
        """Seconds of the endpoint's clock."""
        return time.monotonic() + self._skipped_seconds

    def advance(self, seconds: float) -> None:
        """Let so much time pass at once: retention, ttl, timeouts, idle times and bill see it."""
        self._skipped_seconds += seconds
        self.tick()

    def change(self, **settings: Any) -> None:
        """A human changes settings; from then on the days without a job are counted anew."""
        self._used_at = self.now()
        vars(self.settings).update(settings)

    def submit(self, body: dict[str, Any], *, sync: bool = False) -> Job:
        """Accept a job, from now on to be paid for."""
        settings, policy = self.settings, body.get("policy") or {}
        job = Job(
            id=f"{'sync-' if sync else ''}{uuid4()}-u1",
            input=body["input"],
            submitted_at=self.now(),
            ttl_seconds=policy.get("ttl", settings.ttl_seconds * 1000) / 1000,
            execution_timeout_seconds=policy.get("executionTimeout", settings.execution_timeout_seconds * 1000) / 1000,
            retention_seconds=settings.sync_retention_seconds if sync else settings.retention_seconds,
            retries=settings.retries,
            webhook=body.get("webhook"),
        )
        self._used_at = self.now()
        self.submissions.append(Submission(job.id, job.input))
        url = job.input.get("audio_url", "") if isinstance(job.input, dict) else ""
        fault = self.faults.strike("job", str(url))
        job.fault = fault.what if fault else None
        if job.fault != "lost":
            self.jobs[job.id] = job
        if job.fault == "timed-out":
            self._end(job, "TIMED_OUT", {})
        if job.fault == "twice":
            job.copies = 1
        return job

    def cancel(self, job: Job) -> None:
        """What ended stays as it is."""
        if not job.is_final:
            self._stop(job)
            self._end(job, "CANCELLED", {})

    def take(self, worker: Worker) -> Job | None:
        """The next job, for a worker that asks."""
        if not worker.takes_jobs:
            return None
        for job in self.jobs.values():
            again = job.copies > 0 and bool(job.takers)
            if job.fault == "stuck-queued" or not (job.status == "IN_QUEUE" or again):
                continue
            if again:
                job.copies -= 1
            job.takers.append(worker.id)
            if not job.is_final:
                job.status, job.started_at = "IN_PROGRESS", job.started_at or self.now()
            worker.state = "running"
            return job
        return None

    def is_idle(self, worker: Worker) -> None:
        """The worker asks for a job, and says that it has none."""
        if worker.state in ("initializing", "running"):
            worker.state, worker.idle_since = "idle", self.now()

    def stopping(self, worker: Worker) -> None:
        """The worker gets no more jobs, and is to end."""
        worker.state, worker.stopping_since = "stopping", self.now()

    def post(self, job_id: str, body: dict[str, Any]) -> None:
        """A worker's result or progress. The first result counts."""
        job = self.jobs.get(job_id)
        if job is None:
            return
        if body.get("status") == "IN_PROGRESS":
            job.progress_posts += 1
            if job.status in ("IN_PROGRESS", "COMPLETED"):  # late progress undoes the result: issue 250
                job.status, job.answer = "IN_PROGRESS", {"output": body.get("output")}
            return
        job.posts += 1
        if job.is_final:
            job.late_posts += 1
            return
        if job.fault == "stuck-running":
            return
        if job.fault in INSTEAD:
            self._end(job, *INSTEAD[job.fault])
            return
        answer: dict[str, Any] = {name: body[name] for name in ("output", "error") if name in body}
        if isinstance(answer.get("error"), str):
            self._end(job, "FAILED", answer)
        else:  # an error that is no string is swallowed, the output with it: runpod-python issue 299
            self._end(job, "COMPLETED", {} if "error" in answer else answer)
        if job.fault == "overtaken":
            self.post(job_id, {"status": "IN_PROGRESS", "output": "discrete_diarization;None;None"})

    def gone(self, worker: Worker) -> None:
        """A worker's process is no more; a job of its own runs again, as often as that is done."""
        worker.stopped_at = self.now()
        worker.state = "stopped" if worker.state == "stopping" else "unhealthy"
        for job in self.jobs.values():
            if job.status == "IN_PROGRESS" and job.takers[-1:] == [worker.id] and job.posts == 0 and job.retries:
                job.status, job.retries = "IN_QUEUE", job.retries - 1
                self.retried += 1

    def tick(self) -> None:
        """What time does to jobs, and to an endpoint that nobody uses: it stays as it is then until a human acts."""
        now = self.now()
        for days, most in IDLE_DAYS:
            if now - self._used_at >= days * 86400:
                self.settings.max_workers = min(self.settings.max_workers, most)
        for job in list(self.jobs.values()):
            if job.is_final:
                if now - (job.ended_at or now) > job.retention_seconds:
                    del self.jobs[job.id]
            elif now - job.submitted_at > job.ttl_seconds:
                self._stop(job)
                del self.jobs[job.id]
            elif job.status == "IN_PROGRESS" and now - (job.started_at or now) > job.execution_timeout_seconds:
                self._stop(job)
                self._end(job, "TIMED_OUT", {"error": "job timed out after its execution timeout"})

    @property
    def waiting(self) -> list[Job]:
        """Jobs that no worker has."""
        return [job for job in self.jobs.values() if job.status == "IN_QUEUE"]

    @property
    def live_workers(self) -> list[Worker]:
        """Those that are paid for."""
        return [worker for worker in self.workers.values() if worker.stopped_at is None]

    @property
    def bill_usd(self) -> float:
        """Every worker from its start to its full stop, rounded up to a second."""
        ends = ((worker, worker.stopped_at or self.now()) for worker in self.workers.values())
        return sum(math.ceil(end - worker.started_at) for worker, end in ends) * self.settings.usd_per_second

    def _stop(self, job: Job) -> None:
        for taker in job.takers:
            self.workers[taker].stops.append(job.id)

    def _end(self, job: Job, status: str, answer: dict[str, Any]) -> None:
        job.status, job.ended_at, job.answer = status, self.now(), answer
        self.ended[status] += 1
        self.on_end(job)
