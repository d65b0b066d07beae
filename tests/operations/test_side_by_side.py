"""Several jobs side by side in one worker: one computes at a time, and no other worker stands idle meanwhile."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile
from redis import Redis

from diarization.diarizer import BUNDLED_MODEL, DiarizerOptions
from diarization.memory import BASE_BYTES, BYTES_PER_AUDIO_HOUR, available_bytes
from diarization.recording import Recording
from diarization.turns import SpeakerHints
from tasks.celery import app
from tasks.diarize import diarize
from tasks.record import State
from tests.jobs import record
from tests.processes import Worker, run_cli, wait_until
from tests.pyannote_model import SAMPLE_RATE, sample
from tests.standin import read_journal

Start = Callable[..., Worker]


def worker_of(job: Any) -> str:
    """The node name of the worker that runs it."""
    return str(record(job).worker).partition(" ")[0]


def runs(job: Any) -> bool:
    return record(job).state is State.RUNNING


def wait(name: str) -> Any:
    """A job that runs until the file `go` stands there."""
    return diarize.delay(f"http://stand.in/wait/go/{name}")


def idle(redis: Redis) -> set[str]:
    """Node names of the workers that say that they have nothing to do."""
    return {name.partition(" ")[0] for name in redis.zrange("diarize:fleet:idle", 0, -1)}


def said(redis: Redis) -> list[tuple[int, bool]]:
    """What each worker last said: how many jobs it has, and whether it takes any."""
    facts = map(json.loads, redis.hvals("diarize:fleet:workers"))
    return [(one["held"], one["taking"]) for one in facts]


def test_a_worker_that_is_alone_runs_as_many_as_it_may(redis: Redis, start_worker: Start, tmp_path: Path) -> None:
    start_worker(DIARIZATION_JOBS_PER_GPU=2)
    jobs = [wait(name) for name in "abc"]
    wait_until(lambda: runs(jobs[0]) and runs(jobs[1]), what="both run")
    assert record(jobs[2]).state is State.QUEUED
    (tmp_path / "go").touch()
    assert [job.get(timeout=30)["provenance"]["attempts"] for job in jobs] == [1, 1, 1]
    assert len({line["pid"] for line in read_journal(tmp_path) if line["event"] == "start"}) == 2


def test_a_worker_that_is_given_more_processes_uses_them(redis: Redis, start_worker: Start, tmp_path: Path) -> None:
    worker = start_worker()
    app.control.pool_grow(1)
    wait_until(lambda: worker.log.count("model loaded") == 2, what="the second is ready")
    jobs = [wait(name) for name in "ab"]
    wait_until(lambda: all(map(runs, jobs)), what="both run")
    (tmp_path / "go").touch()
    assert [job.get(timeout=30)["provenance"]["attempts"] for job in jobs] == [1, 1]


def test_a_second_job_goes_to_the_worker_that_has_none(redis: Redis, start_worker: Start, tmp_path: Path) -> None:
    for _ in range(2):
        start_worker(DIARIZATION_JOBS_PER_GPU=2, QUEUE_LEASE_SECONDS=120)
    wait_until(lambda: idle(redis) == {"w0@test", "w1@test"})
    first = [wait(name) for name in "ab"]
    wait_until(lambda: all(map(runs, first)), what="both run")
    assert {worker_of(job) for job in first} == {"w0@test", "w1@test"}
    assert not idle(redis)
    second = [wait(name) for name in "cd"]
    wait_until(lambda: all(map(runs, second)), what="each has a second one as soon as none is idle")
    run_cli("pause")
    wait_until(lambda: said(redis) == [(2, False)] * 2)
    run_cli("resume")
    wait_until(lambda: said(redis) == [(2, True)] * 2, what="a beat in the midst of their jobs")
    (tmp_path / "go").touch()
    [job.get(timeout=30) for job in first + second]
    wait_until(
        lambda: idle(redis) == {"w0@test", "w1@test"}, seconds=15, what="they say so soon, not with the next beat"
    )


def test_workers_that_take_nothing_keep_no_other_from_a_second_job(
    redis: Redis, start_worker: Start, tmp_path: Path
) -> None:
    """One is drained; one is killed, and counts for a lease."""
    start_worker(DIARIZATION_JOBS_PER_GPU=2, QUEUE_LEASE_SECONDS=4)
    drained, killed = (start_worker(QUEUE_LEASE_SECONDS=4) for _ in range(2))
    wait_until(lambda: len(idle(redis)) == 3)
    run_cli("drain", "w1@test")
    wait_until(lambda: idle(redis) == {"w0@test", "w2@test"})
    killed.kill()
    jobs = [wait(name) for name in "ab"]
    wait_until(lambda: all(map(runs, jobs)), what="both run")
    assert {worker_of(job) for job in jobs} == {"w0@test"}
    (tmp_path / "go").touch()
    [job.get(timeout=30) for job in jobs]
    assert drained.process.poll() is None


def test_workers_that_have_stopped_are_idle_no_more(redis: Redis, start_worker: Start, tmp_path: Path) -> None:
    """Nor is one that had a job to finish, though for a moment it has none and still lives."""
    workers = {f"w{number}@test": start_worker(QUEUE_LEASE_SECONDS=120) for number in range(2)}
    wait_until(lambda: idle(redis) == set(workers))
    job = wait("a")
    wait_until(lambda: runs(job))
    (other,) = idle(redis)
    assert workers[other].stop() == 0
    assert not idle(redis)
    busy = workers[worker_of(job)]
    busy.process.terminate()
    (tmp_path / "go").touch()
    assert busy.process.wait(30) == 0
    assert job.get(timeout=30)["provenance"]["attempts"] == 1
    assert not idle(redis)


def test_a_recording_that_found_no_room_beside_another_comes_next(
    redis: Redis, start_worker: Start, tmp_path: Path
) -> None:
    """Else a long one would wait for as long as there are short ones to run beside each other."""
    start_worker(DIARIZATION_JOBS_PER_GPU=2)
    seconds = round((0.6 * available_bytes() - BASE_BYTES) / BYTES_PER_AUDIO_HOUR * 3600)
    first, large = (diarize.delay(f"http://stand.in/memory/{seconds}/go/{name}") for name in "ab")
    small = diarize.delay("http://stand.in/turns/5/1")
    wait_until(lambda: record(large).needs_bytes, what="it is refused, for what the first one will take")
    wait_until(lambda: record(large).state is State.QUEUED, seconds=10, what="it is in line, and waits for that one")
    (tmp_path / "go").touch()
    assert [job.get(timeout=20)["provenance"]["attempts"] for job in (first, large, small)] == [1, 1, 1]
    begun = [record(job).started_at or 0.0 for job in (first, large, small)]
    assert begun == sorted(begun)


def test_a_child_that_dies_takes_its_own_job_along_and_no_other(
    redis: Redis, start_worker: Start, tmp_path: Path
) -> None:
    start_worker(DIARIZATION_JOBS_PER_GPU=2)
    jobs = [wait(name) for name in "ab"]
    wait_until(lambda: all(map(runs, jobs)))
    pids = {line["what"][-1]: line["pid"] for line in read_journal(tmp_path) if line["event"] == "start"}
    os.kill(pids["a"], signal.SIGKILL)
    wait_until(lambda: runs(jobs[0]) and record(jobs[0]).attempts == 2, what="it is taken anew")
    (tmp_path / "go").touch()
    assert [job.get(timeout=30)["provenance"]["attempts"] for job in jobs] == [2, 1]


def diarize_beside(number: int, folder: Path) -> None:
    """What a child does; its progress goes to a file, with the time."""
    from diarization.pipeline import load

    options = DiarizerOptions(str(BUNDLED_MODEL), device="cpu", recordings_dir=folder, device_lock=folder / "lock")
    diarizer, reports = load(options), []

    def report(stage: str, done: int, total: int) -> None:
        reports.append((time.monotonic(), stage, total))

    (folder / f"{number}.loaded").touch()
    wait_until(lambda: len(list(folder.glob("*.loaded"))) == 2, seconds=240)
    result = diarizer.diarize(Recording(f"file://{folder}/recording.wav"), SpeakerHints(), report)
    (folder / f"{number}.json").write_text(json.dumps({"reports": reports, "result": result.to_json()}))


@pytest.mark.model
def test_networks_of_two_processes_never_run_at_once_and_the_rest_does(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "recording.wav", sample(5, 17), SAMPLE_RATE)
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=diarize_beside, args=(number, tmp_path)) for number in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(280)
        assert process.exitcode == 0
    told = [json.loads((tmp_path / f"{number}.json").read_text()) for number in range(2)]
    assert told[0]["result"]["segments"] == told[1]["result"]["segments"] != []
    busy = sorted(
        (
            min(at for at, stage, total in one["reports"] if stage == "segmentation" and total),
            max(at for at, stage, _ in one["reports"] if stage == "embedding"),
        )
        for one in told
    )
    (_, first_ended), (second_began, _) = busy
    assert first_ended <= second_began
    waited = max(told, key=lambda one: sum(stage == "segmentation" and not total for _, stage, total in one["reports"]))
    at, _, _ = next(line for line in waited["reports"] if line[1] == "segmentation")
    assert at < first_ended, "it was decoded while the other one computed"
    took = waited["result"]["provenance"]["stage_seconds"]
    assert took["segmentation"] < second_began - at, "a wait is no part of a stage"


@pytest.mark.model
def test_a_worker_runs_the_real_model_side_by_side(
    redis: Redis, start_worker: Start, nvidia_smi: Callable[[str], str], tmp_path: Path
) -> None:
    """Under the lock, which a host with a GPU has; torch finds none in it, and takes the CPU."""
    soundfile.write(tmp_path / "recording.wav", sample(), SAMPLE_RATE)
    worker = start_worker(
        ready=False,
        PATH=nvidia_smi("GPU 0: NVIDIA L4 (UUID: GPU-aaaa-0)\n"),
        DIARIZATION_JOBS_PER_GPU=2,
        DIARIZATION_GPU_SEATS_DIR=tmp_path / "seats",
        DIARIZATION_DIARIZER="diarization.pipeline:load",
        DIARIZATION_RECORDINGS_DIR=tmp_path,
        QUEUE_RUNTIME_DIR=tmp_path,
    )
    worker.wait_until_ready(240)
    jobs = [diarize.delay(f"file://{tmp_path}/recording.wav") for _ in range(3)]
    wait_until(lambda: runs(jobs[0]) and runs(jobs[1]), what="both run")
    answers = [job.get(timeout=240) for job in jobs]
    assert answers[0]["segments"] == answers[1]["segments"] == answers[2]["segments"] != []
    assert [answer["provenance"]["attempts"] for answer in answers] == [1, 1, 1]
    assert list(tmp_path.glob("diarize-queue-*/*/device.lock"))
    for child in worker.children:
        held_open = [str(one.readlink()) for one in Path(f"/proc/{child}/fd").iterdir()]
        assert any(path.endswith("/device.lock") for path in held_open)
