"""What a soak has shown: which jobs were lost, ended twice or overlapped, and which fault had met them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from benchmarks.faults import Injury
from benchmarks.history import History, JobHistory
from benchmarks.load import Job
from benchmarks.runs import Overlap, Run, Span, by_job, longest, overlaps
from benchmarks.witness import EVERY_SECONDS
from tasks.record import JobRecord, State

CELERY_SAYS = {State.DONE: "SUCCESS", State.DEAD: "FAILURE", State.CANCELLED: "REVOKED", State.EXPIRED: "FAILURE"}


@dataclass(frozen=True)
class Finding:
    """One thing that must not be. `sort`: `lost`, `ended twice` or `overlapped`."""

    sort: str
    url: str
    text: str


@dataclass
class Evidence:
    """All that is known once the soak is over. Journal times are the machine's monotonic clock."""

    jobs: Sequence[Job]
    records: Mapping[str, JobRecord]
    history: History
    runs: Sequence[Run]
    frozen: Mapping[int, Sequence[Span]]
    injuries: Sequence[Injury]
    lease_seconds: float
    answers: Mapping[str, Mapping[str, Any]]
    """What Celery's backend says of each record's id now: `status` and `result`."""
    ids: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        for job_id, job in self.history.jobs.items():
            if job.shown:
                self.ids[job.shown].append(job_id)

    def findings(self) -> list[Finding]:
        """Everything that is wrong."""
        found = [finding for job in self.jobs for finding in self._of(job)]
        asked = {job.url for job in self.jobs}
        found += [Finding("ended twice", url, "nobody asked for it") for url in self.ids.keys() - asked]
        for overlap in self.overlaps():
            if not overlap.frozen:
                text = f"pids {overlap.first.pid} and {overlap.second.pid} for {overlap.seconds:.2f} s"
                found.append(Finding("overlapped", overlap.first.what, text))
        return found

    def overlaps(self) -> list[Overlap]:
        """Runs of one job at the same time, those of frozen processes among them."""
        return overlaps(self.runs, self.frozen, self.lease_seconds)

    def _of(self, job: Job) -> Iterator[Finding]:
        ids = self.ids[job.url]
        if not ids:
            yield Finding("lost", job.url, "it has never had a record")
        if len(ids) > 1:
            yield Finding("ended twice", job.url, f"it has {len(ids)} records: {', '.join(ids)}")
        for job_id in ids:
            yield from self._end_of(job, job_id)
        yield from self._work_of(job)

    def _end_of(self, job: Job, job_id: str) -> Iterator[Finding]:
        record, history = self.records.get(job_id), self.history.jobs[job_id]
        if record is None or not record.state.ended:
            yield Finding("lost", job.url, f"it has not ended: {record.state if record else 'no record'}")
            return
        if record.state not in job.may_end:
            yield Finding("lost", job.url, f"it ended {record.state}: {dict(record.error or {})}")
        if complaint := disagreement(record, self.answers[job_id]):
            yield Finding("lost", job.url, complaint)
        if history.after_its_end:
            yield Finding("ended twice", job.url, f"its record went {' → '.join(history.states)}")
        if len(set(history.answers)) > 1:
            yield Finding("ended twice", job.url, f"Celery's answers differ: {_told(history)}")

    def _work_of(self, job: Job) -> Iterator[Finding]:
        """Work that was done again though whoever had done it was well: nobody killed, nobody frozen."""
        for first, second in pairwise(run for run in self.runs if run.what == job.url):
            if first.how == "end" and not self._disturbed(first, second.began):
                yield Finding("ended twice", job.url, f"pid {first.pid} did it all, then pid {second.pid} began anew")

    def _disturbed(self, run: Run, until: float) -> bool:
        """Whether a fault hit the run's process, or Redis, between its beginning and the next one's."""
        if longest(self.frozen.get(run.pid, ()), (run.began, until)) > 0:
            return True
        return any(
            injury.fault.kind.interrupts and run.pid in injury.pids and run.began <= injury.at <= until
            for injury in self.injuries
        )


def disagreement(record: JobRecord, answer: Mapping[str, Any]) -> str:
    """How Celery's answer differs from the record's end; "" where it does not."""
    if answer["status"] != CELERY_SAYS[record.state]:
        return f"the record says {record.state}, Celery {answer['status']}"
    if record.state is State.DONE and answer["result"] != record.result:
        return "Celery's result is not the record's"
    return ""


def hits(injury: Injury, runs: Iterable[Run]) -> list[Run]:
    """The runs that it met. Who died was seen alive for the last time a moment before."""
    return [
        run
        for run in runs
        if run.began <= injury.at < run.ended + (2 * EVERY_SECONDS if run.how == "died" else 0)
        and (not injury.berths or run.pid in injury.pids)
    ]


def recovery_seconds(injury: Injury, runs: Sequence[Run]) -> list[float]:
    """Until things ran again.

    For a fault that met workers: until each job that it had cut short, or taken from a frozen one, was started again.
    For one that met Redis: from its return until any job was started.
    """
    if not injury.berths:
        healed_at = injury.healed_at or injury.at
        return [run.began - healed_at for run in runs if run.began >= healed_at][:1]
    later = by_job(run for run in runs if run.began > injury.at)
    cut_short = [run for run in hits(injury, runs) if run.how in ("died", "left", "superseded")]
    if not injury.fault.kind.interrupts:  # it did not kill, whoever did that later
        cut_short = [run for run in cut_short if run.how != "died"]
    return [later[run.what][0].began - injury.at for run in cut_short if later[run.what]]


def blamed(finding: Finding, injuries: Sequence[Injury], runs: Sequence[Run]) -> set[str]:
    """The kinds of faults that met the job of a finding."""
    return {injury.name for injury in injuries if any(run.what == finding.url for run in hits(injury, runs))}


def _told(history: JobHistory) -> str:
    return "; ".join(f"{status} {json.dumps(result)[:80]}" for status, result in dict.fromkeys(history.answers))
