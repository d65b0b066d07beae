"""A child that hangs, a stop that takes too long, a recording too large for its worker: none takes a job along."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis

from diarization.errors import AttemptsExhausted, DoesNotFit
from diarization.memory import needed_bytes
from tasks.diarize import diarize
from tasks.job_result import JobResult
from tasks.record import State
from tests.jobs import record, starts
from tests.processes import Worker, wait_until


def test_a_child_that_hangs_is_ended_and_its_job_taken_anew(
    redis: Redis, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    worker = start_worker(QUEUE_STALL_SECONDS=1)
    job = diarize.delay("http://stand.in/hang/1")
    assert job.get(timeout=30)["provenance"]["attempts"] == 2
    assert f"job {job.id}: no progress for" in worker.log
    assert record(job).last_error is not None
    assert record(job).last_error["code"] == "attempt_stalled"  # type: ignore[index]
    assert starts(tmp_path, "/hang/1") == 2
    assert worker.process.poll() is None


def test_a_recording_that_hangs_its_worker_each_time_is_given_up(
    redis: Redis, start_worker: Callable[..., Worker]
) -> None:
    start_worker(QUEUE_STALL_SECONDS=1, QUEUE_MAX_ATTEMPTS=2)
    job = diarize.delay("http://stand.in/hang")
    with pytest.raises(AttemptsExhausted, match="died or hung"):
        job.get(timeout=30)
    assert record(job).state is State.DEAD
    diarize.delay("http://stand.in/turns/5/1").get(timeout=30)


def test_the_limit_grows_with_the_recording(redis: Redis, start_worker: Callable[..., Worker], tmp_path: Path) -> None:
    """A minute's recording may be silent for a second and three more; one of a second for a second."""
    start_worker(QUEUE_STALL_SECONDS=1)
    long = diarize.delay("http://stand.in/quiet/60/2.5")
    assert long.get(timeout=30)["provenance"]["attempts"] == 1
    short = diarize.delay("http://stand.in/quiet/1/2.5")
    wait_until(lambda: record(short).attempts == 2, what="it is taken for hung")
    short.revoke()


def test_a_worker_that_works_slowly_is_left_alone(
    redis: Redis, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    start_worker(QUEUE_STALL_SECONDS=1)
    job = diarize.delay("http://stand.in/sleep/4")
    assert job.get(timeout=30)["provenance"]["attempts"] == 1


@pytest.mark.parametrize("others", [0, 1])
def test_a_stop_that_takes_longer_than_the_grace_hands_the_job_back(
    redis: Redis, start_worker: Callable[..., Worker], tmp_path: Path, others: int
) -> None:
    """First in line, and the attempt does not count; where no other worker runs, the next one that comes takes it."""
    first = start_worker(QUEUE_GRACE_SECONDS=1)
    job = diarize.delay("http://stand.in/wait/go")
    wait_until(lambda: starts(tmp_path, "/wait/go"))
    behind = None if others else diarize.delay("http://stand.in/wait/go/behind")
    for _ in range(others):
        start_worker()
    assert first.stop(seconds=20) == 0
    assert "Traceback" not in first.log
    if behind:
        assert record(job).state is State.QUEUED
        start_worker()
    wait_until(lambda: starts(tmp_path, "/wait/go") == 2, what="another worker runs it")
    (tmp_path / "go").touch()
    assert job.get(timeout=30)["provenance"]["attempts"] == 1
    if behind:
        behind.get(timeout=30)
        assert record(job).started_at < record(behind).started_at  # type: ignore[operator]


def test_a_stop_within_the_grace_finishes_the_job(
    redis: Redis, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    worker = start_worker(QUEUE_GRACE_SECONDS=20)
    job = diarize.delay("http://stand.in/sleep/2")
    wait_until(lambda: record(job).state is State.RUNNING)
    assert worker.stop() == 0
    assert job.get(timeout=5)["provenance"]["attempts"] == 1
    assert starts(tmp_path, "/sleep/2") == 1


def give_to_frozen(worker: Worker, url: str) -> tuple[int, JobResult]:
    """The pid of the worker's child, and a job that it has and has yet to accept."""
    worker.wait_until_ready()
    (child,) = worker.children
    os.kill(child, signal.SIGSTOP)
    job = diarize.delay(url)
    wait_until(lambda: f"[{job.id}] received" in worker.log)
    time.sleep(0.5)  # nothing tells from outside that it has been written to the child
    return child, job


def stop_main_loop(redis: Redis, worker: Worker) -> None:
    worker.process.terminate()
    wait_until(lambda: not any(int(client["psub"]) for client in redis.client_list()), what="its main loop is over")


@pytest.mark.parametrize("late", [False, True])
def test_a_job_that_its_child_has_yet_to_accept_is_handed_back_as_well(
    redis: Redis, start_worker: Callable[..., Worker], tmp_path: Path, late: bool
) -> None:
    first = start_worker(QUEUE_GRACE_SECONDS=0 if late else 2)
    child, job = give_to_frozen(first, "http://stand.in/wait/go")
    stop_main_loop(redis, first)
    os.kill(child, signal.SIGCONT)
    assert first.process.wait(15) == 0
    assert first.log.count("is handed back, and first in line again") == 1
    start_worker()
    (tmp_path / "go").touch()
    assert job.get(timeout=30)["provenance"]["attempts"] == 1
    assert starts(tmp_path, "/wait/go") == 2


def test_a_job_that_its_child_has_yet_to_accept_is_kept_within_the_grace(
    redis: Redis, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    """Its lease is renewed, its end is heard, and the stop does not wait for more."""
    first = start_worker(QUEUE_GRACE_SECONDS=60, QUEUE_LEASE_SECONDS=2)
    child, job = give_to_frozen(first, "http://stand.in/sleep/5")
    stop_main_loop(redis, first)
    os.kill(child, signal.SIGCONT)
    start_worker(QUEUE_LEASE_SECONDS=2)
    assert job.get(timeout=30)["provenance"]["attempts"] == 1
    assert first.process.wait(10) == 0
    assert starts(tmp_path, "/sleep/5") == 1
    assert redis.hlen("diarize:unacked") == 0, "no message of it is left"


def test_a_job_that_its_child_has_yet_to_accept_outlives_the_connection(
    redis: Redis, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    """Another worker meets the copy of its message; its own one takes no other job beside it."""
    first = start_worker(QUEUE_LEASE_SECONDS=2)
    child, job = give_to_frozen(first, "http://stand.in/wait/go")
    connected = [client["id"] for client in redis.client_list() if int(client["id"]) != redis.client_id()]
    second = start_worker()
    second.wait_until_ready()
    os.kill(second.process.pid, signal.SIGSTOP)
    for client in connected:
        redis.client_kill_filter(_id=client)
    wait_until(lambda: "Connection to broker lost" in first.log)
    os.kill(child, signal.SIGCONT)
    wait_until(lambda: starts(tmp_path, "/wait/go"))
    os.kill(second.process.pid, signal.SIGCONT)
    wait_until(lambda: redis.hlen("diarize:unacked") == 0, what="the copy is answered")
    second.stop()
    behind = diarize.delay("http://stand.in/turns/5/1")
    time.sleep(5)  # leases and polls have passed
    assert f"[{behind.id}] received" not in first.log
    (tmp_path / "go").touch()
    assert job.get(timeout=30)["provenance"]["attempts"] == 1
    behind.get(timeout=30)
    assert starts(tmp_path, "/wait/go") == 1


def announce(redis: Redis, name: str, room_bytes: float) -> None:
    """As a worker of that size would."""
    redis.hset("diarize:fleet:workers", name, json.dumps({"role": "gpu", "room_bytes": int(room_bytes)}))
    redis.zadd("diarize:fleet:workers_seen", {name: time.time() + 3600})


HOURS = 3000  # a terabyte: more than any machine that runs these tests has


def test_a_recording_that_fits_no_worker_is_refused(redis: Redis, start_worker: Callable[..., Worker]) -> None:
    start_worker()
    job = diarize.delay(f"http://stand.in/memory/{HOURS * 3600}")
    with pytest.raises(DoesNotFit, match=r"the recording needs .* GB of memory, the largest worker has"):
        job.get(timeout=30)
    assert record(job).state is State.DEAD


def test_a_recording_that_fits_another_worker_waits_for_it(
    redis: Redis, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    """In the due-set; no attempt counts, the worker does others meanwhile, and nothing is fetched again for nothing."""
    start_worker(QUEUE_RETRY_CAP_SECONDS=0.5, QUEUE_MAX_ATTEMPTS=2)
    announce(redis, "large", 2 * needed_bytes(HOURS * 3600))
    job = diarize.delay(f"http://stand.in/memory/{HOURS * 3600}")
    wait_until(lambda: record(job).ticket_number >= 4, what="it has been looked at several times")
    wait_until(lambda: record(job).state is State.DUE and record(job).attempts == 0, what="no attempt counts")
    assert needed_bytes(HOURS * 3600) <= (record(job).needs_bytes or 0) <= 2 * needed_bytes(HOURS * 3600)
    assert (record(job).last_error or {})["code"] == "no_room"
    assert starts(tmp_path, f"/memory/{HOURS * 3600}") == 1, "later looks know what it needs"
    diarize.delay("http://stand.in/turns/5/1").get(timeout=30)
    redis.zrem("diarize:fleet:workers_seen", "large")
    with pytest.raises(DoesNotFit):
        job.get(timeout=30)


def test_workers_announce_their_room(redis: Redis, start_worker: Callable[..., Worker]) -> None:
    worker = start_worker(QUEUE_LEASE_SECONDS=2)
    wait_until(lambda: redis.hlen("diarize:fleet:workers"))
    name, facts = next(iter(redis.hgetall("diarize:fleet:workers").items()))
    assert name == f"w0@test ({worker.process.pid})"
    assert json.loads(facts)["role"] == "gpu"
    assert json.loads(facts)["room_bytes"] > 1e8


def test_a_hung_main_process_loses_its_jobs_to_another(
    redis: Redis, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    """Its child goes on; what it writes no longer counts."""
    hung = start_worker(QUEUE_LEASE_SECONDS=3)
    job = diarize.delay("http://stand.in/wait/go")
    wait_until(lambda: starts(tmp_path, "/wait/go"))
    os.kill(hung.process.pid, signal.SIGSTOP)
    other = start_worker(QUEUE_LEASE_SECONDS=3)
    wait_until(lambda: record(job).attempts == 2, what="the second attempt")
    (tmp_path / "go").touch()
    assert job.get(timeout=30)["provenance"]["attempts"] == 2
    assert f"job {job.id} done" in other.log
    assert f"job {job.id} done" not in hung.log
