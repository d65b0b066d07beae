"""`make runpod-live-check` against the emulator: what it says of an endpoint that works, and of one that does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.emulator import Emulator, Settings
from tests.processes import ROOT


def check(emulator: Emulator, seen: Path, given: str = "", **settings: str) -> subprocess.CompletedProcess[str]:
    known = {
        "RUNPOD_API_KEY": emulator.settings.api_key,
        "RUNPOD_ENDPOINT_ID": emulator.settings.endpoint_id,
        "RUNPOD_ENDPOINT_BASE_URL": emulator.url,
        "RUNPOD_MANAGEMENT_BASE_URL": emulator.url,
    }
    arguments = ("-o", str(seen), *(() if given else ("--yes",)))
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.runpod_live_check", *arguments],
        cwd=ROOT,
        env={**os.environ, **known, **settings},
        input=given,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.model
def test_an_endpoint_that_works(tmp_path: Path) -> None:
    seen = tmp_path / "seen.json"
    with Emulator(tmp_path, Settings(max_workers=1), environment={"DIARIZATION_DEVICE": "cpu"}) as emulator:
        done = check(emulator, seen)
        assert done.stdout.endswith("runpod-live-check: ok\n"), done.stdout + done.stderr
        assert len(emulator.submissions) == 8
    assert done.returncode == 0
    assert "cost 0.61 USD at most" in done.stdout
    assert emulator.settings.api_key not in seen.read_text()
    assert len(json.loads(seen.read_text())) >= 15


def test_without_a_yes_nothing_is_submitted(tmp_path: Path) -> None:
    with Emulator(tmp_path, Settings(max_workers=1)) as emulator:
        done = check(emulator, tmp_path / "seen.json", given="n\n")
        assert (done.returncode, emulator.submissions) == (1, [])


def test_a_wrong_key_is_told_before_anything_else_is_tried(tmp_path: Path) -> None:
    environment = {"DIARIZATION_DIARIZER": "tests.standin:load", "STANDIN_DIR": str(tmp_path)}
    with Emulator(tmp_path, Settings(max_workers=1), environment=environment) as emulator:
        done = check(emulator, tmp_path / "seen.json", RUNPOD_API_KEY="wrong")
        assert done.returncode == 1
        assert "FAIL the endpoint answers: HTTP 401 instead of HTTP 200" in done.stdout
        assert done.stdout.endswith("runpod-live-check: 1 steps failed\n")
        assert "Traceback" not in done.stderr
