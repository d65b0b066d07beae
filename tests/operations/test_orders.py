"""Pause, resume and drain between real workers: they obey, nothing is lost, and what was ordered outlives everybody."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from redis import Redis

from tasks.diarize import diarize
from tasks.record import State
from tests.jobs import record, starts
from tests.processes import Worker, run_cli, wait_until

Start = Callable[..., Worker]


def fleet() -> dict[str, Any]:
    told: dict[str, Any] = json.loads(run_cli("queue", "--json").stdout)
    return told


def drain_states() -> dict[str, str | None]:
    """By node name."""
    return {worker["name"].partition(" ")[0]: worker["drain"] for worker in fleet()["workers"]}


def closed(redis: Redis, workers: int, *, held: int = 0) -> bool:
    """Whether so many workers have said that they take nothing, and hold so many jobs in all."""
    said = [one for one in map(json.loads, redis.hvals("diarize:fleet:workers")) if not one["taking"]]
    return len(said) == workers and sum(one["held"] for one in said) == held


def test_a_pause_lets_what_runs_go_on_and_nothing_begin(redis: Redis, start_worker: Start, tmp_path: Path) -> None:
    worker = start_worker()
    running = diarize.delay("http://stand.in/wait/go")
    wait_until(lambda: record(running).state is State.RUNNING)
    assert run_cli("pause", "--reason", "the disk\nis full").stdout.startswith("paused: no worker takes a new job")
    assert closed(redis, 1, held=1), "`pause` waits for that"
    done = run_cli("submit", "http://stand.in/turns/5/1")
    assert "warning: the queue is paused since" in done.stderr
    assert done.stderr.strip().endswith(": the disk is full: jobs wait for `resume`")
    waiting = [done.stdout.strip(), diarize.delay("http://stand.in/turns/5/1", provider="local").id]
    (tmp_path / "go").touch()
    running.get(timeout=30)
    later = start_worker()
    wait_until(lambda: closed(redis, 2), what="one that starts during a pause obeys as well")
    assert [record(job).state for job in waiting] == [State.QUEUED] * 2
    shown = run_cli("queue").stdout
    assert shown.startswith("PAUSED     since ")
    assert "when the queue is resumed" in shown
    assert fleet()["paused"]["reason"] == "the disk is full"
    assert fleet()["finish_at"] is None
    assert run_cli("resume").stdout == "resumed: workers take jobs again\n"
    assert all(diarize.AsyncResult(job).get(timeout=30)["segments"] for job in waiting)
    assert run_cli("resume").stdout == "the queue was not paused\n"
    assert run_cli("submit", "http://stand.in/turns/5/1").stderr == ""
    assert "Traceback" not in worker.log + later.log


def test_a_drained_worker_ends_what_it_runs_and_takes_nothing_more(
    redis: Redis, start_worker: Start, tmp_path: Path
) -> None:
    drained = start_worker()
    running = diarize.delay("http://stand.in/wait/go")
    wait_until(lambda: record(running).state is State.RUNNING)
    run_cli("drain", "w0@test", "--reason", "new driver")
    wait_until(lambda: drain_states() == {"w0@test": "draining, 1 running"})
    waiting = diarize.delay("http://stand.in/turns/5/1")
    assert run_cli("drain", "w0@test", "--wait", "--timeout", "0", code=1).stdout == "w0@test: draining, 1 running\n"
    (tmp_path / "go").touch()
    assert run_cli("drain", "w0@test", "--wait").stdout == "w0@test: drained\n"
    assert running.get(timeout=30)["provenance"]["attempts"] == 1
    assert record(waiting).state is State.QUEUED
    assert "drained" in run_cli("queue").stdout
    assert fleet()["finish_at"] is None, "it is no capacity"
    assert drained.process.poll() is None
    assert drained.stop() == 0
    again = start_worker(options=("-n", "w0@test"))
    wait_until(lambda: closed(redis, 2), what="the one of that name that comes after it is drained as well")
    other = start_worker()
    waiting.get(timeout=30)
    assert record(waiting).worker == f"w2@test ({other.process.pid})"
    other.stop()
    last = diarize.delay("http://stand.in/turns/6/1")
    assert run_cli("resume", "w0@test").stdout == "w0@test takes jobs again\n"
    last.get(timeout=30)
    assert record(last).worker == f"w0@test ({again.process.pid})"
    assert starts(tmp_path, "/wait/go") == 1


def test_who_waits_for_a_drain_hears_that_another_has_ended_it(
    redis: Redis, start_worker: Start, tmp_path: Path
) -> None:
    start_worker()
    running = diarize.delay("http://stand.in/wait/go")
    wait_until(lambda: record(running).state is State.RUNNING)
    with ThreadPoolExecutor(1) as beside:
        waits = beside.submit(run_cli, "drain", "w0@test", "--wait", code=1)
        wait_until(lambda: drain_states() == {"w0@test": "draining, 1 running"})
        run_cli("resume", "w0@test")
        assert waits.result().stdout == "w0@test: resumed meanwhile\n"
    (tmp_path / "go").touch()


def test_workers_are_named_as_they_are_shown_or_by_their_host(redis: Redis, start_worker: Start) -> None:
    first = start_worker()
    start_worker()
    wait_until(lambda: len(drain_states()) == 2)
    unknown = run_cli("drain", "nobody@test", code=2)
    assert "nobody@test is none of the workers of the last hour: w0@test, w1@test" in unknown.stderr
    assert "is none of the drained workers: there are none" in run_cli("resume", "w0@test", code=2).stderr
    assert "name the workers" in run_cli("drain", code=2).stderr
    run_cli("drain", f"w0@test ({first.process.pid})")
    wait_until(lambda: drain_states() == {"w0@test": "drained", "w1@test": None})
    assert run_cli("drain", "*@test", "--wait").stdout == "w0@test: drained\nw1@test: drained\n"
    assert run_cli("resume", "*").stdout == "w0@test takes jobs again\nw1@test takes jobs again\n"
    diarize.delay("http://stand.in/turns/5/1").get(timeout=30)


def test_a_pause_in_the_midst_of_work_loses_nothing(redis: Redis, start_worker: Start, tmp_path: Path) -> None:
    """In the order in which they came: a job that is on its way to a worker when the pause comes is not sent behind."""
    start_worker()
    jobs = [diarize.delay(f"http://stand.in/sleep/0.1?{number}") for number in range(30)]
    for number in range(3):
        wait_until(lambda: sum(record(job).state is State.DONE for job in jobs) >= 5 * (number + 1))  # noqa: B023
        run_cli("pause")
        wait_until(lambda: closed(redis, 1), what="the last one has ended")
        assert not redis.zcard("diarize:state:running"), "who says that it takes nothing runs out"
        run_cli("resume")
    for job in jobs:
        job.get(timeout=60)
    assert starts(tmp_path, "/sleep/0.1") == 30
    began = [record(job).started_at for job in jobs]
    assert began == sorted(began)
