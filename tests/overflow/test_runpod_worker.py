"""The handler's process: how it starts, when it does not, and how it ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from tests.emulator import Emulator, Settings
from tests.processes import ROOT, running_server, wait_until
from tests.remote import STAND_IN, status, submit, wait
from tests.servers import free_port
from tests.standin import read_journal

AS_MODULE = ["-m", "runpod_worker.handler"]
OFFLINE = {"RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true", "RUNPOD_SKIP_GPU_CHECK": "true"}
STANDIN = {**OFFLINE, "DIARIZATION_DIARIZER": "tests.standin:load"}


@contextmanager
def endpoint(folder: Path, settings: Settings, **environment: str) -> Iterator[Emulator]:
    of_the_worker = {"DIARIZATION_DIARIZER": "tests.standin:load", "STANDIN_DIR": str(folder), **environment}
    with Emulator(folder, settings, environment=of_the_worker) as running:
        yield running


def started(folder: Path, script: str) -> None:
    wait_until(lambda: [entry for entry in read_journal(folder) if entry["what"].endswith(f"/{script}")])


@pytest.mark.parametrize(
    ("environment", "line"),
    [
        ({"DIARIZATION_MODEL": "unavailable"}, "model_unavailable: the stand-in was told to be unavailable"),
        ({"DIARIZATION_DIARIZER": "no_such_module:load"}, "no_such_module:load cannot be imported"),
        ({"DIARIZATION_MODLE": "x"}, "DIARIZATION_MODLE is not a setting"),
    ],
)
def test_without_a_model_the_process_ends_and_takes_no_job(
    tmp_path: Path, environment: dict[str, str], line: str
) -> None:
    with endpoint(tmp_path, Settings(), **environment) as emulator:
        job_id = submit(emulator, "turns/5/1")
        wait_until(lambda: emulator.health["workers"]["unhealthy"])
        last = emulator.log().splitlines()[-1]
        assert last.startswith("CRITICAL runpod_worker: this worker cannot start: ")
        assert line in last
        assert emulator.workers["worker0"].exit_code == 78
        assert status(emulator, job_id)["status"] == "IN_QUEUE"
        assert emulator.requests["job-take"] == 0


def test_sigterm_lets_the_job_end_and_takes_no_other(tmp_path: Path) -> None:
    with endpoint(tmp_path, Settings(active_workers=1)) as emulator:
        running = submit(emulator, "wait/go")
        started(tmp_path, "wait/go")
        waiting = submit(emulator, "turns/5/1")
        emulator.stop_worker("worker0")
        wait_until(lambda: len(emulator.workers) == 2, what="another one is started")
        assert status(emulator, running)["status"] == "IN_PROGRESS"
        (tmp_path / "go").touch()
        assert wait(emulator, running)["status"] == "COMPLETED"
        assert wait(emulator, waiting)["status"] == "COMPLETED"
        wait_until(lambda: emulator.workers["worker0"].state == "stopped")
        assert emulator.workers["worker0"].exit_code == 0
        assert emulator.job(running).takers == ["worker0"]
        assert emulator.job(waiting).takers == ["worker1"]


def test_a_worker_whose_gpu_is_lost_is_replaced(tmp_path: Path) -> None:
    with endpoint(tmp_path, Settings(active_workers=1)) as emulator:
        assert wait(emulator, submit(emulator, "fail/device_lost"))["error"].startswith("device_lost: ")
        assert wait(emulator, submit(emulator, "turns/5/1"))["workerId"] == "worker1"
        wait_until(lambda: emulator.workers["worker0"].state == "stopped")


def test_a_stopped_job_that_does_not_hear_ends_the_process(tmp_path: Path) -> None:
    settings = Settings(active_workers=1, restart_seconds=0)
    with endpoint(tmp_path, settings, QUEUE_STALL_SECONDS="1") as emulator:
        hanging = submit(emulator, "hang")
        started(tmp_path, "hang")
        emulator.advance(settings.execution_timeout_seconds + 1)
        assert status(emulator, hanging)["status"] == "TIMED_OUT"
        assert wait(emulator, submit(emulator, "turns/5/1"))["workerId"] == "worker1"
        assert "a stopped job goes on for 1 s: this worker ends" in emulator.log("worker0")
        assert emulator.workers["worker0"].exit_code == 70


def test_a_job_whose_worker_is_killed_runs_again(tmp_path: Path) -> None:
    with endpoint(tmp_path, Settings(active_workers=1, restart_seconds=0)) as emulator:
        job_id = submit(emulator, "hang/1")
        started(tmp_path, "hang/1")
        emulator.signal("worker0", signal.SIGKILL)
        assert wait(emulator, job_id)["status"] == "COMPLETED"
        assert emulator.job(job_id).takers == ["worker0", "worker1"]
        assert len(emulator.submissions) == 1


@pytest.mark.parametrize(("script", "code"), [("turns/5/1", 0), ("fail/permanent", 1)])
def test_a_try_by_hand(script: str, code: int) -> None:
    done = run_once(AS_MODULE, script, folder=ROOT, environment=standin_environment())
    assert done.returncode == code, done.stdout + done.stderr
    assert ("'speaker': 'SPEAKER_00'" if code == 0 else "recording_undecodable: ") in done.stdout


def test_started_by_its_path_it_finds_the_rest_of_the_project(tmp_path: Path) -> None:
    tree, elsewhere = tmp_path / "tree", tmp_path / "elsewhere"
    for package in ("diarization", "tasks", "runpod_worker"):
        shutil.copytree(ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__"))
    elsewhere.mkdir()
    (tree / "beside.py").write_text("from tests.standin import load as load\n")
    by_path = ["-u", str(tree / "runpod_worker" / "handler.py")]
    environment = standin_environment(DIARIZATION_DIARIZER="beside:load")
    done = run_once(by_path, "turns/5/1", folder=elsewhere, environment=environment)
    assert done.returncode == 0, done.stdout + done.stderr


def run_once(
    arguments: list[str], script: str, *, folder: Path, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    test_input = json.dumps({"input": {"task": "diarization", "audio_url": STAND_IN.format(script)}})
    command = [sys.executable, *arguments, "--test_input", test_input]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_the_sdk_s_own_server(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, *AS_MODULE, "--rp_serve_api", "--rp_api_host", "127.0.0.1", "--rp_api_port", str(port)]
    url = f"http://127.0.0.1:{port}"
    body = {"input": {"task": "diarization", "audio_url": STAND_IN.format("turns/5/1")}}
    with running_server(command, tmp_path / "log", lambda: requests.get(url, timeout=10).status_code, **STANDIN):
        told = requests.post(f"{url}/runsync", json=body, timeout=30).json()
    assert told["status"] == "COMPLETED"
    assert told["output"]["audio_seconds"] == 5.0


def standin_environment(**more: str) -> dict[str, str]:
    return {**os.environ, **STANDIN, **more}


def test_importing_the_handler_loads_no_sdk_no_queue_and_no_model(python: Callable[..., str]) -> None:
    loaded = python("import sys, runpod_worker.handler; print(*sys.modules)").split()
    assert "runpod_worker.handler" in loaded
    assert not {"runpod", "celery", "redis", "torch", "numpy"} & set(loaded)
