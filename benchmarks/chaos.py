"""A soak that breaks things on purpose: real workers, a real server, a stand-in for the model, faults by a seed.

    python -m benchmarks.chaos [--seed 4] [--minutes 6.5]

Lost: a job that was accepted and has not ended, ended as it should not, or of which Celery says something else than its
record. Ended twice: a record that was written to after its end (by the server's append-only file), two answers, a
callback called twice, or work done again though nobody was killed or frozen. Overlapped: two processes ran one job at a
time, though neither had stood still. It exits with 1 where there is any of them.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import random
import shutil
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.faults import Injury, Storm, draw
from benchmarks.fleet import Fleet
from benchmarks.history import History
from benchmarks.load import Producer, draw_orders
from benchmarks.report import print_details, print_table, print_totals
from benchmarks.runs import runs_of
from benchmarks.verdict import Evidence, disagreement
from benchmarks.witness import Witness
from tests.processes import forget_settings
from tests.standin import read_journal

CHILDREN = [2, 1, 1]
FAULTS_PER_MINUTE, JOBS_PER_MINUTE = 10, 40
STORM_SECONDS_PER_MINUTE = 50.0
"""What is left of a minute is for starting, and for the last jobs to end."""
DRAIN_SECONDS = 120.0
EVERYTHING = 100_000
TICK_SECONDS = 0.02
SETTINGS = {
    "QUEUE_LEASE_SECONDS": "6",
    "QUEUE_MAX_ATTEMPTS": "6",
    "QUEUE_RETRY_BASE_SECONDS": "0.5",
    "QUEUE_RETRY_CAP_SECONDS": "3",
    "QUEUE_STALL_SECONDS": "15",
    "QUEUE_GRACE_SECONDS": "3",
    "DIARIZATION_DIARIZER": "tests.standin:load",
}


class Soak:
    """One soak, from the first worker to the evidence."""

    def __init__(self, folder: Path, seed: int, minutes: float) -> None:
        self.fleet = Fleet(folder)
        self.lease_seconds = float(SETTINGS["QUEUE_LEASE_SECONDS"])
        rng, seconds = random.Random(seed), minutes * STORM_SECONDS_PER_MINUTE
        self._faults = draw(rng, round(FAULTS_PER_MINUTE * minutes), seconds, self.lease_seconds)
        self._orders = draw_orders(rng, round(JOBS_PER_MINUTE * minutes), seconds)
        self.jobs = [job for order in self._orders for job in order.jobs]
        self.witness = Witness(folder)
        self.storm = Storm(self.fleet, self._faults, self.lease_seconds, self.witness)
        self.complaints: list[str] = []

    def run(self) -> Evidence:
        """All of it."""
        forget_settings()
        (self.fleet.folder / "tmp").mkdir()
        own = {"REDIS_URL": self.fleet.server.url, "STANDIN_DIR": str(self.fleet.folder)}
        os.environ.update(SETTINGS | own | {"TMPDIR": str(self.fleet.folder / "tmp")})
        from tasks.diarize import diarize  # noqa: PLC0415 - configured on import, hence after the settings are made

        self.witness.start()
        self.fleet.start({}, CHILDREN)
        self.producer = Producer(diarize, self._orders)
        self._weather()
        self._drain(diarize)
        evidence = self._evidence(diarize)
        self.complaints += self.producer.complaints
        self.complaints += [injury.complaint for injury in self.storm.injuries if injury.complaint]
        return evidence

    def stop(self) -> None:
        """End everything."""
        gc.collect()  # results that go later would miss the server
        self.complaints += self.fleet.stop()
        if self.witness.is_alive():
            self.witness.stop()

    def _weather(self) -> None:
        """Let the faults come, until all is healed and every job is accepted."""
        began = time.monotonic()
        self.producer.start()
        while not self.storm.over or self.producer.is_alive():
            injury = self.storm.step(time.monotonic() - began)
            if injury:
                _say(f"{time.monotonic() - began:6.1f} s  {injury.name} {_names(injury)}")
            self._supervise()
            time.sleep(TICK_SECONDS)

    def _supervise(self) -> None:
        """Who ends by itself is started again, as by a service manager; but it should not have ended."""
        for berth in self.fleet.berths:
            if not berth.taken and not berth.alive:
                self.complaints.append(f"{berth.name} ended by itself with {berth.worker.process.returncode}")
                berth.start()

    def _drain(self, task: Any) -> None:
        """Until every job has ended and Celery knows of it, or the time is up."""
        deadline = time.monotonic() + DRAIN_SECONDS
        wanted = {job.url for job in self.jobs}
        while time.monotonic() < deadline:
            self._supervise()
            records = task.records.newest(limit=EVERYTHING)
            ended = {record.shown for record in records if record.state.ended}
            answered = not any(disagreement(one, _answer(task, one.id)) for one in records if one.state.ended)
            left = self.fleet.messages(task.settings.redis_key_prefix)
            if wanted <= ended and answered and not left:
                return
            time.sleep(0.5)
        self.complaints += [f"{count} left in {key} after {DRAIN_SECONDS:.0f} s" for key, count in left.items()]

    def _evidence(self, task: Any) -> Evidence:
        self.witness.stop()
        # A machine that stands still freezes all of them.
        frozen = {pid: [*self.fleet.frozen[pid], *self.witness.stalls] for pid in self.witness.last_alive}
        records = {record.id: record for record in task.records.newest(limit=EVERYTHING)}
        return Evidence(
            jobs=self.jobs,
            records=records,
            history=History.read(self.fleet.folder, task.settings.redis_key_prefix),
            runs=runs_of(read_journal(self.fleet.folder), self.witness.last_alive),
            frozen=frozen,
            injuries=self.storm.injuries,
            lease_seconds=self.lease_seconds,
            answers={job_id: _answer(task, job_id) for job_id in records},
        )


def _answer(task: Any, job_id: str) -> dict[str, Any]:
    meta = task.backend.get_task_meta(job_id, cache=False)
    return {"status": meta["status"], "result": meta["result"]}


def _names(injury: Injury) -> str:
    return " ".join(berth.name for berth in injury.berths)


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


def main() -> int:
    """Run a soak, print what it has shown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seed", type=int, default=4, help="which faults and jobs; default: 4")
    parser.add_argument(
        "--minutes", type=float, default=6.5, help="about how long; scales faults and jobs; default: 6.5"
    )
    given = parser.parse_args()
    print(
        f"chaos: seed {given.seed}, {given.minutes:g} minutes; {datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, "
        f"{os.cpu_count()} cores, Python {platform.python_version()}; workers with {CHILDREN} children\n"
        + ", ".join(f"{name}={value}" for name, value in SETTINGS.items())
    )
    folder = Path(tempfile.mkdtemp(prefix="diarize-chaos-"))
    failures = ["it broke off"]
    try:
        soak = Soak(folder, given.seed, given.minutes)
        with soak.fleet.server:
            try:
                evidence = soak.run()
            finally:
                soak.stop()
        failures = conclude(soak, evidence)
    finally:
        if not failures:
            shutil.rmtree(folder)
        else:
            print(f"logs and the server's files are kept in {folder}")
    print(f"chaos: FAILED: {'; '.join(failures)}" if failures else "chaos: ok")
    return 1 if failures else 0


def conclude(soak: Soak, evidence: Evidence) -> list[str]:
    """Print the tables; what was wrong, in short."""
    findings = evidence.findings()
    if findings or soak.complaints:
        print_details(evidence, findings, soak.fleet)
    for complaint in soak.complaints:
        print(complaint)
    print_table(evidence, findings)
    print_totals(evidence, soak.producer, soak.witness)
    counted = {
        sort: sum(finding.sort == sort for finding in findings) for sort in ("lost", "ended twice", "overlapped")
    }
    failures = [f"{count} {sort}" for sort, count in counted.items() if count]
    return failures + ([f"{len(soak.complaints)} complaints"] if soak.complaints else [])


if __name__ == "__main__":
    sys.exit(main())
