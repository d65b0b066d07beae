"""The handler in the SDK's own loop, behind the emulator: what a client sees, and what stays secret."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from diarization.diarizer import DiarizerOptions
from diarization.recording import Recording
from diarization.turns import Diarization, SpeakerHints
from tests.emulator import Emulator, Settings
from tests.processes import wait_until
from tests.remote import STAND_IN, post, status, submit, wait
from tests.standin import StandIn, read_journal


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("endpoint")


@pytest.fixture(scope="module")
def emulator(folder: Path) -> Iterator[Emulator]:
    environment = {
        "DIARIZATION_DIARIZER": "tests.standin:load",
        "DIARIZATION_EMBEDDINGS": "true",
        "STANDIN_DIR": str(folder),
        "HF_TOKEN": "CANARY-token",
        "RUNPOD_LOG_LEVEL": "DEBUG",  # the most that the SDK ever writes
    }
    with Emulator(folder, Settings(active_workers=1), environment=environment) as running:
        yield running


def failure(emulator: Emulator, script: str, **job_input: Any) -> str:
    told = wait(emulator, submit(emulator, script, **job_input))
    assert told["status"] == "FAILED"
    assert "output" not in told
    assert "CANARY" not in json.dumps(told)
    error = told["error"]
    assert isinstance(error, str)
    return error


def test_the_answer_is_the_diarizer_s(emulator: Emulator) -> None:
    job_id = submit(emulator, "turns/60/3", min_speakers=4, headers={"Authorization": "Bearer CANARY-header"})
    told = wait(emulator, job_id)
    assert told["status"] == "COMPLETED"
    recording = Recording(STAND_IN.format("turns/60/3"))
    local = StandIn(DiarizerOptions(model="", embeddings=True)).diarize(
        recording, SpeakerHints(min_speakers=4), lambda *_: None
    )
    here = local.provenance.model_copy(update={"provider": "runpod"})
    assert Diarization.from_json(told["output"]) == local.model_copy(update={"provenance": here})
    assert emulator.job(job_id).posts == 1
    assert emulator.job(job_id).progress_posts == 0


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("fail/recording_not_found", "recording_not_found: attempt 1 was told to fail"),
        ("fail/out_of_memory", "out_of_memory: attempt 1 was told to fail"),
        ("memory/36000000", "no_room: the recording needs"),
        ("leak", "internal_error: RuntimeError: cannot fetch http://stand.in/leak with {'Authorization': '…'}"),
        ("nan", "internal_error: ValueError: Out of range float values are not JSON compliant"),
        ("none", "internal_error: AttributeError: 'NoneType' object has no attribute 'provenance'"),
    ],
)
def test_what_goes_wrong_is_told_by_code(emulator: Emulator, script: str, error: str) -> None:
    assert failure(emulator, script, headers={"Authorization": "Bearer CANARY-header"}).startswith(error)


@pytest.mark.parametrize(
    ("job_input", "code"),
    [
        ({"task": "CANARY"}, "invalid_job"),
        ({"audio_url": "file:///CANARY/a.wav"}, "url_not_allowed"),
        ({"\ud800": 1}, "worker_too_old"),
    ],
)
def test_what_makes_no_sense_is_refused(emulator: Emulator, job_input: dict[str, Any], code: str) -> None:
    assert failure(emulator, "turns/5/1", **job_input).startswith(f"{code}: ")


def test_too_large_a_result_comes_without_its_second_track_or_says_so(emulator: Emulator) -> None:
    told = wait(emulator, submit(emulator, "huge/120000"))
    assert told["status"] == "COMPLETED"
    assert len(told["output"]["segments"]) == 120_000
    assert told["output"]["exclusive_segments"] == []
    assert "exclusive_segments are left out" in told["output"]["warnings"][-1]
    assert failure(emulator, "huge/200000").startswith("result_too_large: 200000 turns")


def test_a_cancelled_job_ends_before_the_next_one_begins(emulator: Emulator, folder: Path) -> None:
    long = submit(emulator, "sleep/60")
    wait_until(lambda: [entry for entry in read_journal(folder) if entry["what"].endswith("/sleep/60")])
    after = submit(emulator, "turns/7/1")
    assert post(emulator, f"cancel/{long}").json() == {"id": long, "status": "CANCELLED"}
    assert wait(emulator, after)["status"] == "COMPLETED"
    assert status(emulator, long)["status"] == "CANCELLED"
    assert emulator.job(long).posts == 0
    events = [(entry["event"], entry["what"].rpartition("stand.in/")[2]) for entry in read_journal(folder)]
    order = [event for event in events if event[1] in ("sleep/60", "turns/7/1")]
    assert order == [("start", "sleep/60"), ("cancelled", "sleep/60"), ("start", "turns/7/1"), ("end", "turns/7/1")]


def test_a_stopped_job_that_hears_late_holds_the_worker(emulator: Emulator, folder: Path) -> None:
    deaf = submit(emulator, "deaf/3")
    wait_until(lambda: [entry for entry in read_journal(folder) if entry["what"].endswith("/deaf/3")])
    post(emulator, f"cancel/{deaf}")
    wait(emulator, submit(emulator, "turns/8/1"), "IN_PROGRESS", "COMPLETED")
    assert [entry["event"] for entry in read_journal(folder) if entry["what"].endswith("/deaf/3")][1:] == ["cancelled"]


def test_one_worker_did_all_of_it_and_wrote_no_secret_into_its_log(emulator: Emulator) -> None:
    headers = {"Authorization": "Bearer CANARY-header"}
    assert wait(emulator, submit(emulator, "turns/9/1", headers=headers))["status"] == "COMPLETED"
    failure(emulator, "leak", headers=headers)
    failure(emulator, "fail/recording_forbidden", headers=headers)
    log = emulator.log()
    assert "http://stand.in/turns/9/1" in log, "the operator sees which recording it is"
    assert "Traceback (most recent call last)" in log
    assert "CANARY" not in log
    assert list(emulator.workers) == ["worker0"]
