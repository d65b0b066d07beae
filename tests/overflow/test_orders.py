"""Pause and drain where there is a bridge: nothing new goes to RunPod, and what is there is not forgotten."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from redis import Redis

from tasks.diarize import diarize
from tasks.record import State
from tasks.runpod_bridge import diarize_on_runpod
from tests.bridge import HASTY, emulated, ledger, start_bridge
from tests.emulator import Emulator
from tests.jobs import record, starts
from tests.processes import Worker, run_cli, wait_until

Start = Callable[..., Worker]


def bridge(start: Start, emulator: Emulator) -> Worker:
    return start_bridge(start, emulator, QUEUE_LEASE_SECONDS=3)


def valve(redis: Redis) -> str:
    why: str = json.loads(redis.get("diarize:fleet:valve") or '{"why": ""}')["why"]
    return why


def test_while_overflow_is_paused_nothing_new_goes_to_runpod(redis: Redis, start_worker: Start, tmp_path: Path) -> None:
    """Not even what only RunPod may do, which waits beyond its deadline; the own GPUs go on."""
    with emulated(tmp_path) as emulator:
        run_cli("pause", "--overflow", "--reason", "prices are up")
        start_bridge(start_worker, emulator, arguments=("-A", "tests.hasty"), **HASTY)
        anywhere = diarize.delay("http://stand.in/turns/5/1")
        pinned = diarize_on_runpod.delay("http://stand.in/turns/6/1", deadline_seconds=1)
        wait_until(lambda: valve(redis).startswith("closed: overflow is paused by "))
        wait_until(lambda: record(pinned).ticket_number >= 4, what="it has been looked at several times")
        assert (record(pinned).last_error or {})["code"] == "overflow_closed"
        shown = run_cli("queue").stdout
        assert shown.startswith("NO RUNPOD")
        assert shown.splitlines()[0].endswith(": prices are up; `resume --overflow` ends it")
        assert run_cli("submit", "http://stand.in/turns/7/1").stderr == ""
        assert emulator.submissions == []
        start_worker()
        assert anywhere.get(timeout=60)["provenance"]["provider"] == "local"
        redis.hset(f"diarize:job:{pinned.id}", "deadline_at", redis.time()[0] + 600)
        run_cli("resume", "--overflow")
        assert pinned.get(timeout=60)["provenance"]["provider"] == "runpod"


def test_a_run_is_found_again_while_the_queue_is_paused(redis: Redis, start_worker: Start, tmp_path: Path) -> None:
    with emulated(tmp_path) as emulator:
        first = bridge(start_worker, emulator)
        job = diarize.delay("http://stand.in/wait/go")
        wait_until(lambda: record(job).stage == "at runpod")
        run_cli("pause")
        behind = diarize.delay("http://stand.in/turns/5/1")
        first.kill()
        bridge(start_worker, emulator)
        wait_until(lambda: valve(redis).startswith("closed: the queue is paused by "))
        wait_until(lambda: record(job).token == 2, what="the second bridge has it")
        (tmp_path / "go").touch()
        assert job.get(timeout=60)["provenance"]["provider"] == "runpod"
        assert len(emulator.submissions) == starts(tmp_path, "/wait/go") == 1
        assert record(behind).state is State.QUEUED, "no GPU worker takes jobs, and the valve stays shut all the same"
        run_cli("resume")
        behind.get(timeout=60)
        assert ledger(redis).today().in_flight == 0


def test_where_the_gpu_workers_are_drained_overflow_takes_over(
    redis: Redis, start_worker: Start, tmp_path: Path
) -> None:
    with emulated(tmp_path) as emulator:
        start_worker(QUEUE_LEASE_SECONDS=3)
        sender = bridge(start_worker, emulator)
        diarize.delay("http://stand.in/turns/5/1").get(timeout=60)
        assert emulator.submissions == []
        run_cli("drain", "w0@test", "--wait")
        job = diarize.delay("http://stand.in/turns/6/1")
        assert job.get(timeout=60)["provenance"]["provider"] == "runpod"
        assert "no GPU worker takes jobs" in sender.log


def test_a_drained_bridge_ends_its_runs_and_takes_nothing_more(
    redis: Redis, start_worker: Start, tmp_path: Path
) -> None:
    with emulated(tmp_path) as emulator:
        bridge(start_worker, emulator)
        job = diarize.delay("http://stand.in/wait/go")
        wait_until(lambda: record(job).stage == "at runpod")
        run_cli("drain", "w0@test")
        wait_until(lambda: '"taking": false' in "".join(redis.hvals("diarize:fleet:workers")), what="it has heard")
        assert "draining, 1 running" in run_cli("queue").stdout
        more = [diarize.delay("http://stand.in/turns/5/1"), diarize_on_runpod.delay("http://stand.in/turns/6/1")]
        (tmp_path / "go").touch()
        assert run_cli("drain", "w0@test", "--wait").stdout == "w0@test: drained\n"
        assert job.get(timeout=60)["provenance"]["provider"] == "runpod"
        assert [record(one).state for one in more] == [State.QUEUED] * 2
        assert "off: every bridge is drained" in run_cli("queue").stdout
        run_cli("resume", "w0@test")
        assert [one.get(timeout=60)["provenance"]["provider"] for one in more] == ["runpod"] * 2
