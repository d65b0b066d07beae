"""No job is taken before the model is loaded; a worker without a model ends, and leaves the queue as it is."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis

from tasks.diarize import diarize
from tasks.record import State
from tests.processes import Worker, wait_until


def waiting(redis: Redis) -> int:
    return sum(int(redis.llen(f"diarize:diarize{suffix}")) for suffix in ("", *(f"\x06\x16{n}" for n in (3, 6, 9))))


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"DIARIZATION_MODEL": "unavailable"}, "model_unavailable: the stand-in was told to be unavailable"),
        ({"DIARIZATION_MODEL": "bug"}, "internal_error: RuntimeError: the stand-in was told to fail while loading"),
        ({"DIARIZATION_DIARIZER": "no_such_module:load"}, "no_such_module:load cannot be imported"),
        ({"DIARIZATION_DIARIZER": "tests.standin:lod"}, "tests.standin:lod cannot be imported"),
        ({"QUEUE_RUNTIME_DIR": "/no/such/folder"}, "cannot be made: No such file or directory; set QUEUE_RUNTIME_DIR"),
        ({"WORKER_ROLE": "bridge"}, "a bridge needs RUNPOD_API_KEY and RUNPOD_ENDPOINT_ID"),
    ],
)
def test_a_model_that_cannot_load_ends_the_worker(
    redis: Redis, start_worker: Callable[..., Worker], settings: dict[str, str], line: str
) -> None:
    job = diarize.delay("http://stand.in/turns/5/1")
    worker = start_worker(ready=False, **settings)
    assert worker.process.wait(60) == 78
    assert "this worker cannot start" in worker.log
    assert line in worker.log
    assert waiting(redis) == 1
    record = diarize.records.get(job.id)
    assert record is not None
    assert (record.state, record.attempts) == (State.QUEUED, 0)


def test_a_model_that_takes_too_long_ends_the_worker(redis: Redis, start_worker: Callable[..., Worker]) -> None:
    worker = start_worker(ready=False, DIARIZATION_MODEL="wait/never", QUEUE_START_TIMEOUT_SECONDS=3)
    assert worker.process.wait(60) == 78
    assert "not loaded within 3 s" in worker.log


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_a_pool_that_cannot_do_it_is_refused(redis: Redis, start_worker: Callable[..., Worker], pool: str) -> None:
    worker = start_worker(ready=False, options=("-P", pool))
    assert worker.process.wait(60) == 78
    assert "needs the prefork pool" in worker.log


def test_a_misspelt_setting_ends_the_worker_at_once(redis: Redis, start_worker: Callable[..., Worker]) -> None:
    worker = start_worker(ready=False, DIARIZATION_MODLE="x")
    assert worker.process.wait(60) != 0
    assert "DIARIZATION_MODLE is not a setting" in worker.log


def test_a_job_waits_until_the_model_is_loaded(
    redis: Redis, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    job = diarize.delay("http://stand.in/turns/5/1")
    worker = start_worker(ready=False, DIARIZATION_MODEL="wait/loaded")
    wait_until(lambda: worker.children, what="the child is there")
    assert waiting(redis) == 1
    assert "ready: takes jobs" not in worker.log
    (tmp_path / "loaded").touch()
    job.get(timeout=30)


def test_a_worker_that_is_loading_can_be_stopped(redis: Redis, start_worker: Callable[..., Worker]) -> None:
    worker = start_worker(ready=False, DIARIZATION_MODEL="wait/never")
    wait_until(lambda: worker.children, what="the child is there")
    children = worker.children
    worker.stop()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children))


def test_a_child_that_dies_while_loading_ends_the_worker(redis: Redis, start_worker: Callable[..., Worker]) -> None:
    worker = start_worker(ready=False, DIARIZATION_MODEL="wait/never")
    child = wait_until(lambda: worker.children, what="the child is there")[0]
    os.kill(child, signal.SIGKILL)
    assert worker.process.wait(60) == 78
    assert "died with exit code" in worker.log


def test_a_later_child_that_cannot_load_ends_the_worker(redis: Redis, start_worker: Callable[..., Worker]) -> None:
    worker = start_worker(DIARIZATION_MODEL="once")
    job = diarize.delay("http://stand.in/sleep/60")
    wait_until(lambda: diarize.records.get(job.id).state is State.RUNNING)  # type: ignore[union-attr]
    os.kill(worker.children[0], signal.SIGKILL)
    assert worker.process.wait(60) == 78
    assert "this worker must stop: model_unavailable: the stand-in was told to load once" in worker.log
    assert waiting(redis) == 1, "the job is back in the queue, for a worker that has a model"


def test_a_later_child_loads_before_it_runs_anything(
    redis: Redis, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    (tmp_path / "loaded").touch()
    worker = start_worker(DIARIZATION_MODEL="wait/loaded")
    first = worker.children[0]
    (tmp_path / "loaded").unlink()
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: [pid for pid in worker.children if pid != first], what="another child")
    job = diarize.delay("http://stand.in/turns/5/1")
    wait_until(lambda: redis.hlen("diarize:unacked") == 1, what="the job is taken by the main process")
    assert diarize.records.get(job.id).state is State.QUEUED  # type: ignore[union-attr]
    (tmp_path / "loaded").touch()
    job.get(timeout=30)
