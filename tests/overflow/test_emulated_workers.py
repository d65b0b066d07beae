"""The emulator with real workers: faults of the workers' side, scaling, and the bill."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.emulator import Emulator, Fault, Settings
from tests.emulator.endpoint import RAISED
from tests.processes import wait_until
from tests.remote import STAND_IN, get, post, status, submit, wait


def environment(folder: Path) -> dict[str, str]:
    return {"DIARIZATION_DIARIZER": "tests.standin:load", "STANDIN_DIR": str(folder)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("endpoint")


@pytest.fixture(scope="module")
def emulator(folder: Path) -> Iterator[Emulator]:
    with Emulator(folder, Settings(active_workers=1), environment=environment(folder)) as running:
        yield running


def posted(emulator: Emulator, job_id: str, posts: int = 1) -> None:
    wait_until(lambda: emulator.job(job_id).posts == posts, what=f"{posts} results came: {emulator.log()}")


def test_a_job_s_times_and_its_expiry(emulator: Emulator) -> None:
    told = wait(emulator, submit(emulator, "turns/5/1"))
    assert told["status"] == "COMPLETED"
    assert told["workerId"] == "worker0"
    assert told["delayTime"] >= 0
    assert told["executionTime"] >= 0
    emulator.advance(emulator.settings.retention_seconds + 1)
    assert get(emulator, f"status/{told['id']}").status_code == 404


def test_a_result_that_never_arrives(emulator: Emulator) -> None:
    emulator.script(Fault("job", "stuck-running"))
    job_id = submit(emulator, "turns/5/1", policy={"executionTimeout": 60_000})
    posted(emulator, job_id)
    assert status(emulator, job_id)["status"] == "IN_PROGRESS"
    emulator.advance(61)
    assert status(emulator, job_id)["status"] == "TIMED_OUT"


@pytest.mark.parametrize(
    ("fault", "ended", "told"),
    [
        ("empty", "COMPLETED", {}),
        ("garbled", "COMPLETED", {"output": {"segments": None}}),
        ("raised", "FAILED", {"error": json.dumps(RAISED)}),
        ("odd", "PAUSED", {}),
    ],
)
def test_an_end_that_is_not_the_handler_s(emulator: Emulator, fault: Any, ended: str, told: dict[str, Any]) -> None:
    emulator.script(Fault("job", fault))
    job_id = submit(emulator, "turns/5/1")
    posted(emulator, job_id)
    said = status(emulator, job_id)
    assert said["status"] == ended
    assert {name: said[name] for name in ("output", "error") if name in said} == told


def test_progress_that_overtakes_the_result(emulator: Emulator) -> None:
    emulator.script(Fault("job", "overtaken"))
    job_id = submit(emulator, "turns/5/1")
    posted(emulator, job_id)
    told = status(emulator, job_id)
    assert (told["status"], told["output"]) == ("IN_PROGRESS", "discrete_diarization;None;None")
    assert post(emulator, f"cancel/{job_id}").json()["status"] == "CANCELLED"


def test_the_same_id_runs_twice_and_the_first_result_counts(emulator: Emulator) -> None:
    emulator.script(Fault("job", "twice"))
    job_id = submit(emulator, "turns/5/1")
    posted(emulator, job_id, 2)
    job = emulator.job(job_id)
    assert (job.status, job.takers, job.late_posts) == ("COMPLETED", ["worker0", "worker0"], 1)
    assert emulator.submissions_by("audio_url")[STAND_IN.format("turns/5/1")] == len(emulator.submissions)


@pytest.mark.parametrize("fault", [Fault("job-done", "status", status=400), Fault("job-done", "reset-before")])
def test_a_post_that_is_refused_is_lost_for_good(emulator: Emulator, fault: Fault) -> None:
    already = emulator.log().count("Failed to return job results")
    emulator.script(fault)
    job_id = submit(emulator, "turns/5/1")
    wait_until(lambda: emulator.log().count("Failed to return job results") > already)
    after = submit(emulator, "turns/6/1")
    assert wait(emulator, after)["status"] == "COMPLETED"
    assert status(emulator, job_id)["status"] == "IN_PROGRESS"
    assert emulator.job(job_id).posts == 0


def test_a_post_that_fails_once_is_made_again(emulator: Emulator) -> None:
    emulator.script(Fault("job-done", "status", status=500))
    assert wait(emulator, submit(emulator, "turns/5/1"))["status"] == "COMPLETED"


def test_a_late_post_changes_nothing(emulator: Emulator) -> None:
    emulator.script(Fault("job-done", "hold-before"))
    job_id = submit(emulator, "turns/5/1")
    wait_until(lambda: emulator.struck[-1].what == "hold-before")
    emulator.advance(emulator.settings.execution_timeout_seconds + 1)
    assert status(emulator, job_id)["status"] == "TIMED_OUT"
    emulator.release()
    after = submit(emulator, "turns/6/1")
    assert wait(emulator, after)["status"] == "COMPLETED"
    assert status(emulator, job_id)["status"] == "TIMED_OUT"


def test_runsync_answers_with_the_result(emulator: Emulator) -> None:
    told = post(emulator, "runsync", {"input": {"audio_url": STAND_IN.format("turns/5/1")}}).json()
    assert told["status"] == "COMPLETED"
    assert told["output"]["audio_seconds"] == 5.0


def test_a_webhook_is_told_of_the_end(emulator: Emulator) -> None:
    told: list[dict[str, Any]] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Hook) as hook:
        once = threading.Thread(target=hook.handle_request)
        once.start()
        wanted = {"task": "diarization", "audio_url": STAND_IN.format("turns/5/1")}
        url = f"http://127.0.0.1:{hook.server_address[1]}/"
        job_id = post(emulator, "run", {"input": wanted, "webhook": url}).json()["id"]
        once.join()
    assert (told[0]["id"], told[0]["status"], told[0]["input"]) == (job_id, "COMPLETED", wanted)
    assert told[0]["output"]["audio_seconds"] == 5.0


def test_workers_come_with_the_queue_and_go_when_idle_and_all_of_it_is_billed(tmp_path: Path) -> None:
    settings = Settings(max_workers=2, scale_after_seconds=0.2, idle_seconds=0.5)
    with Emulator(tmp_path, settings, environment=environment(tmp_path)) as emulator:
        assert emulator.workers == {}
        jobs = [submit(emulator, f"wait/go?{number}") for number in range(3)]
        wait_until(lambda: emulator.health["workers"]["running"] == 2)
        assert emulator.health["jobs"]["inQueue"] == 1
        assert len(emulator.workers) == 2
        (tmp_path / "go").touch()
        assert [wait(emulator, job_id)["status"] for job_id in jobs] == ["COMPLETED"] * 3
        wait_until(lambda: all(worker.state == "stopped" for worker in emulator.workers.values()))
        paid = sum(math.ceil((worker.stopped_at or 0) - worker.started_at) for worker in emulator.workers.values())
        assert emulator.bill_usd == pytest.approx(paid * settings.usd_per_second)
        assert paid >= 2
        emulator.advance(1000)
        assert emulator.bill_usd == pytest.approx(paid * settings.usd_per_second)


def test_a_cold_start_is_paid_for_and_waited_for(tmp_path: Path) -> None:
    settings = Settings(cold_start_seconds=300)
    with Emulator(tmp_path, settings, environment=environment(tmp_path)) as emulator:
        job_id = submit(emulator, "turns/5/1")
        wait_until(lambda: emulator.health["workers"]["initializing"] == 1)
        assert emulator.log() == ""
        emulator.advance(300)
        told = wait(emulator, job_id)
        assert told["delayTime"] >= 300_000
        assert emulator.bill_usd >= 300 * settings.usd_per_second
