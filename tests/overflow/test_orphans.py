"""A job at RunPod whose bridge never comes back: once RunPod has forgotten its run, the own GPUs do it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from redis import Redis

from tasks import chores
from tasks.celery import app
from tasks.chores import Chores
from tasks.diarize import diarize
from tasks.record import State
from tasks.records import Records
from tasks.registry import Registry
from tasks.settings import read_settings
from tests.bridge import HASTY, emulated, ledger, start_bridge
from tests.emulator import Fault
from tests.jobs import record
from tests.processes import Worker, wait_until

Start = Callable[..., Worker]


def test_a_run_that_nobody_follows_is_done_at_home(
    redis: Redis, start_worker: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chores, "EVERYTHING_EVERY", 1)
    monkeypatch.setenv("QUEUE_LEASE_SECONDS", "3")
    settings = read_settings()
    round_of = Chores(app, Records(settings), Registry(redis, settings), redis, settings, "the test")
    with emulated(tmp_path) as emulator:
        emulator.script(Fault("job", "stuck-queued"))
        bridge = start_bridge(start_worker, emulator, arguments=("-A", "tests.hasty"), **HASTY)
        job = diarize.delay("http://stand.in/turns/5/2")
        wait_until(lambda: (run := record(job).remote) and run.run_id)
        bridge.kill()
        start_worker(QUEUE_LEASE_SECONDS=3)  # its issuer finds that the bridge is silent
        wait_until(lambda: record(job).state is State.QUEUED)
        round_of.round()
        assert record(job).state is State.QUEUED, "RunPod may still do it"
        run = record(job).remote
        assert run is not None
        long_ago = replace(run, intended_at=run.intended_at - 3600)
        redis.hset(f"{settings.redis_key_prefix}job:{job.id}", "remote", long_ago.to_json())
        redis.delete(settings.redis_key_prefix + "leader")  # which the worker has by now
        wait_until(lambda: round_of.round() or record(job).state.ended)
        result = job.get(timeout=60)
        assert result["provenance"]["provider"] == "local"
        assert result["provenance"]["cost_usd"] == pytest.approx(run.reserved_usd, abs=1e-6)
        today = ledger(redis).today()
        assert (today.in_flight, today.spent_usd) == (0, pytest.approx(run.reserved_usd))
