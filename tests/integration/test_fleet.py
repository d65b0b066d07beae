"""What the fleet knows of its own speed and of the work that waits: real workers, a real server."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis

from diarization.errors import InvalidJob
from tasks import fleet
from tasks.dead_letters import replay
from tasks.diarize import diarize
from tasks.fleet import Fleet
from tasks.record import State
from tasks.registry import WorkerFacts
from tasks.server import connect
from tasks.settings import current_settings
from tasks.snapshot import DEFAULT_AUDIO_SECONDS, Position, Snapshot
from tests.jobs import record
from tests.processes import Worker, run_cli, wait_until

URL = "http://stand.in/turns/60/2"


def snapshot() -> Snapshot:
    settings = current_settings()
    return Fleet(connect(settings, patient=False), settings).snapshot()


def only_worker() -> WorkerFacts:
    (facts,) = snapshot().workers.values()
    return facts


def submit(url: str = URL, **options: Any) -> str:
    return diarize.apply_async((url,), options).id


def test_a_worker_learns_its_speed_from_its_own_jobs(redis: Redis, start_worker: Callable[..., Worker]) -> None:
    worker = start_worker()
    announced = wait_until(lambda: snapshot().workers) and only_worker()
    assert (announced.role, announced.children, announced.device, announced.model) == ("gpu", 1, "cpu", "stand-in")
    assert announced.seconds_per_audio_hour is None
    diarize.delay("http://stand.in/fail/permanent").get(timeout=20, propagate=False)
    assert only_worker().speed is None, "a job that failed says nothing of speed"
    diarize.delay("http://stand.in/work/3600/1").get(timeout=20)
    first = only_worker().speed
    assert first is not None
    assert first.audio_seconds == 3600
    assert first.seconds >= first.stage_seconds["segmentation"] >= 1
    diarize.delay("http://stand.in/work/3600/0.1").get(timeout=20)
    second = only_worker().speed
    assert second is not None
    # An hour later 2^(-1/2) of the first is left.
    assert second.audio_seconds == pytest.approx(3600 * (1 + 0.5**0.5))
    assert second.seconds == pytest.approx(first.seconds * 0.5**0.5 + 0.1, abs=0.5)
    assert snapshot().mean_audio_seconds == pytest.approx(3600)
    os.kill(worker.children[0], signal.SIGKILL)
    wait_until(lambda: worker.children and worker.log.count("model loaded") == 2)
    assert only_worker().speed == second, "it outlives the child that measured it"


def test_a_running_job_says_what_is_left_by_its_workers_speed(
    redis: Redis, start_worker: Callable[..., Worker]
) -> None:
    start_worker()
    diarize.delay("http://stand.in/work/600/1").get(timeout=20)
    job = submit("http://stand.in/work/6000/10")
    running = wait_until(lambda: record(job).seconds_left and record(job))
    assert running.audio_seconds == 6000, "known since it has been decoded"
    # Ten times as long as the job before, which took a second and a little.
    assert 5 < running.seconds_left < 20
    later = wait_until(lambda: record(job).percent > running.percent + 5 and record(job))
    assert later.seconds_left < running.seconds_left
    assert " left" in run_cli("status", job).stdout
    told = json.loads(run_cli("status", "--json", job).stdout)
    assert told["audio_seconds"] == 6000
    assert told["seconds_left"] <= later.seconds_left
    assert diarize.position(job).place == 0
    diarize.cancel(job)
    wait_until(lambda: record(job).state.ended)
    assert record(job).seconds_left is None


def test_the_line_is_by_priority_then_by_age_over_all_queues(redis: Redis) -> None:
    ids = [
        submit(URL + "?0", expected_audio_seconds=100),
        submit(URL + "?1", provider="local"),
        submit(URL + "?2", expected_audio_seconds=50, deadline_seconds=60),
        diarize.apply_async((URL + "?urgent",), priority=0).id,
        diarize.apply_async((URL + "?later",), priority=9).id,
    ]
    due = diarize.apply_async((URL + "?due",), countdown=600).id
    gone = submit(URL + "?cancelled")
    diarize.cancel(gone)
    seen = snapshot()
    assert [job.id for job in seen.waiting] == [ids[index] for index in (3, 0, 1, 2, 4)]
    assert [job.queue for job in seen.waiting] == ["diarize", "diarize", "diarize.local", "diarize", "diarize"]
    assert [job.audio_seconds for job in seen.waiting] == [None, 100, None, 50, None]
    assert (seen.waiting_jobs, seen.due_jobs, seen.workers, seen.running) == (5, 1, {}, [])
    assert seen.waiting_audio_seconds == 150 + 3 * DEFAULT_AUDIO_SECONDS
    submitted_at = record(ids[2]).submitted_at
    assert seen.waiting[3].deadline_at == pytest.approx(submitted_at + 60, abs=0.002)
    assert seen.waiting[0].deadline_at == pytest.approx(record(ids[3]).submitted_at + 900, abs=0.002)
    assert record(due).deadline_at == pytest.approx((record(due).due_at or 0) + 900, abs=0.002), (
        "from when it may start"
    )
    assert diarize.position(ids[2]) == Position(4, None), "nobody works"
    assert diarize.position(diarize.AsyncResult(ids[3])).place == 1
    assert diarize.position(due) == diarize.position(gone) == diarize.position("nobody") == Position()


def test_a_long_line_is_walked_in_part_and_counted_whole(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = []
    for number in range(12):
        ids.append(submit(f"{URL}?{number}", expected_audio_seconds=60))
        time.sleep(0.002)  # an age is in milliseconds
    urgent = diarize.apply_async((URL + "?urgent",), {"expected_audio_seconds": 60}, priority=0).id
    redis.hset("diarize:fleet:workers", "w", WorkerFacts("gpu", children=2, device="cpu").to_json())
    redis.hset("diarize:fleet:speeds", "w", '{"audio_seconds": 3600, "seconds": 360}')
    redis.zadd("diarize:fleet:workers_seen", {"w": redis.time()[0]})
    monkeypatch.setattr(fleet, "FIRST_IN_LINE_JOBS", 5)
    before = redis.info("commandstats")
    seen = snapshot()
    after = redis.info("commandstats")
    assert [job.id for job in seen.waiting] == [urgent, *ids[:4]]
    assert seen.waiting_jobs == 13
    assert seen.waiting_audio_seconds == 13 * 60
    assert seen.last_in_seconds == pytest.approx(13 * 6 / 2, abs=3)
    records_read = after["cmdstat_hmget"]["calls"] - before.get("cmdstat_hmget", {"calls": 0})["calls"]
    assert records_read <= 1 + 1 + 5, "the walk does not grow with the line"
    behind = diarize.position(ids[-1])
    assert behind.place == 12, "by age alone"
    assert behind.finish_at == pytest.approx(seen.now + 12 * 6 / 2, abs=3)


def test_a_hint_changes_neither_the_answer_nor_whose_it_is(redis: Redis, start_worker: Callable[..., Worker]) -> None:
    first = submit(idempotency_key="k", expected_audio_seconds=10)
    assert submit(idempotency_key="k", expected_audio_seconds=20, deadline_seconds=5) == first
    named = diarize.apply_async((URL,), {"deadline_seconds": 5}, task_id="named")
    assert diarize.apply_async((URL,), task_id="named").id == named.id
    with pytest.raises(InvalidJob, match="deadline_seconds: Input should be greater than 0"):
        submit(deadline_seconds=0)
    assert record(first).audio_seconds == 10
    start_worker()
    assert diarize.AsyncResult(first).get(timeout=20)["audio_seconds"] == 60
    assert record(first).audio_seconds == 60, "what was found counts"


def test_a_replayed_job_has_a_new_deadline(redis: Redis, start_worker: Callable[..., Worker]) -> None:
    worker = start_worker()
    job = submit("http://stand.in/fail/permanent", deadline_seconds=30)
    wait_until(lambda: record(job).answered)
    worker.stop()
    replay(diarize, record(job))
    assert record(job).deadline_at == pytest.approx(record(job).submitted_at + 30, abs=0.002)


def test_the_command_shows_the_fleet(redis: Redis, start_worker: Callable[..., Worker]) -> None:
    assert "nothing" in run_cli("queue").stdout
    waiting = submit(expected_audio_seconds=3600)
    assert "none does now" in run_cli("queue").stdout
    diarize.cancel(waiting)
    start_worker(options=("-c", "2"))
    diarize.delay("http://stand.in/work/3600/1").get(timeout=20)
    running = [submit(f"http://stand.in/sleep/60?{number}") for number in range(2)]
    wait_until(lambda: all(record(job).stage == "segmentation" for job in running))
    late = submit(expected_audio_seconds=7200, deadline_seconds=0.001)
    diarize.apply_async((URL,), countdown=600)
    shown = run_cli("queue").stdout
    assert "1 jobs, 2:00:00 h of audio, 1 of them later than their deadline" in shown
    assert "due later  1 jobs" in shown
    assert "2 of 2" in shown
    assert all(job in shown for job in running)
    told = json.loads(run_cli("queue", "--json").stdout)
    assert (told["waiting_jobs"], told["running_jobs"], told["due_jobs"], told["late_jobs"]) == (1, 2, 1, 1)
    assert told["waiting_audio_seconds"] == 7200
    assert told["finish_at"] > told["at"]
    (worker,) = told["workers"]
    assert (worker["role"], worker["children"], worker["device"]) == ("gpu", 2, "cpu")
    assert worker["seconds_per_audio_hour"] >= 1
    assert [job["id"] for job in told["first_in_line"]] == [late]
    assert {job["id"] for job in told["running"]} == set(running)
    assert all(record(job).state is State.RUNNING for job in running)
