"""The wheel, where a user has it: in an environment of its own, far from the checkout."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from diarization import __version__, canary
from diarization.turns import Diarization
from tasks.gate import EXIT_UNUSABLE
from tasks.version import code_version
from tests.processes import ROOT
from tests.release.conftest import Installation

SUBMIT = """
from tasks.diarize import diarize
job = diarize.delay("http://stand.in/turns/60/3")
print(job.get(timeout=60)["speakers"][2]["speaker"])
"""
LOWEST = ("--resolution", "lowest-direct")

pytestmark = pytest.mark.usefixtures("redis")


@pytest.fixture(params=["newest", "lowest"])
def any_installation(request: pytest.FixtureRequest, install: Callable[..., Installation]) -> Installation:
    """With the newest dependencies there are, and with the oldest that pyproject.toml allows."""
    if request.param == "lowest":
        return install(*LOWEST)
    made: Installation = request.getfixturevalue("installation")
    return made


def test_a_job_from_its_submission_to_its_result(
    any_installation: Installation, start_installed_worker: Callable[..., Path], tmp_path: Path
) -> None:
    shutil.copy(ROOT / "tests" / "standin.py", tmp_path)
    start_installed_worker(any_installation, DIARIZATION_DIARIZER="standin:load", PYTHONPATH=str(tmp_path))
    assert any_installation.run("python", "-c", SUBMIT) == "SPEAKER_02\n"
    shown = any_installation.run("diarize-queue", "submit", "--wait", "--format", "rttm", "http://stand.in/turns/20/2")
    assert "SPEAKER_01" in shown


def test_it_is_the_same_code_as_the_checkout(installation: Installation) -> None:
    said = installation.run("python", "-c", "from tasks.version import code_version; print(code_version())")
    assert said.strip() == code_version()


def test_the_command_line_is_installed(installation: Installation) -> None:
    assert "submit" in installation.run("diarize-queue", "--help")
    shown = installation.run("python", "-c", "from importlib.metadata import version; print(version('diarize-queue'))")
    assert shown.strip() == __version__


def test_a_worker_without_the_models_libraries_says_what_to_install(installation: Installation) -> None:
    said = installation.run("celery", "-A", "tasks", "worker", code=EXIT_UNUSABLE)
    assert "pip install 'diarize-queue[worker]'" in said


@pytest.mark.model
def test_a_worker_without_weights_says_what_to_set(worker_installation: Installation) -> None:
    said = worker_installation.run("celery", "-A", "tasks", "worker", code=EXIT_UNUSABLE)
    assert "set DIARIZATION_MODEL" in said


@pytest.mark.model
def test_the_real_model_by_diarization_model(
    worker_installation: Installation, start_installed_worker: Callable[..., Path]
) -> None:
    model = str(ROOT / "models" / canary.KNOWN_MODEL)
    start_installed_worker(worker_installation, DIARIZATION_MODEL=model, DIARIZATION_DEVICE="cpu")
    printed = worker_installation.run("diarize-queue", "submit", "--wait", "--format", "json", canary.URL)
    assert canary.complaint(Diarization.from_json(json.loads(printed[printed.index("{") :]))) is None


def test_a_celeryconfig_in_the_working_directory(installation: Installation, tmp_path: Path) -> None:
    """It is another app's: ours does not read it. And ours is no other app's, where there is none."""
    code = """
from celery import current_app
from tasks.diarize import diarize
print(diarize.delay("https://example.com/a.wav").state, current_app.conf.broker_url)
"""
    assert installation.run("python", "-c", code) == "PENDING None\n"
    (tmp_path / "celeryconfig.py").write_text("broker_url = 'redis://127.0.0.1:1/0'\n")
    assert installation.run("python", "-c", code, folder=tmp_path) == "PENDING redis://127.0.0.1:1/0\n"


def test_a_backend_with_a_package_tasks_of_its_own(installation: Installation, tmp_path: Path) -> None:
    """Python then finds theirs; the command line is not in their way, and docs/produce.md says what to do instead."""
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "__init__.py").touch()
    said = installation.run("python", "-c", "import tasks.diarize", code=1, folder=tmp_path)
    assert "No module named 'tasks.diarize'" in said
    assert json.loads(installation.run("diarize-queue", "queue", "--json", folder=tmp_path))["waiting_jobs"] == 0
