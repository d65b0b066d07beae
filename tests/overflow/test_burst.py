"""Twelve recordings at once: a worker here, a bridge, an emulated endpoint, and all of it restarted in the middle."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tasks.diarize import diarize
from tasks.record import State
from tasks.runpod_bridge import diarize_on_runpod
from tasks.valkey import EmbeddedValkey
from tests.bridge import HASTY, emulated, ledger, start_bridge
from tests.emulator import Emulator, Settings
from tests.jobs import answers, record
from tests.processes import ROOT, Worker, wait_until
from tests.servers import serve_folder

Start = Callable[..., Worker]

PATHS = [f"sleep/{3 + n / 10}" for n in range(12)]


def bridge(start: Start, emulator: Emulator) -> Worker:
    return start_bridge(start, emulator, arguments=("-A", "tests.hasty"), **{**HASTY, "QUEUE_LEASE_SECONDS": 4})


@pytest.mark.parametrize("broken", [False, True], ids=["calm", "everything restarts"])
def test_a_burst(redis: Redis, server: EmbeddedValkey, start_worker: Start, tmp_path: Path, broken: bool) -> None:
    with emulated(tmp_path, active_workers=0, max_workers=2, scale_after_seconds=0.5, idle_seconds=4) as emulator:
        start_worker(QUEUE_LEASE_SECONDS=4)
        first = bridge(start_worker, emulator)
        held = diarize.delay("http://stand.in/wait/go", provider="local")  # else its speed may close the valve first
        wait_until(lambda: record(held).state is State.RUNNING)
        jobs = [diarize.delay(f"http://stand.in/{path}", deadline_seconds=3) for path in PATHS]
        wait_until(lambda: len(emulator.submissions) >= 2, what=f"two went out: {first.folder}")
        (tmp_path / "go").touch()
        if broken:
            break_everything(redis, server, start_worker, emulator, first)
        results = {path: result(job) for path, job in zip(PATHS, jobs, strict=True)}
        by = {path: one["provenance"]["provider"] for path, one in results.items()}
        assert set(by.values()) == {"local", "runpod"}
        out = emulator.submissions_by("audio_url")
        assert set(out.values()) == {1}, "each of them once"
        went_out = {url.split("stand.in/")[1] for url in out}
        assert {path for path, provider in by.items() if provider == "runpod"} <= went_out
        for path in sorted(went_out)[:3]:
            local = diarize.delay(f"http://stand.in/{path}", provider="local")
            assert turns(results[path]) == turns(local.get(timeout=60))
        wait_until(lambda: not emulator.health["workers"]["running"] and not emulator.health["workers"]["idle"])
        today = wait_until(lambda: (spend := ledger(redis).today()).in_flight == 0 and spend)
        assert today.spent_usd >= emulator.bill_usd, "the ledger covers the bill"
        assert today.spent_usd <= len(emulator.submissions) * 0.05


def break_everything(redis: Redis, server: EmbeddedValkey, start: Start, emulator: Emulator, first: Worker) -> None:
    first.kill()
    with emulator.outage():
        second = bridge(start, emulator)
        time.sleep(1)
    server.kill()
    server.start()
    wait_until(lambda: answers(redis))
    assert second.process.poll() is None, second.log


def result(job: Any) -> Any:
    wait_until(lambda: record(job).state.ended, seconds=120, what=f"{record(job)}")
    return job.get(timeout=20)


def turns(one: Any) -> Any:
    return one["segments"], one["exclusive_segments"], one["speakers"], one["audio_seconds"]


@pytest.mark.model
def test_the_real_model_answers_there_as_it_does_here(
    redis: Redis, start_worker: Start, tmp_path: Path, python: Callable[..., str]
) -> None:
    real = {"DIARIZATION_DIARIZER": "diarization.pipeline:load", "DIARIZATION_DEVICE": "cpu"}
    with (
        serve_folder(ROOT / "recordings" / "sample") as site,
        Emulator(tmp_path, Settings(active_workers=1), environment=real) as emulator,
    ):
        start_worker(**real)
        start_bridge(start_worker, emulator, OVERFLOW_REACHABLE_NETWORKS="127.0.0.0/8")
        here = diarize.delay(f"{site.url}/sample.wav", provider="local")
        submit = f"from tasks.runpod_bridge import diarize_on_runpod as d; print(d.delay('{site.url}/sample.wav').id)"
        job_id = python(submit, OVERFLOW_REACHABLE_NETWORKS="127.0.0.0/8").strip()
        there = diarize_on_runpod.AsyncResult(job_id).get(timeout=200)
        assert there["provenance"]["provider"] == "runpod"
        assert turns(there) == turns(here.get(timeout=200))
