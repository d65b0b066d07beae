"""The guide's clients, as they were written for RunPod: only the base URL is the emulator's."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.emulator import Emulator, Settings
from tests.remote import STAND_IN


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    environment = {"DIARIZATION_DIARIZER": "tests.standin:load"}
    with Emulator(tmp_path_factory.mktemp("endpoint"), Settings(active_workers=1), environment=environment) as running:
        yield running


def diarize_on_runpod(base_url: str, endpoint_id: str, api_key: str, audio_url: str) -> Any:
    """The guide's client, line for line."""
    headers = {"Authorization": f"Bearer {api_key}", "Content-Type": "application/json"}
    payload = {"input": {"task": "diarization", "audio_url": audio_url}}
    response = requests.post(f"{base_url}/{endpoint_id}/run", headers=headers, json=payload, timeout=30)
    response.raise_for_status()
    job_id = response.json()["id"]
    while True:
        answer = requests.get(f"{base_url}/{endpoint_id}/status/{job_id}", headers=headers, timeout=30).json()
        if answer["status"] == "COMPLETED":
            return answer["output"]
        if answer["status"] == "FAILED":
            raise RuntimeError(answer["error"])
        time.sleep(0.1)  # the guide's 5 s; this is its loop, not a test's wait


def test_requests(emulator: Emulator) -> None:
    arguments = (emulator.url, emulator.settings.endpoint_id, emulator.settings.api_key)
    output = diarize_on_runpod(*arguments, STAND_IN.format("turns/20/2"))
    assert {turn["speaker"] for turn in output["segments"]} == {"SPEAKER_00", "SPEAKER_01"}
    assert all(turn["start"] < turn["end"] for turn in output["segments"])
    with pytest.raises(RuntimeError, match=r"^recording_not_found: "):
        diarize_on_runpod(*arguments, STAND_IN.format("fail/recording_not_found"))


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl(emulator: Emulator) -> None:
    def curl(*arguments: str) -> Any:
        common = ["curl", "--silent", "--fail", "-H", f"Authorization: Bearer {emulator.settings.api_key}"]
        done = subprocess.run([*common, *arguments], capture_output=True, check=True, timeout=30)
        return json.loads(done.stdout)

    wanted = json.dumps({"input": {"task": "diarization", "audio_url": STAND_IN.format("turns/20/2")}})
    run = ["-X", "POST", f"{emulator.endpoint_url}/run", "-H", "Content-Type: application/json", "-d", wanted]
    accepted = curl(*run)
    assert accepted["status"] == "IN_QUEUE"
    deadline = time.monotonic() + 30
    while (told := curl(f"{emulator.endpoint_url}/status/{accepted['id']}"))["status"] != "COMPLETED":
        assert told["status"] in ("IN_QUEUE", "IN_PROGRESS"), told
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert told["output"]["audio_seconds"] == 20.0
