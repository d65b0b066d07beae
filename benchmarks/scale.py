"""Many workers on one Redis: how near they come to the ideal, and what Redis does for it.

    python -m benchmarks.scale [--workers 64] [--jobs 20000] [--seconds 1.0]

Real workers with a stand-in diarizer, which sleeps for so long for each job: a fleet in scaled
time. The ideal is that no worker ever waits: jobs times seconds, divided by the workers. All jobs wait before the first
worker starts; what is measured begins when all workers are there. Then single jobs come to an idle fleet: submit →
start.

It exits with 1 where a job is lost or done twice, or where the fleet is slower than `LEAST_SHARE` of the ideal.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from subprocess import Popen
from typing import Any

from redis import Redis

from benchmarks.meter import cpu_milliseconds, hardware, versions
from benchmarks.report import percentiles
from tasks.tether import spawn_tethered
from tasks.valkey import EmbeddedValkey
from tests.processes import ROOT, forget_settings, wait_until

RESULTS = Path(__file__).with_name("results") / "scale.json"
LEAST_SHARE = 0.9
SINGLE_JOBS = 100
AUDIO_SECONDS = 300
"""Of a job. Its answer has some 80 turns: the stand-in makes them up, and longer meetings would be its cost alone."""
START_AT_ONCE = 8
"""Workers that load at one time: more would only take the cores from each other."""
SETTLE_SECONDS = 5.0


class Fleet:
    """The workers, and the jobs that they have done."""

    def __init__(self, folder: Path, redis: Redis, stack: ExitStack) -> None:
        # Configured on import, hence after the server is there.
        from tasks.diarize import diarize  # noqa: PLC0415
        from tasks.registry import Registry  # noqa: PLC0415

        self._folder = folder
        self._redis = redis
        self._stack = stack
        self._task = diarize
        self._registry = Registry(redis, diarize.settings)
        self._prefix = diarize.settings.redis_key_prefix
        self._workers: list[Popen[bytes]] = []

    def submit(self, jobs: int, seconds: float) -> float:
        """So many jobs; milliseconds each."""
        began = time.monotonic()
        for number in range(jobs):
            self._task.delay(f"http://stand.in/work/{AUDIO_SECONDS}/{seconds}/{number}")
        return (time.monotonic() - began) / jobs * 1000

    def start(self, count: int) -> None:
        """So many workers, which take nothing before all of them are there."""
        for _ in range(count):
            number = len(self._workers)
            sink = self._stack.enter_context((self._folder / f"w{number}.log").open("wb"))
            options = ("-n", f"w{number}@scale", "-c", "1", "-l", "warning", "-Q", "diarize.later")
            command = [sys.executable, "-m", "celery", "-A", "tasks", "worker", *options]
            self._workers.append(spawn_tethered(command, stdout=sink, folder=ROOT))
            if len(self._workers) % START_AT_ONCE == 0 or len(self._workers) == count:
                wait_until(lambda: len(self._registry.alive()) >= len(self._workers), 180, "the workers are there")
        time.sleep(SETTLE_SECONDS)

    def begin(self) -> None:
        """Let all take jobs, by one broadcast."""
        self._task.app.control.add_consumer("diarize")

    def done(self) -> int:
        """Jobs that are done."""
        return int(self._redis.zcard(self._prefix + "state:done"))

    def cpu_seconds(self) -> float:
        """Of the workers' processes."""
        return sum(cpu_milliseconds(pid) for pid in self._pids()) / 1000

    def memory_mib(self) -> float:
        """Of the workers' processes, what they share divided among them."""
        kib = 0
        for pid in self._pids():
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            kib += int(rollup.partition("\nPss:")[2].split()[0])
        return kib / 1024

    def spans(self) -> dict[str, list[tuple[float, float]]]:
        """Start and end of each job, by worker, in order; by the server's clock."""
        spans: dict[str, list[tuple[float, float]]] = defaultdict(list)
        ids: Any = self._redis.zrange(self._prefix + "state:done", 0, -1)
        for page in _batched(ids, 500):
            with self._redis.pipeline(transaction=False) as pipe:
                for job_id in page:
                    pipe.hmget(f"{self._prefix}job:{job_id}", "worker", "started_at", "ended_at", "attempts")
                for worker, started_at, ended_at, attempts in pipe.execute():
                    assert attempts == "1", "a job was started again"
                    spans[worker].append((float(started_at), float(ended_at)))
        return {worker: sorted(jobs) for worker, jobs in spans.items()}

    def latency_ms(self) -> float:
        """Of one job that comes to an idle fleet: submit → start."""
        called_at = time.time()
        job = self._task.delay("http://stand.in/turns/60/2")
        job.get(timeout=30)
        record = self._task.records.get(job.id)
        assert record is not None
        return ((record.started_at or 0.0) - called_at) * 1000

    def stop(self) -> None:
        """End them; each in its own time."""
        for worker in self._workers:
            worker.terminate()
        for worker in self._workers:
            worker.wait(60)

    def _pids(self) -> list[int]:
        found = []
        for worker in self._workers:
            children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()
            found += [worker.pid, *map(int, children)]
        return found


def _batched(items: list[str], size: int) -> list[list[str]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def measure(redis: Redis, fleet: Fleet, workers: int, jobs: int, seconds: float) -> dict[str, Any]:
    """Fill, start, run dry, then trickle."""
    empty = _memory(redis)
    submit_ms = fleet.submit(jobs, seconds)
    waiting_bytes = (_memory(redis) - empty) / jobs
    print(f"{jobs:,} jobs wait, {submit_ms:.2f} ms each to submit; {workers} workers start", flush=True)
    fleet.start(workers)
    idle_from, redis_from, cpu_from = time.monotonic(), _cpu(redis), fleet.cpu_seconds()
    time.sleep(SETTLE_SECONDS)
    idle = time.monotonic() - idle_from
    idle_cores = (fleet.cpu_seconds() - cpu_from) / idle
    idle_redis = (_cpu(redis) - redis_from) / idle
    began, redis_from, cpu_from = time.monotonic(), _cpu(redis), fleet.cpu_seconds()
    fleet.begin()
    _watch(fleet, jobs, began)
    wall = time.monotonic() - began
    redis_cpu, cpu, memory = _cpu(redis) - redis_from, fleet.cpu_seconds() - cpu_from, fleet.memory_mib()
    ended_bytes = (_memory(redis) - empty) / jobs
    spans = fleet.spans()
    gaps = [after[0] - before[1] for own in spans.values() for before, after in itertools.pairwise(own)]
    rng = random.Random(0)
    latencies = []
    for _ in range(SINGLE_JOBS):
        time.sleep(rng.uniform(0, 0.1))
        latencies.append(fleet.latency_ms())
    return {
        "workers": workers,
        "jobs": jobs,
        "seconds_a_job": seconds,
        "done": sum(map(len, spans.values())),
        "wall_seconds": round(wall, 1),
        "ideal_seconds": round(jobs * seconds / workers, 1),
        "share_of_ideal": round(jobs * seconds / workers / wall, 3),
        "jobs_a_second": round(jobs / wall, 1),
        "fewest_and_most_jobs_of_a_worker": [min(map(len, spans.values())), max(map(len, spans.values()))],
        "between_two_jobs_ms": [round(1000 * one, 1) for one in percentiles(gaps)],
        "submit_to_start_idle_ms": [round(one, 1) for one in percentiles(latencies)],
        "submit_ms": round(submit_ms, 2),
        "worker_cpu_ms_a_job": round(1000 * cpu / jobs, 2),
        "worker_idle_cores": round(idle_cores, 3),
        "redis_cores": round(redis_cpu / wall, 3),
        "redis_idle_cores": round(idle_redis, 3),
        "redis_cpu_ms_a_job": round(1000 * redis_cpu / jobs, 3),
        "redis_bytes_a_waiting_job": round(waiting_bytes),
        "redis_bytes_an_ended_job": round(ended_bytes),
        "redis_peak_mib": round(_memory(redis, "used_memory_peak") / 1024**2, 1),
        "worker_mib": round(memory / workers, 1),
    }


def _watch(fleet: Fleet, jobs: int, began: float) -> None:
    said = began
    while (done := fleet.done()) < jobs:
        if time.monotonic() - said > 30:
            said = time.monotonic()
            print(f"{done:,} done after {said - began:.0f} s", flush=True)
        time.sleep(0.5)


def _cpu(redis: Redis) -> float:
    facts: Any = redis.info("cpu")
    return float(facts["used_cpu_sys"]) + float(facts["used_cpu_user"])


def _memory(redis: Redis, name: str = "used_memory") -> int:
    facts: Any = redis.info("memory")
    return int(facts[name])


def main() -> int:
    """Measure, print, write the results down; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=1.0, help="that a worker takes for a job, in scaled time")
    given = parser.parse_args()
    forget_settings()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="diarize-scale-")))
        server = stack.enter_context(EmbeddedValkey(folder, persistent=True))
        os.environ.update(REDIS_URL=server.url, DIARIZATION_DIARIZER="tests.standin:load", TMPDIR=str(folder))
        redis = stack.enter_context(Redis.from_url(server.url, decode_responses=True))
        fleet = Fleet(folder, redis, stack)
        stack.callback(fleet.stop)
        found = measure(redis, fleet, given.workers, given.jobs, given.seconds)
        facts = {
            "date": f"{datetime.now(UTC):%Y-%m-%d}",
            "command": " ".join(["python -m benchmarks.scale", *sys.argv[1:]]),
            "hardware": hardware(),
            "versions": versions(redis),
        }
    return conclude(found, facts)


def conclude(found: dict[str, Any], facts: dict[str, Any]) -> int:
    """Print all and write it down; the exit code."""
    print(json.dumps(facts))
    for name, value in found.items():
        print(f"{name.replace('_', ' '):34}{value}")
    failures = []
    if found["done"] != found["jobs"]:
        failures.append(f"{found['done']} of {found['jobs']} jobs are done")
    if found["share_of_ideal"] < LEAST_SHARE:
        failures.append(f"{found['share_of_ideal']:.0%} of the ideal, less than {LEAST_SHARE:.0%}")
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({**facts, **found, "falls_short": failures}, indent=2) + "\n")
    print(f"bench-scale: FAILED: {'; '.join(failures)}" if failures else "bench-scale: ok")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
