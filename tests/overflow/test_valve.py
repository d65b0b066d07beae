"""The valve between real workers, a real bridge and an emulated RunPod."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from redis import Redis

from tasks.diarize import diarize
from tasks.record import State
from tasks.runpod_bridge import diarize_on_runpod
from tests.bridge import emulated, ledger, start_bridge
from tests.jobs import record, starts
from tests.processes import Worker, wait_until

Start = Callable[..., Worker]


def test_without_a_gpu_worker_the_valve_is_open(redis: Redis, start_worker: Start, tmp_path: Path) -> None:
    with emulated(tmp_path) as emulator:
        start_bridge(start_worker, emulator)
        results = [diarize.delay(f"http://stand.in/turns/{n}/2").get(timeout=60) for n in (5, 6)]
        assert [result["provenance"]["provider"] for result in results] == ["runpod", "runpod"]
        assert len(emulator.submissions) == 2


def test_while_the_gpus_are_in_time_nothing_is_sent(redis: Redis, start_worker: Start, tmp_path: Path) -> None:
    with emulated(tmp_path) as emulator:
        start_worker()
        bridge = start_bridge(start_worker, emulator)
        jobs = [diarize.delay(f"http://stand.in/sleep/{n / 10}") for n in range(10, 16)]
        assert {job.get(timeout=60)["provenance"]["provider"] for job in jobs} == {"local"}
        assert emulator.submissions == []
        assert "overflow: open" not in bridge.log


def test_what_the_gpus_would_do_too_late_goes_out(redis: Redis, start_worker: Start, tmp_path: Path) -> None:
    """One worker, whose job lasts, and deadlines that it cannot meet."""
    with emulated(tmp_path) as emulator:
        start_worker()
        bridge = start_bridge(start_worker, emulator, OVERFLOW_COLD_START_SECONDS=1)
        held = diarize.delay("http://stand.in/wait/go", expected_audio_seconds=36_000)
        wait_until(lambda: record(held).state is State.RUNNING)
        jobs = [diarize.delay(f"http://stand.in/turns/{n}/2", deadline_seconds=60) for n in (5, 6, 7)]
        results = [job.get(timeout=60) for job in jobs]
        assert {result["provenance"]["provider"] for result in results} == {"runpod"}
        assert "overflow: open" in bridge.log
        assert "would be" in bridge.log
        (tmp_path / "go").touch()
        assert held.get(timeout=60)["provenance"]["provider"] == "local"
        assert [starts(tmp_path, f"/turns/{n}/2") for n in (5, 6, 7)] == [1, 1, 1]


def test_a_dry_run_says_what_it_would_send(redis: Redis, start_worker: Start, tmp_path: Path) -> None:
    with emulated(tmp_path) as emulator:
        bridge = start_bridge(start_worker, emulator, OVERFLOW_DRY_RUN="true")
        job = diarize.delay("http://stand.in/turns/5/2")
        wait_until(lambda: "dry run, would be open for 1: no GPU worker takes jobs" in bridge.log)
        assert (record(job).state, emulator.submissions) == (State.QUEUED, [])


def test_a_job_that_only_waits_at_runpod_comes_home(redis: Redis, start_worker: Start, tmp_path: Path) -> None:
    with emulated(tmp_path, active_workers=0, max_workers=0) as emulator:
        start_bridge(start_worker, emulator)
        job = diarize.delay("http://stand.in/turns/5/2")
        wait_until(lambda: record(job).stage == "queued at runpod")
        start_worker()
        provenance = job.get(timeout=60)["provenance"]
        assert (provenance["provider"], provenance["attempts"]) == ("local", 1)
        (run,) = emulator.jobs.values()
        assert run.status == "CANCELLED"
        assert ledger(redis).today().in_flight == 0
        assert len(emulator.submissions) == 1


def test_a_pinned_job_stays_at_runpod(redis: Redis, start_worker: Start, tmp_path: Path) -> None:
    with emulated(tmp_path, active_workers=0, max_workers=0) as emulator:
        start_bridge(start_worker, emulator)
        job = diarize_on_runpod.delay("http://stand.in/turns/5/2")
        wait_until(lambda: record(job).stage == "queued at runpod")
        start_worker()
        emulator.change(max_workers=1)
        assert job.get(timeout=60)["provenance"]["provider"] == "runpod"


def test_a_gpu_worker_sends_on_what_is_at_runpod(redis: Redis, start_worker: Start, tmp_path: Path) -> None:
    """The bridge dies while the job runs there; its ticket comes back to the queue of all."""
    with emulated(tmp_path) as emulator:
        bridge = start_bridge(start_worker, emulator, QUEUE_LEASE_SECONDS=3)
        job = diarize.delay("http://stand.in/wait/go")
        wait_until(lambda: record(job).stage == "at runpod")
        start_worker(QUEUE_LEASE_SECONDS=3)
        bridge.kill()
        wait_until(lambda: record(job).state is State.QUEUED)
        second = start_bridge(start_worker, emulator, QUEUE_LEASE_SECONDS=3)
        wait_until(lambda: "is found again as run" in second.log)
        (tmp_path / "go").touch()
        assert job.get(timeout=60)["provenance"]["provider"] == "runpod"
        assert starts(tmp_path, "/wait/go") == 1
        assert len(emulator.submissions) == 1
