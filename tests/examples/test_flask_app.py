"""The Flask example by HTTP: `make test-examples`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis

from tests.flask_app import RunningApp, running_app
from tests.processes import Worker


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "recordings"
    made.mkdir()
    return made


@pytest.fixture
def app(redis: Redis, folder: Path, tmp_path: Path) -> Iterator[RunningApp]:
    with running_app(tmp_path / "app.log", DIARIZATION_RECORDINGS_DIR=folder) as running:
        yield running


def test_a_recording_becomes_turns(app: RunningApp, start_worker: Callable[..., Worker]) -> None:
    start_worker()
    page = app.submit("Séance du 12 mars.wav", b"RIFF", num_speakers=3)
    assert app.wait(page)["state"] == "done"
    assert "Seance_du_12_mars.wav" in app.get(page).text
    assert app.get(page + "/result.rttm", params={"SPEAKER_00": "Ann"}).text.count(" Ann ")
