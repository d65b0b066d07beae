"""The canary: a quiet endpoint is kept awake, one that answers wrongly or not at all gets no jobs, and says why."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from diarization import __version__, canary
from tasks.canary import Canary, Sighting
from tasks.diarize import diarize
from tasks.overflow.outcomes import Outcomes
from tasks.record import State
from tasks.settings import read_settings
from tests.bridge import HASTY, emulated, ledger, start_bridge
from tests.emulator import Emulator, Fault
from tests.jobs import record
from tests.processes import Worker, run_cli, wait_until

Start = Callable[..., Worker]
HASTY_APP = ("-A", "tests.hasty")


def bridge(start: Start, emulator: Emulator, **settings: Any) -> Worker:
    known = {**HASTY, "OVERFLOW_CANARY_HOURS": 24, **settings}
    return start_bridge(start, emulator, arguments=HASTY_APP, **known)


def sighting(redis: Redis) -> Sighting | None:
    return Canary(redis, read_settings()).last()


def ended(redis: Redis) -> Sighting | None:
    last = sighting(redis)
    return last if last is not None and last.ended_at is not None else None


def test_a_new_endpoint_is_looked_at_once(redis: Redis, start_worker: Start, tmp_path: Path) -> None:
    with emulated(tmp_path) as emulator:
        first = bridge(start_worker, emulator)
        last = wait_until(lambda: ended(redis))
        assert last.failure is None
        assert emulator.submissions[0].input["audio_url"] == canary.URL
        assert 0 < ledger(redis).today().spent_usd < 0.02
        assert ledger(redis).today().in_flight == 0
        assert f"canary {last.job_id} is right" in first.log
        assert f"of version None, this bridge of {__version__}" in str(last.note), "the stand-in says none"
        shown = run_cli("queue")
        assert "canary     RunPod's image is of version None" in shown.stdout
        second = bridge(start_worker, emulator)  # a bridge that comes later knows of it
        diarize.delay("http://stand.in/turns/5/2").get(timeout=60)
        assert second.process.poll() is None
        assert len(emulator.submissions) == 2


def test_real_runs_spare_the_canary_and_quiet_brings_it(redis: Redis, start_worker: Start, tmp_path: Path) -> None:
    with emulated(tmp_path) as emulator:
        key = read_settings().redis_key_prefix + "fleet:canary"
        now = float(redis.time()[0])  # type: ignore[index]  # redis-py types it for asyncio, too
        an_hour_ago = Sighting("gone", now - 3600, now - 3600)
        redis.set(key, json.dumps(vars(an_hour_ago)))
        bridge(start_worker, emulator, OVERFLOW_CANARY_HOURS=0.5)
        wait_until(lambda: (last := ended(redis)) and last.job_id != "gone")
        assert len(emulator.submissions) == 1
        redis.set(key, json.dumps(vars(an_hour_ago)))  # long ago, but that run was just now
        diarize.delay("http://stand.in/turns/5/2").get(timeout=60)
        assert [one.input["audio_url"] for one in emulator.submissions][1:] == ["http://stand.in/turns/5/2"]
        assert sighting(redis) == an_hour_ago


def test_a_wrong_answer_shuts_the_valve_until_a_right_one(redis: Redis, start_worker: Start, tmp_path: Path) -> None:
    (tmp_path / "sick").touch()
    with emulated(tmp_path) as emulator:
        worker = bridge(start_worker, emulator)
        wait_until(lambda: (last := ended(redis)) and last.failure)
        assert "RunPod gets no jobs" in worker.log
        assert "10 s of audio came out as 30 s" in worker.log
        job = diarize.delay("http://stand.in/turns/5/2")
        wait_until(lambda: len(emulator.submissions) >= 2, what="the next canary, once the breaker lets it")
        assert record(job).state is State.QUEUED
        assert {one.input["audio_url"] for one in emulator.submissions} == {canary.URL}
        (tmp_path / "sick").unlink()
        assert job.get(timeout=60)["provenance"]["provider"] == "runpod"
        last = sighting(redis)
        assert last is not None
        assert last.failure is None


def test_an_endpoint_that_accepts_and_fails_is_tried_ever_less_often(
    redis: Redis, start_worker: Start, tmp_path: Path
) -> None:
    """That RunPod takes a canary says nothing of what it makes of it: each costs money."""
    (tmp_path / "sick").touch()
    with emulated(tmp_path) as emulator:
        worker = bridge(start_worker, emulator)
        wait_until(lambda: (last := ended(redis)) and last.failures >= 3, 60)
        for seconds in (1, 2, 4):
            assert worker.log.count(f"RunPod gets no jobs for {seconds} s: the canary failed") == 1
        assert len(emulator.submissions) == 3


def test_max_workers_of_0_are_told_and_nothing_is_sent(redis: Redis, start_worker: Start, tmp_path: Path) -> None:
    with emulated(tmp_path, max_workers=0, active_workers=0) as emulator:
        worker = bridge(start_worker, emulator)
        wait_until(lambda: "its max workers are 0: raise them in RunPod's console" in worker.log)
        diarize.delay("http://stand.in/turns/5/2")
        wait_until(lambda: (last := sighting(redis)) and last.failure)
        assert emulator.submissions == []
        assert ledger(redis).today().spent_usd == 0


def test_an_endpoint_that_fails_it_gets_no_jobs(redis: Redis, start_worker: Start, tmp_path: Path) -> None:
    """As one of another make, whose handler answers in its own way."""
    with emulated(tmp_path) as emulator:
        emulator.script(Fault("job", "garbled", times=2))
        bridge(start_worker, emulator, QUEUE_MAX_ATTEMPTS=2)
        last = wait_until(lambda: ended(redis))
        assert "the canary failed, overflow_lost: RunPod answered COMPLETED without a usable result" in str(
            last.failure
        )
        assert diarize.records.get(last.job_id) is None, "nobody is to replay it"
        job = diarize.delay("http://stand.in/turns/5/2")
        assert job.get(timeout=60)["provenance"]["provider"] == "runpod", "after the next canary"


@pytest.mark.parametrize("setting", ["OVERFLOW_DRY_RUN", "OVERFLOW_BUDGET_USD_PER_DAY", "OVERFLOW_CANARY_HOURS"])
def test_where_nothing_is_to_be_sent_no_canary_is(redis: Redis, setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVERFLOW_CANARY_HOURS", "24")
    monkeypatch.setenv(setting, "true" if setting == "OVERFLOW_DRY_RUN" else "0")
    assert Canary(redis, read_settings()).round(now=1e9, last_run_at=0.0) is None
    assert sighting(redis) is None


def test_a_canary_without_a_job_is_sent_anew(redis: Redis, start_worker: Start, tmp_path: Path) -> None:
    """The bridge died between its note and the submission."""
    key = read_settings().redis_key_prefix + "fleet:canary"
    redis.set(key, json.dumps(vars(Sighting("never-submitted", float(redis.time()[0])))))  # type: ignore[index]
    with emulated(tmp_path) as emulator:
        bridge(start_worker, emulator)
        wait_until(lambda: ended(redis))
        assert len(emulator.submissions) == 1


def test_a_canary_that_is_lost_does_not_open_the_valve_that_the_one_before_has_shut(
    redis: Redis, start_worker: Start, tmp_path: Path
) -> None:
    """The endpoint's last runs came back, and were wrong: that it is not quiet says nothing for it."""
    now = float(redis.time()[0])  # type: ignore[index]
    lost = Sighting("lost", now, failure="the canary failed, it answers wrongly", failures=1)
    redis.set(read_settings().redis_key_prefix + "fleet:canary", json.dumps(vars(lost)))
    Outcomes(redis, read_settings()).add(worked=True, delay_seconds=1, execution_seconds=1, audio_seconds=10)
    (tmp_path / "sick").touch()
    with emulated(tmp_path) as emulator:
        bridge(start_worker, emulator)
        job = diarize.delay("http://stand.in/turns/5/2")
        wait_until(lambda: (last := ended(redis)) and last.failures == 2)
        assert record(job).state is State.QUEUED
        assert {one.input["audio_url"] for one in emulator.submissions} == {canary.URL}
