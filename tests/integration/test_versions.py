"""A fleet in the middle of a deploy: a worker goes on with what another version has left in Redis."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from redis import Redis

from tasks.dead_letters import replay
from tasks.diarize import diarize
from tasks.metrics import Readings
from tasks.overflow.valve import Valve
from tasks.overseer import Overseer
from tasks.record import State
from tasks.settings import read_settings
from tests.jobs import record
from tests.processes import Worker, wait_until
from tests.standin import read_journal

SNAPSHOT = Path(__file__).with_name("data") / "redis-of-0.1.0.dev0.json"
"""All keys of a Redis as the first version left it: its worker was killed while it ran the job `running`."""

ZSETS = ("diarize:due", "diarize:leases", "diarize:unacked_index")


def load_snapshot(redis: Redis) -> None:
    for key, value in json.loads(SNAPSHOT.read_text()).items():
        kind = "zset" if ":state:" in key or key in ZSETS else type(value).__name__
        match kind:
            case "zset":
                redis.zadd(key, value)
            case "dict":
                redis.hset(key, mapping=value)
            case "list":
                redis.rpush(key, *value)
            case _:
                redis.set(key, value)


def test_what_the_first_version_left_is_finished(
    redis: Redis, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    load_snapshot(redis)
    assert record("done").result == diarize.AsyncResult("done").get(timeout=5)
    assert record("dead").error is not None
    redis.zadd("diarize:due", {"due": 0, "due-after-an-attempt": 0})
    start_worker(QUEUE_LEASE_SECONDS=3, QUEUE_STALL_SECONDS=1, QUEUE_MAX_ATTEMPTS=3, QUEUE_RETRY_BASE_SECONDS=0.1)
    replay(diarize, record("dead"))
    for job_id, attempts in {"queued": 1, "link": 1, "due": 1, "due-after-an-attempt": 3}.items():
        wait_until(lambda job_id=job_id: diarize.records.get(job_id) and record(job_id).answered, what=job_id)
        assert (record(job_id).state, record(job_id).attempts) == (State.DONE, attempts), job_id
        assert diarize.AsyncResult(job_id).get(timeout=5) == record(job_id).result
    wait_until(lambda: record("running").answered and record("dead").answered)
    assert (record("running").state, record("running").attempts) == (State.DEAD, 3), "it hangs, here as there"
    assert record("dead").state is State.DEAD
    assert len(record("dead").history) == 1
    assert record("cancelled").state is State.CANCELLED
    runs = [line["what"] for line in read_journal(tmp_path) if line["event"] == "start"]
    assert [runs.count(f"http://stand.in/turns/{n}/1") for n in (5, 6, 7, 8, 9)] == [0, 1, 1, 1, 0], "none twice"


def test_fields_of_a_newer_version_are_passed_over(redis: Redis, start_worker: Callable[..., Worker]) -> None:
    job = diarize.apply_async(("http://stand.in/turns/5/1",), countdown=0.5)
    redis.hset(f"diarize:job:{job.id}", mapping={"colour": "blue", "zone": '{"a": 1}'})
    redis.hset("diarize:fleet:workers", "newer", '{"role": "gpu", "room_bytes": 5, "speed": 3.5}')
    start_worker()
    assert job.get(timeout=20)["segments"]
    assert redis.hget(f"diarize:job:{job.id}", "colour") == "blue", "they are left as they are"


def test_a_bridge_and_an_exporter_read_what_a_newer_version_says_of_runpod(redis: Redis) -> None:
    settings = read_settings()
    fleet = settings.redis_key_prefix + "fleet:"
    redis.lpush(fleet + "outcomes", json.dumps({"at": time.time(), "worked": False, "newer": 1}))
    redis.set(fleet + "breaker", json.dumps({"why": "w", "since": 0, "until": 4e9, "failures": 1, "newer": 1}))
    Overseer(redis, settings, "w (1)").round()
    assert "closed" in Valve(redis, settings).position().why
    readings = Readings(redis, settings).read()
    assert readings["diarize_breaker_open"] == {(): 1.0}
    assert readings["diarize_remote_failure_ratio"] == {(): 0.2}
