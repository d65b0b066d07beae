"""A worker whose GPU fails under its jobs: the process is replaced, then the worker ends; its jobs end elsewhere."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis

from diarization.errors import DeviceLost
from tasks.diarize import diarize
from tasks.record import State
from tests.jobs import record
from tests.processes import Worker, run_cli, wait_until
from tests.standin import read_journal

CURE = "Check the GPU with nvidia-smi"


def losses(folder: Path) -> int:
    return sum(line["event"] == "device_lost" for line in read_journal(folder))


def loads(folder: Path) -> int:
    return sum(line["event"] == "load" for line in read_journal(folder))


def test_its_jobs_end_on_a_healthy_worker(redis: Redis, start_worker: Callable[..., Worker], tmp_path: Path) -> None:
    runtime = {"QUEUE_RUNTIME_DIR": str(tmp_path)}
    broken = start_worker(DIARIZATION_MODEL="lost/never", QUEUE_RETRY_BASE_SECONDS=0.1, **runtime)
    jobs = [diarize.delay(f"http://stand.in/turns/5/1?{number}") for number in range(3)]
    wait_until(lambda: losses(tmp_path) == 1, what="the GPU fails under a job")
    assert broken.process.wait(60) == 78, "the next process of that worker fares no better"
    assert losses(tmp_path) == 2
    assert (
        f"this worker must stop: device_lost: the GPU failed: CUDA error: the stand-in was told to lose it. {CURE}"
        in (broken.log)
    )
    assert "Traceback" not in broken.log
    assert [record(job).state.ended for job in jobs] == [False] * 3
    assert sum(record(job).attempts for job in jobs) == 1, "of the first, not of the one that showed whose fault it is"
    assert "no worker" in run_cli("healthcheck", code=1, **runtime).stderr
    start_worker()
    assert all(job.get(timeout=30)["segments"] for job in jobs)


def test_one_failure_costs_a_process_and_no_more(
    redis: Redis, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    worker = start_worker(DIARIZATION_MODEL="lost/mended", QUEUE_MAX_ATTEMPTS=1)
    first = worker.children
    for number in range(2):  # a job done in between makes it one failure each
        (tmp_path / "mended").unlink(missing_ok=True)
        with pytest.raises(DeviceLost, match="the GPU failed"):
            diarize.delay(f"http://stand.in/turns/5/1?lost{number}").get(timeout=30)
        (tmp_path / "mended").touch()
        job = diarize.delay(f"http://stand.in/turns/5/1?{number}")
        assert job.get(timeout=30)["provenance"]["attempts"] == 1
    assert (losses(tmp_path), loads(tmp_path)) == (2, 3)
    assert not set(first) & set(worker.children)
    assert "its process is replaced" in worker.log
    assert worker.process.poll() is None


def test_a_job_that_another_process_has_done_since_clears_the_gpu(
    redis: Redis, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    """The recording is to blame, which fails in the next process, too; the one beside it works all the while."""
    worker = start_worker(DIARIZATION_JOBS_PER_GPU=2, QUEUE_MAX_ATTEMPTS=1)
    with pytest.raises(DeviceLost):
        diarize.delay("http://stand.in/fail/device_lost/9/first").get(timeout=30)
    diarize.delay("http://stand.in/turns/5/1").get(timeout=30)
    beside = diarize.delay("http://stand.in/wait/go")
    wait_until(lambda: record(beside).state is State.RUNNING and loads(tmp_path) == 3)
    with pytest.raises(DeviceLost):
        diarize.delay("http://stand.in/fail/device_lost/9/second").get(timeout=30)
    wait_until(lambda: loads(tmp_path) == 4, what="this process is replaced as well")
    (tmp_path / "go").touch()
    assert beside.get(timeout=30)["provenance"]["attempts"] == 1
    assert worker.process.poll() is None


def test_a_worker_does_not_go_on_without_its_gpu(
    redis: Redis, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    """`auto` would take the CPU, on which everything lasts thirty times as long."""
    worker = start_worker(DIARIZATION_MODEL="moved")
    job = diarize.delay("http://stand.in/sleep/60")
    wait_until(lambda: record(job).state is State.RUNNING)
    os.kill(worker.children[0], signal.SIGKILL)
    assert worker.process.wait(60) == 78
    assert f"device_lost: this worker began on cuda:0, and only cpu is left. {CURE}" in worker.log
    assert record(job).state is State.QUEUED
