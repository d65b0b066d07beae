"""A fault in a phase: the job ends, it was submitted once an attempt, and the ledger covers what it cost.

`MATRIX=all` in the environment runs each fault in each mode.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from diarization.errors import QueueUnavailable
from tasks.diarize import diarize
from tasks.record import JobRecord, State
from tasks.runpod_bridge import diarize_on_runpod
from tasks.valkey import EmbeddedValkey
from tests.bridge import HASTY, emulated, ledger, start_bridge
from tests.emulator import Emulator
from tests.jobs import answers, record
from tests.overflow.faults import BUSY, PINNED, Row, cases
from tests.processes import Worker, wait_until

Start = Callable[..., Worker]

CASES = cases(every=os.environ.get("MATRIX") == "all")
BUDGET_USD = 1.0


class Scene:
    """Everything that one case needs."""

    def __init__(self, start: Start, emulator: Emulator, server: EmbeddedValkey, redis: Redis, folder: Path) -> None:
        self.start, self.emulator, self.server, self.redis, self.folder = start, emulator, server, redis, folder

    def bridge(self, **settings: Any) -> Worker:
        known = {**HASTY, "OVERFLOW_BUDGET_USD_PER_DAY": BUDGET_USD, **settings}
        return start_bridge(self.start, self.emulator, arguments=("-A", "tests.hasty"), **known)

    def submit(self, row: Row, mode: str) -> Any:
        """The job; a GPU worker that is busy takes it once it is on its way to RunPod."""
        url = f"http://stand.in/{row.path}"
        if mode == PINNED:
            return diarize_on_runpod.apply_async((url,), {"deadline_seconds": 120})
        if mode == BUSY:
            self.start(QUEUE_LEASE_SECONDS=3, QUEUE_RETRY_BASE_SECONDS=0.2)
            held = diarize.delay("http://stand.in/wait/hold", expected_audio_seconds=36_000)
            wait_until(lambda: record(held).state is State.RUNNING)
        return diarize.delay(url, deadline_seconds=20)

    def act(self, what: str, job: Any) -> None:
        """What goes wrong once the job is at RunPod."""
        if not what:
            return
        wait_until(lambda: self.emulator.jobs and (record(job).remote or record(job).state.ended))
        if what == "restart redis":
            self.server.kill()
            self.server.start()
            wait_until(lambda: answers(self.redis))
        elif what == "silence":
            with self.emulator.outage():
                time.sleep(2)
        elif what == "cancel":
            wait_until(lambda: record(job).stage == "at runpod")
            job.revoke()
        else:
            run = next(iter(self.emulator.jobs))
            with self.emulator.outage():
                wait_until(lambda: self.emulator.jobs[run].is_final)
                self.emulator.advance(1801)


def ended(job: Any) -> JobRecord | None:
    try:
        found = record(job)
    except QueueUnavailable:
        return None
    return found if found.state.ended else None


@pytest.mark.parametrize(("row", "mode"), CASES, ids=[f"{row.id}, {mode}" for row, mode in CASES])
def test_a_fault(
    redis: Redis,
    server: EmbeddedValkey,
    start_worker: Start,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
    row: Row,
    mode: str,
) -> None:
    for name, value in (("phase", row.phase), ("fault", row.name), ("mode", mode)):
        record_property(name, str(value))
    with emulated(tmp_path, retries=0) as emulator:
        scene = Scene(start_worker, emulator, server, redis, tmp_path)
        emulator.script(*row.faults)
        bridge = scene.bridge(DIES_AT=row.dies_at) if row.dies_at else scene.bridge()
        job = scene.submit(row, mode)
        if row.dies_at:
            assert bridge.process.wait(60) == -9
            scene.bridge()
        wait_until(lambda: emulator.requests["run"] or record(job).cost_usd or record(job).state.ended)
        (tmp_path / "hold").touch()
        scene.act(row.act, job)
        end = wait_until(lambda: ended(job), seconds=90, what=f"the job ends: {record(job)}")
        spend = wait_until(lambda: (today := ledger(redis).today()).in_flight == 0 and today, what="all is settled")
        tell(record_property, end, len(emulator.submissions), spend.spent_usd)
        assert end.state is (
            State.CANCELLED if row.act == "cancel" else State.DEAD if rejected(row, mode) else State.DONE
        )
        assert len(emulator.submissions) <= end.attempts
        assert (
            all(run.is_final for run in emulator.jobs.values() if run.fault not in ("odd", "overtaken")) or row.unknown
        )
        assert 0 <= spend.spent_usd <= BUDGET_USD
        if emulator.submissions:
            assert spend.spent_usd > 0


def rejected(row: Row, mode: str) -> bool:
    return row.name == "400" and mode != BUSY


def tell(record_property: Callable[[str, object], None], end: JobRecord, submitted: int, spent_usd: float) -> None:
    by = (end.result or {}).get("provenance", {}).get("provider", "")
    facts = {"end": end.state, "by": by, "attempts": end.attempts, "submitted": submitted}
    for name, value in (facts | {"spent USD": f"{spent_usd:.4f}"}).items():
        record_property(name, str(value))
