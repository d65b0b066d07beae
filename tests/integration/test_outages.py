"""Redis is down, hung, full, restarted, emptied: no job is lost or run twice for it, and nobody hangs."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from celery import chord
from celery.result import ResultSet
from redis import Redis

from diarization.errors import QueueUnavailable
from tasks.diarize import diarize
from tasks.record import State
from tasks.valkey import EmbeddedValkey
from tests.jobs import record, starts
from tests.processes import Worker, wait_until

LEASE_SECONDS = 3


def wait_for_result(job: Any) -> Any:
    """The result, by another client than the one whose connections were cut."""
    wait_until(lambda: record(job).answered, seconds=60, what="Celery is told of the end")
    return diarize.AsyncResult(job.id).get(timeout=10)


def test_a_worker_that_starts_while_redis_is_down_waits_for_it(
    outage: EmbeddedValkey, start_worker: Callable[..., Worker]
) -> None:
    outage.kill()
    worker = start_worker(ready=False)
    wait_until(lambda: "waits for Redis" in worker.log)
    outage.start()
    worker.wait_until_ready()
    assert diarize.delay("http://stand.in/turns/5/1").get(timeout=30)["segments"]


def test_a_worker_that_waits_for_redis_can_be_stopped(
    outage: EmbeddedValkey, start_worker: Callable[..., Worker]
) -> None:
    outage.kill()
    worker = start_worker(ready=False)
    wait_until(lambda: "waits for Redis" in worker.log)
    assert worker.stop() == 0


@pytest.mark.parametrize("path", ["deaf", "deaf-fail"])
def test_redis_is_down_when_a_job_ends(
    outage: EmbeddedValkey, start_worker: Callable[..., Worker], tmp_path: Path, path: str
) -> None:
    """The result is kept, and delivered once Redis is back; so is the retry of a job that failed."""
    worker = start_worker(QUEUE_RETRY_BASE_SECONDS=0.1, QUEUE_MAX_ATTEMPTS=1)
    job = diarize.delay(f"http://stand.in/{path}/2")
    wait_until(lambda: starts(tmp_path, f"/{path}/2"))
    outage.kill()
    wait_until(lambda: f"job {job.id} waits for Redis" in worker.log)
    outage.start()
    wait_until(lambda: record(job).answered, seconds=60)
    assert record(job).state is (State.DONE if path == "deaf" else State.DEAD)
    assert diarize.AsyncResult(job.id).state == ("SUCCESS" if path == "deaf" else "FAILURE")
    assert (record(job).attempts, starts(tmp_path, f"/{path}/2")) == (1, 1)


def test_a_restart_of_redis_loses_nothing(
    outage: EmbeddedValkey, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    """What runs, what waits, what is due, what is dead, and who has been counted in a chord."""
    start_worker()
    dead = diarize.delay("http://stand.in/fail/permanent")
    wait_until(lambda: record(dead).answered)
    header = [diarize.s("http://stand.in/turns/5/1"), diarize.s("http://stand.in/wait/go/chord")]
    body = chord(header)(diarize.si("http://stand.in/turns/6/1"))
    running = diarize.AsyncResult(body.parent.results[1].id)
    wait_until(lambda: record(running).state is State.RUNNING)
    waiting = diarize.delay("http://stand.in/turns/7/1")
    due = diarize.apply_async(("http://stand.in/turns/8/1",), countdown=1)
    outage.kill()
    time.sleep(1)
    outage.start()
    (tmp_path / "go").touch()
    for job in (running, waiting, due, body):
        assert wait_for_result(job)["segments"]
    assert record(dead).state is State.DEAD
    for path in ("/wait/go/chord", "/turns/5/1", "/turns/6/1", "/turns/7/1", "/turns/8/1"):
        assert starts(tmp_path, path) == 1, path


def test_a_redis_that_hangs_for_longer_than_a_lease_doubles_nothing(
    outage: EmbeddedValkey, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    """All leases have run out when it wakes; its workers live, and get the time to say so."""
    workers = [start_worker(QUEUE_LEASE_SECONDS=LEASE_SECONDS) for _ in range(2)]
    jobs = [diarize.delay(f"http://stand.in/wait/go/{n}") for n in range(2)]
    wait_until(lambda: all(record(job).state is State.RUNNING for job in jobs))
    for _ in range(3):
        outage.process.send_signal(signal.SIGSTOP)
        time.sleep(2 * LEASE_SECONDS)
        outage.process.send_signal(signal.SIGCONT)
        time.sleep(1.5)
    (tmp_path / "go").touch()
    for job in jobs:
        assert wait_for_result(job)["provenance"]["attempts"] == 1
    assert [starts(tmp_path, f"/wait/go/{n}") for n in range(2)] == [1, 1]
    assert all(worker.process.poll() is None for worker in workers)


def fill(redis: Redis) -> None:
    """From now on every write that needs memory is refused."""
    redis.config_set("maxmemory", 1)


def test_a_full_redis_is_said_at_once(outage: EmbeddedValkey, redis: Redis) -> None:
    fill(redis)
    began = time.monotonic()
    with pytest.raises(QueueUnavailable, match="Redis is full"):
        diarize.delay("http://stand.in/turns/5/1")
    assert time.monotonic() - began < 5
    redis.config_set("maxmemory", 0)
    assert redis.dbsize() == 0, "nothing is left of it"


def test_a_result_waits_until_redis_has_room(
    outage: EmbeddedValkey, redis: Redis, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    worker = start_worker()
    job = diarize.delay("http://stand.in/wait/go")
    wait_until(lambda: record(job).state is State.RUNNING)
    fill(redis)
    (tmp_path / "go").touch()
    wait_until(lambda: "Failed operation _store_result. Retrying" in worker.log, what="Celery cannot store the result")
    redis.config_set("maxmemory", 0)
    assert wait_for_result(job)["provenance"]["attempts"] == 1
    assert starts(tmp_path, "/wait/go") == 1


def test_what_waits_in_a_full_redis_is_done_once_there_is_room(
    outage: EmbeddedValkey, redis: Redis, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    """kombu pops a message and cannot note that it has: the message is gone, the record is not."""
    first = start_worker()
    jobs = [diarize.delay(f"http://stand.in/wait/go/{n}") for n in range(3)]
    wait_until(lambda: starts(tmp_path, "/wait/go/0"))
    fill(redis)
    (tmp_path / "go").touch()
    time.sleep(3)
    redis.config_set("maxmemory", 0)
    if first.process.poll() is not None:
        start_worker()
    for job in jobs:
        assert wait_for_result(job)["segments"]
    assert [starts(tmp_path, f"/wait/go/{n}") for n in range(3)] == [1, 1, 1]


@pytest.fixture
def own_server() -> Iterator[Callable[..., EmbeddedValkey]]:
    servers: list[EmbeddedValkey] = []

    def start(*arguments: str, **options: Any) -> EmbeddedValkey:
        servers.append(EmbeddedValkey(arguments=arguments, **options).start())
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


def test_a_redis_that_evicts_is_refused(
    own_server: Callable[..., EmbeddedValkey], start_worker: Callable[..., Worker]
) -> None:
    evicting = own_server("--maxmemory-policy", "allkeys-lru")
    worker = start_worker(ready=False, REDIS_URL=evicting.url)
    assert worker.process.wait(60) == 78
    assert (
        "this worker cannot start: Redis throws keys away when it is full (maxmemory-policy allkeys-lru)" in worker.log
    )
    assert "set maxmemory-policy noeviction" in worker.log


@pytest.mark.parametrize("persistent", [True, False])
def test_a_redis_that_keeps_nothing_is_warned_of(
    own_server: Callable[..., EmbeddedValkey], start_worker: Callable[..., Worker], persistent: bool
) -> None:
    worker = start_worker(REDIS_URL=own_server(persistent=persistent).url)
    assert ("Redis keeps nothing on disk" in worker.log) is not persistent


@pytest.mark.parametrize("lost", ["everything", "the newest"])
def test_a_redis_that_lost_data_is_told_from_a_quiet_one(
    start_worker: Callable[..., Worker], tmp_path: Path, lost: str
) -> None:
    folder, backup = tmp_path / "valkey", tmp_path / "backup"
    folder.mkdir()
    with EmbeddedValkey(folder, persistent=True) as server, Redis.from_url(server.url) as client:
        worker = start_worker(REDIS_URL=server.url)
        rounds = wait_until(lambda: int(client.get("diarize:fleet:rounds") or 0))
        server.kill()
        shutil.copytree(folder, backup)
        server.start()
        wait_until(lambda: int(client.get("diarize:fleet:rounds") or 0) > rounds + 1)
        assert "Redis has lost data" not in worker.log, "a restart that keeps all is none"
        server.kill()
        shutil.rmtree(folder)
        if lost == "everything":
            folder.mkdir()
        else:
            shutil.copytree(backup, folder)
        server.start()
        wait_until(lambda: "Redis has lost data" in worker.log)
        wait_until(lambda: client.get("diarize:budget:shut"), what="nothing is sent to RunPod for the rest of the day")
        assert ("came back empty" if lost == "everything" else "came back with older data") in worker.log


@pytest.mark.parametrize("hangs", [False, True])
def test_who_waits_for_a_result_waits_out_an_outage(
    outage: EmbeddedValkey, start_worker: Callable[..., Worker], caplog: pytest.LogCaptureFixture, hangs: bool
) -> None:
    worker = start_worker()
    jobs = [diarize.delay(f"http://stand.in/wait/{name}") for name in ("one", "two")]
    backend = diarize.backend
    # As an outage left it at whose end nobody waited any more.
    backend.result_consumer._is_deaf = True
    wanted = {backend.get_key_for_task(job.id) for job in jobs}
    with ThreadPoolExecutor() as threads:
        answers = [threads.submit(job.get, timeout=60) for job in jobs]
        wait_until(lambda: wanted <= backend.result_consumer.subscribed_to, what="both are listened for")
        wait_until(lambda: starts(worker.folder, "/one"), what="the outage does not make it the second")
        outage.process.send_signal(signal.SIGSTOP) if hangs else outage.kill()
        (worker.folder / "one").touch()
        wait_until(lambda: "waits for Redis, which has the results" in caplog.text)
        begun_meanwhile = threads.submit(diarize.AsyncResult(jobs[0].id).get, timeout=60)
        outage.process.send_signal(signal.SIGCONT) if hangs else outage.start()
        first = answers[0].result()
        (worker.folder / "two").touch()
        assert first["segments"]
        assert begun_meanwhile.result() == first
        assert answers[1].result()["segments"]
    assert ResultSet(jobs, app=diarize.app).get(timeout=20)[0] == first


def test_a_long_outage_is_told_of_and_can_be_waited_for_again(
    outage: EmbeddedValkey, start_worker: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.backend.OUTAGE_SECONDS", 1)
    job = diarize.delay("http://stand.in/turns/5/1")
    outage.kill()
    for ask in (lambda: job.get(timeout=60), lambda: job.state, job.ready):
        with pytest.raises(QueueUnavailable, match="Redis cannot be used"):
            ask()
    outage.start()
    start_worker()
    assert job.get(timeout=60)["segments"]
