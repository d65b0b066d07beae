"""What the guide, in either language, tells to type works: only the addresses of RunPod and of the recording differ."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from redis import Redis

from tasks.diarize import diarize
from tests.bridge import start_bridge
from tests.emulator import Emulator, Settings
from tests.pages import code_blocks
from tests.processes import ROOT, Worker, wait_until
from tests.remote import STAND_IN

PAGES = ("runpod.md", "fr/runpod.md")
API, RECORDING = "https://api.runpod.ai/v2", "https://example.com/meeting.wav"
MEETING, MISSING = STAND_IN.format("turns/20/2"), STAND_IN.format("fail/recording_not_found")


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    environment = {"DIARIZATION_DIARIZER": "tests.standin:load"}
    with Emulator(tmp_path_factory.mktemp("endpoint"), Settings(active_workers=1), environment=environment) as running:
        yield running


def block(page: str, language: str, holding: str) -> str:
    """The page's one block that holds this."""
    (found,) = (code for code in code_blocks(page, language) if holding in code)
    return found


def run(emulator: Emulator, command: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    """What a reader types, with the variables of step 4 exported."""
    known = {"RUNPOD_API_KEY": emulator.settings.api_key, "RUNPOD_ENDPOINT_ID": emulator.settings.endpoint_id}
    environment = {**os.environ, **known, **variables}
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("page", PAGES)
def test_python(emulator: Emulator, page: str) -> None:
    code = block(page, "python", "requests").replace(API, emulator.url).replace("time.sleep(5)", "time.sleep(0.1)")
    assert emulator.url in code
    done = run(emulator, [sys.executable, "-c", code.replace(RECORDING, MEETING)])
    assert done.returncode == 0, done.stderr
    assert {line.split()[2] for line in done.stdout.splitlines()} == {"SPEAKER_00", "SPEAKER_01"}
    failed = run(emulator, [sys.executable, "-c", code.replace(RECORDING, MISSING)])
    assert "RuntimeError: recording_not_found: " in failed.stderr


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("page", PAGES)
def test_curl(emulator: Emulator, page: str) -> None:
    def answers(holding: str, **variables: str) -> list[Any]:
        # Of each command on its own: a shell tells only how the last one ended.
        lines = block(page, "bash", holding).replace("\\\n", "").replace(API, emulator.url).replace(RECORDING, MEETING)
        commands = [f"{line} --silent --fail" for line in lines.splitlines()]
        done = [run(emulator, ["sh", "-c", command], **variables) for command in commands]
        assert [one.returncode for one in done] == [0] * len(done), [one.stderr for one in done]
        return [json.loads(one.stdout) for one in done]

    (accepted,) = answers("/run")
    assert accepted["status"] == "IN_QUEUE"

    def ended() -> Any:
        told, health = answers("/status/", JOB_ID=accepted["id"])
        assert health["workers"]["idle"] + health["workers"]["running"] <= 1, "it may be starting"
        assert told["status"] in ("IN_QUEUE", "IN_PROGRESS", "COMPLETED"), told
        return told if told["status"] == "COMPLETED" else None

    assert wait_until(ended)["output"]["audio_seconds"] == 20.0


def test_behind_the_queue(
    redis: Redis, start_worker: Callable[..., Worker], emulator: Emulator, python: Callable[..., str]
) -> None:
    start_bridge(start_worker, emulator)
    job_id = python(block("runpod.md", "python", "expected_audio_seconds").replace(RECORDING, MEETING)).strip()
    assert diarize.AsyncResult(job_id).get(timeout=60)["provenance"]["provider"] == "runpod"
