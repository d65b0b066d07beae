"""What the queue costs beside plain Celery, in one run on one server, with few and with many jobs waiting.

    python -m benchmarks.queue [--waiting 10 1000 20000] [--jobs 400]

Both have the same broker settings, one worker with one child, and the stand-in as their task; plain Celery has no
record, no lease and no guard. So many jobs wait behind those that are measured. The cost is of a batch that is already
there; submit → start is of single jobs for a worker that is idle, from before the call until the job is taken. It exits
with 1 where a job costs more with the most jobs waiting than with the fewest: 1.5 times the CPU, or half a round trip.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from redis import Redis
from rich.console import Console
from rich.table import Table

from benchmarks.meter import Meter, hardware, versions
from benchmarks.report import percentiles
from tasks.record import State
from tasks.tickets import PRIORITY_STEPS
from tasks.valkey import EmbeddedValkey
from tests.processes import Worker, forget_settings, wait_until

RESULTS = Path(__file__).with_name("results") / "queue.json"
MORE_CPU, MORE_ROUND_TRIPS = 1.5, 0.5
WARM_UP_JOBS = 100
LATENCIES, CANCELS = 60, 30
FIRST = 0
URL = "http://stand.in/turns/60/3"


@dataclass(frozen=True)
class System:
    """One of the two: its task, its app for the command line, its queues, and when a job of it was started."""

    name: str
    task: Any
    module: str
    prefix: str
    anywhere: str
    apart: str
    started_at: Callable[[str, Any], float]


@dataclass
class Row:
    """A line of the table."""

    system: str
    waiting: int
    per_job: dict[str, float] = field(default_factory=dict)
    latency_ms: tuple[float, float] = (0.0, 0.0)


class Bench:
    """The measurements, on one server."""

    def __init__(self, server: EmbeddedValkey, folder: Path, jobs: int) -> None:
        self._redis = Redis.from_url(server.url, decode_responses=True)
        self._folder = folder
        self._jobs = jobs
        self._rng = random.Random(4)
        self._started = 0

    def row(self, system: System, waiting: int, *, then: Callable[[Worker], None] | None = None) -> Row:
        """Measure with so many jobs waiting; `then` is called while they still wait and the worker is idle."""
        row = Row(system.name, waiting)
        self._fill(system, waiting)
        ids = self._submit(system, row)
        worker = self._start(system)
        try:
            self._cost(system, row, ids, worker)
            system.task.app.control.cancel_consumer(system.anywhere, reply=True, timeout=10)
            self._fill(system, waiting)
            row.latency_ms = percentiles([1000 * self._latency(system) for _ in range(LATENCIES)])
            if then:
                then(worker)
        finally:
            worker.stop(60)
        return row

    def cancel_seconds(self, system: System) -> float:
        """From the call of `cancel` until the record says so, for a job that runs."""
        records = system.task.records
        job = system.task.apply_async(("http://stand.in/sleep/60",), queue=system.apart)
        wait_until(lambda: records.get(job.id).state is State.RUNNING)
        time.sleep(self._rng.random())  # a worker asks twice a second; the cancel comes at any time
        called_at = time.time()
        system.task.cancel(job.id)
        wait_until(lambda: records.get(job.id).state is State.CANCELLED)
        return float(records.get(job.id).ended_at - called_at)

    def _fill(self, system: System, waiting: int) -> None:
        lengths = [int(self._redis.llen(system.prefix + system.anywhere + step)) for step in PRIORITY_STEPS]
        for _ in range(waiting - sum(lengths)):
            system.task.apply_async((URL,), queue=system.anywhere)

    def _submit(self, system: System, row: Row) -> list[str]:
        """The jobs that are measured, ahead of those that wait; no worker runs meanwhile."""
        meter = Meter(self._redis, os.getpid(), [])
        before = meter.read()
        jobs = [system.task.apply_async((URL,), queue=system.anywhere, priority=FIRST) for _ in range(self._jobs)]
        spent = meter.read().since(before, len(jobs))
        row.per_job |= {"producer_cpu_ms": spent["main_cpu_ms"], "producer_round_trips": spent["worker_round_trips"]}
        return [job.id for job in jobs]

    def _start(self, system: System) -> Worker:
        self._started += 1
        log = self._folder / f"worker{self._started}.log"
        queues = f"{system.anywhere},{system.apart}"
        return Worker(log, f"w{self._started}", {}, ("-A", system.module), ("-Q", queues))

    def _cost(self, system: System, row: Row, ids: list[str], worker: Worker) -> None:
        worker.wait_until_ready()
        meter = Meter(self._redis, worker.process.pid, worker.children)
        self._wait_for(system, ids[WARM_UP_JOBS - 1], meter)
        before = meter.read()
        self._wait_for(system, ids[-1], meter)
        row.per_job |= meter.read().since(before, len(ids) - WARM_UP_JOBS)

    def _wait_for(self, system: System, job_id: str, meter: Meter) -> None:
        key = f"{system.prefix}celery-task-meta-{job_id}"
        wait_until(lambda: '"SUCCESS"' in (meter.get(key) or ""), seconds=120, what=f"{system.name}: {job_id} is done")

    def _latency(self, system: System) -> float:
        time.sleep(self._rng.uniform(0, 0.05))
        called_at = time.time()
        job = system.task.apply_async((URL,), queue=system.apart)
        return system.started_at(job.id, job.get(timeout=30)) - called_at


def systems() -> tuple[System, System]:
    """Plain Celery, and ours."""
    # Configured on import, hence after the server is there.
    from benchmarks import plain  # noqa: PLC0415
    from tasks.diarize import diarize  # noqa: PLC0415
    from tasks.job import ANYWHERE, LOCAL  # noqa: PLC0415

    def taken_at(job_id: str, _: Any) -> float:
        record = diarize.records.get(job_id)
        assert record is not None
        assert record.started_at is not None
        return record.started_at

    return (
        System(
            "plain Celery",
            plain.diarize,
            "benchmarks.plain",
            plain.PREFIX,
            plain.ANYWHERE,
            plain.APART,
            lambda _, result: float(result["started_at"]),
        ),
        System("ours", diarize, "tasks", diarize.settings.redis_key_prefix, ANYWHERE, LOCAL, taken_at),
    )


def falls_short(rows: list[Row]) -> list[str]:
    """In what our cost is not flat; empty where it is."""
    ours = [row for row in rows if row.system == "ours"]
    few, many = ours[0].per_job, ours[-1].per_job
    too_much = [name for name in few if "cpu" in name and many[name] > MORE_CPU * few[name]]
    too_much += [name for name in few if "trips" in name and many[name] > few[name] + MORE_ROUND_TRIPS]
    return [
        f"{name} {few[name]:g} with {ours[0].waiting} waiting, {many[name]:g} with {ours[-1].waiting}"
        for name in too_much
    ]


def print_rows(rows: list[Row]) -> None:
    """The table."""
    cpu = [f"CPU ms\n{who}" for who in ("producer", "main", "child", "worker")]
    table = Table("", "waiting", *cpu, "round trips\nproducer", "\nworker", "start ms\np50", "\np95")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        cost = row.per_job
        cpu = [f"{cost[f'{who}_cpu_ms']:.2f}" for who in ("producer", "main", "child", "worker")]
        trips = [f"{cost[f'{who}_round_trips']:.1f}" for who in ("producer", "worker")]
        table.add_row(row.system, f"{row.waiting:,}", *cpu, *trips, *(f"{value:.1f}" for value in row.latency_ms))
    print(
        "per job: CPU of the producer, the worker's main process, its child, both; round trips to Redis; submit → start"
    )
    Console(width=110).print(table)


def main() -> int:
    """Measure, print, write the results down."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.queue", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--waiting", type=int, nargs="+", default=[10, 1_000, 20_000], help="default: 10 1000 20000")
    parser.add_argument("--jobs", type=int, default=400, help=f"per measurement, {WARM_UP_JOBS} to warm up among them")
    given = parser.parse_args()
    forget_settings()
    with tempfile.TemporaryDirectory(prefix="diarize-bench-") as folder, EmbeddedValkey(Path(folder)) as server:
        os.environ.update(REDIS_URL=server.url, DIARIZATION_DIARIZER="tests.standin:load", TMPDIR=folder)
        bench, (plain, ours) = Bench(server, Path(folder), given.jobs), systems()
        rows: list[Row] = []
        cancels: list[float] = []
        for waiting in given.waiting:
            last = waiting == given.waiting[-1]
            rows.append(bench.row(plain, waiting))
            then = (lambda _: cancels.extend(bench.cancel_seconds(ours) for _ in range(CANCELS))) if last else None
            rows.append(bench.row(ours, waiting, then=then))
        with Redis.from_url(server.url) as client:
            facts = {
                "date": f"{datetime.now(UTC):%Y-%m-%d}",
                "command": " ".join(["python -m benchmarks.queue", *sys.argv[1:]]),
                "hardware": hardware(),
                "versions": versions(client),
            }
    return conclude(rows, percentiles([1000 * seconds for seconds in cancels]), facts)


def conclude(rows: list[Row], cancel_ms: tuple[float, float], facts: dict[str, Any]) -> int:
    """Print all and write it down; the exit code."""
    print(json.dumps(facts))
    print_rows(rows)
    print(f"cancel of a running job, until its record says so: p50 {cancel_ms[0]:.0f} ms, p95 {cancel_ms[1]:.0f} ms")
    failures = falls_short(rows)
    RESULTS.parent.mkdir(exist_ok=True)
    written = {**facts, "rows": [asdict(row) for row in rows], "cancel_ms": cancel_ms, "falls_short": failures}
    RESULTS.write_text(json.dumps(written, indent=2) + "\n")
    print(
        f"bench-queue: FAILED: {'; '.join(failures)}"
        if failures
        else "bench-queue: ok, a job's cost does not grow with the queue"
    )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
