"""Ends that Celery makes itself, callbacks of all kinds, outages at bad moments: told once, and rightly."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from celery import chain, chord, group
from celery.utils import uuid
from redis import Redis

from diarization.errors import Expired, TimeLimitReached
from tasks.diarize import diarize
from tasks.record import State
from tasks.valkey import EmbeddedValkey
from tests.foreign import note, note_error
from tests.jobs import record, starts
from tests.processes import Worker, wait_until

Start = Callable[..., Worker]


def quiet(redis: Redis) -> bool:
    """Nothing is queued or held, nobody is still to be told."""
    return not (
        redis.zcard("diarize:jobs:unanswered") or redis.hlen("diarize:unacked") or redis.llen("diarize:backend")
    )


@pytest.fixture(scope="module", autouse=True)
def backend(module_redis: Redis, start_module_worker: Start) -> None:
    start_module_worker(arguments=("-A", "tests.foreign"), DIARIZATION_DIARIZER="unused:unused")


def test_a_time_limit_is_told_once(redis: Redis, start_worker: Start) -> None:
    worker = start_worker()
    job = diarize.apply_async(
        ("http://stand.in/sleep/60",), time_limit=1, link_error=[note_error.s("errors").set(queue="backend")]
    )
    with pytest.raises(TimeLimitReached):
        job.get(timeout=30)
    wait_until(lambda: record(job).answered and quiet(redis) and redis.llen("errors"))
    diarize.delay("http://stand.in/turns/5/1").get(timeout=30)
    assert redis.lrange("errors", 0, -1) == [job.id]
    assert "gets another ticket" not in worker.log


def test_celery_s_revoke_is_told_once(redis: Redis, start_worker: Start, tmp_path: Path) -> None:
    """Of a running job, and of a group that waits: no ticket is issued again and again for them."""
    start_worker()
    running = diarize.delay("http://stand.in/wait/go")
    wait_until(lambda: record(running).state is State.RUNNING)
    waiting = group(diarize.s(f"http://stand.in/turns/{n}/1") for n in (5, 6))()
    waiting.revoke()
    diarize.app.control.revoke(running.id, terminate=True)
    for job in (running, *waiting.results):
        wait_until(lambda job=job: record(job).state is State.CANCELLED and record(job).answered)
    wait_until(lambda: quiet(redis))  # a worker is told first, and acknowledges then


def test_a_message_that_came_too_late_is_expired_by_its_record(
    redis: Redis, start_worker: Start, tmp_path: Path
) -> None:
    late = diarize.app.send_task(
        "tasks.diarize.diarize", ["http://stand.in/turns/5/1"], queue="diarize", expires=0.01, task_id=uuid()
    )
    time.sleep(0.1)
    start_worker()
    with pytest.raises(Expired):
        late.get(timeout=30)
    assert record(late).state is State.EXPIRED


def test_a_copy_that_comes_too_late_does_not_end_a_job_that_runs(
    redis: Redis, start_worker: Start, tmp_path: Path
) -> None:
    workers = [start_worker(), start_worker()]
    job = diarize.app.send_task(
        "tasks.diarize.diarize", ["http://stand.in/wait/go"], queue="diarize", expires=1, task_id=uuid()
    )
    wait_until(lambda: starts(tmp_path, "/wait/go"))
    time.sleep(1)
    for kind in ("normal", "pubsub"):
        redis.client_kill_filter(_type=kind, skipme=True)
    wait_until(lambda: any(f"[{job.id}] ignored" in worker.log for worker in workers), what="the copy is met")
    (tmp_path / "go").touch()
    wait_until(lambda: record(job).answered)
    assert (record(job).state, diarize.AsyncResult(job.id).state) == (State.DONE, "SUCCESS")


@pytest.mark.parametrize("queue", ["leases", "fleet:workers"])
def test_a_callback_that_redis_refuses_for_good_blocks_nobody(redis: Redis, start_worker: Start, queue: str) -> None:
    """A queue that is named like a key of ours, of all things."""
    worker = start_worker(QUEUE_LEASE_SECONDS=4)
    blocker = diarize.delay("http://stand.in/sleep/1")
    wait_until(lambda: record(blocker).state is State.RUNNING and redis.exists("diarize:fleet:workers"))
    job = diarize.apply_async(("http://stand.in/turns/5/1",), link=note.s("x").set(queue=queue))
    if queue == "leases":  # it is there while something runs
        redis.zadd("diarize:leases", {"somebody": time.time() + 3600})
    assert job.get(timeout=30)["segments"]
    diarize.delay("http://stand.in/turns/6/1").get(timeout=30)
    assert f"job {job.id} is done, but tests.foreign.note cannot be called" in worker.log


@pytest.mark.parametrize("make", [group, chain, lambda *steps: chord([steps[0]], steps[1])])
def test_what_a_link_is_made_of_runs_once(
    redis: Redis, start_worker: Start, tmp_path: Path, make: Callable[..., Any]
) -> None:
    """The worker dies right after publishing it, and a copy publishes it once more."""
    start_worker(
        QUEUE_LEASE_SECONDS=2, DEADLY_AT="called", DEADLY_WHO="child", DIARIZATION_DIARIZER="tests.deadly:load"
    )
    steps = diarize.si("http://stand.in/turns/8/1"), diarize.si("http://stand.in/turns/9/1")
    job = diarize.apply_async(("http://stand.in/turns/5/1",), link=[make(*steps)])
    wait_until(lambda: record(job).answered and starts(tmp_path, "/turns/9/1"), what="all is done")
    wait_until(lambda: quiet(redis) and not redis.zcard("diarize:state:running"))
    assert [starts(tmp_path, f"/turns/{n}/1") for n in (5, 8, 9)] == [1, 1, 1]


def test_a_soft_limit_that_strikes_after_the_work_is_none(
    outage: EmbeddedValkey, redis: Redis, start_worker: Start, tmp_path: Path
) -> None:
    """The result waits for room in Redis for longer than the limit."""
    start_worker()
    job = diarize.apply_async(("http://stand.in/deaf/1",), soft_time_limit=3)
    wait_until(lambda: starts(tmp_path, "/deaf/1"))
    redis.config_set("maxmemory", 1)
    time.sleep(4)
    redis.config_set("maxmemory", 0)
    wait_until(lambda: record(job).answered, seconds=60)
    assert (record(job).state, diarize.AsyncResult(job.id).state) == (State.DONE, "SUCCESS")


def test_redis_goes_away_while_a_chord_s_body_is_published(
    outage: EmbeddedValkey, redis: Redis, start_worker: Start, tmp_path: Path
) -> None:
    start_worker(DIARIZATION_DIARIZER="tests.deadly:load_slow_publisher")
    body = chord([diarize.s("http://stand.in/turns/5/1")])(diarize.si("http://stand.in/turns/6/1"))
    wait_until((tmp_path / "publishing").exists)
    outage.kill()
    (tmp_path / "publish").touch()
    time.sleep(3)
    outage.start()
    wait_until(lambda: diarize.AsyncResult(body.id).state == "SUCCESS", seconds=60)
    assert starts(tmp_path, "/turns/6/1") == 1


def test_a_job_of_a_newer_version_waits_for_a_newer_worker(redis: Redis, start_worker: Start) -> None:
    worker = start_worker(QUEUE_RETRY_CAP_SECONDS=0.5)
    job = diarize.apply_async(("http://stand.in/turns/5/1",), countdown=0.5)
    stored = f"diarize:job:{job.id}"
    request = json.loads(redis.hget(stored, "request") or "{}")
    redis.hset(stored, "request", json.dumps({**request, "shape": "https://h.example/?token=CANARY"}))
    wait_until(lambda: (record(job).last_error or {}).get("code") == "worker_too_old")
    wait_until(lambda: record(job).state is State.DUE and record(job).attempts == 0, what="no attempt counts")
    assert "CANARY" not in worker.log + json.dumps(record(job).last_error)
    redis.hset(stored, "request", json.dumps(request))
    assert job.get(timeout=30)["segments"]
