"""An ended job that is deleted leaves nothing behind; one that has not ended cannot be."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from redis import Redis

from diarization.errors import InvalidJob
from tasks.diarize import diarize
from tasks.record import State
from tests.jobs import record
from tests.processes import Worker, run_cli, wait_until


@pytest.fixture(scope="module", autouse=True)
def worker(module_redis: Redis, start_module_worker: Callable[..., Worker]) -> Worker:
    return start_module_worker(QUEUE_MAX_ATTEMPTS=1)


def ended(path: str, **options: str) -> str:
    job = diarize.delay(f"http://stand.in/{path}", **options)
    wait_until(lambda: record(job).answered, what="its end is told")
    return str(job.id)


def traces(redis: Redis, job_id: str) -> list[str]:
    """Keys that hold the job's id, in their names or in what stands there; its place in a queue is not meant."""
    found = []
    for key in redis.scan_iter("*", count=1000):
        dumped = redis.execute_command("DUMP", key, NEVER_DECODE=True)
        if job_id in key or job_id.encode() in (dumped or b""):
            found.append(key)
    return found


@pytest.mark.parametrize("path", ["turns/20/2", "fail/permanent"])
def test_nothing_of_it_is_left(module_redis: Redis, path: str) -> None:
    job_id = ended(path, idempotency_key=f"meeting-{path}", webhook="https://hooks.invalid/done")
    assert traces(module_redis, job_id)
    assert diarize.delete(diarize.AsyncResult(job_id))
    assert not traces(module_redis, job_id)
    assert not diarize.delete(job_id), "there is no such job any more"
    assert ended(path, idempotency_key=f"meeting-{path}") != job_id, "the key is free again"


def test_a_job_that_has_not_ended_is_not_deleted(module_redis: Redis) -> None:
    job = diarize.delay("http://stand.in/sleep/60")
    wait_until(lambda: record(job).state is State.RUNNING)
    waiting = diarize.delay("http://stand.in/turns/20/2")
    with pytest.raises(InvalidJob, match="is running: cancel it"):
        diarize.delete(job)
    with pytest.raises(InvalidJob, match="is queued: cancel it"):
        diarize.delete(waiting)
    diarize.cancel(job.id)
    wait_until(lambda: record(job).state is State.CANCELLED)
    diarize.cancel(waiting.id)
    for one in (job, waiting):
        assert diarize.delete(one)
        assert not traces(module_redis, str(one.id))


def test_the_command_says_what_became_of_each(module_redis: Redis) -> None:
    job_id, other = ended("turns/20/2"), ended("turns/20/2")
    done = run_cli("delete", job_id, "nobody", code=1)
    assert done.stdout == f"{job_id} deleted\n"
    assert "there is no job nobody" in done.stderr
    assert json.loads(run_cli("delete", "--json", other).stdout) == {"id": other, "outcome": "deleted"}
    running = diarize.delay("http://stand.in/sleep/60")
    wait_until(lambda: record(running).state is State.RUNNING)
    assert "cancel it" in run_cli("delete", running.id, code=1).stderr
    diarize.cancel(running.id)
