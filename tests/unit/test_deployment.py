"""What .env.example, docker-compose*.yml, the Dockerfiles and pyproject.toml say twice is the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from diarization import __version__
from docs.generators.environment import COMPOSE_OPTIONS, COMPOSE_REQUIRED
from tasks.settings import PREFIXES, Settings
from tests.processes import ROOT

FILES = sorted(ROOT.glob("docker-compose*.yml"))
VARIABLE = re.compile(r"\$\{(?P<name>[A-Z_]+)(?::-(?P<default>[^{}$]*))?")
SETTINGS = {name.upper() for name in Settings.model_fields}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_each_variable_is_described_with_its_default(path: Path) -> None:
    used = {(found["name"], found["default"] or "") for found in VARIABLE.finditer(path.read_text())}
    described = {(name, value) for name, (value, _) in COMPOSE_OPTIONS.items()}
    unknown = {(name, value) for name, value in used - described if name not in SETTINGS | set(COMPOSE_REQUIRED)}
    assert not unknown


def test_each_variable_described_is_used() -> None:
    text = "".join(path.read_text() for path in FILES)
    assert [name for name in COMPOSE_OPTIONS if "${" + name not in text] == []


def test_no_variable_of_compose_alone_looks_like_a_setting() -> None:
    # .env reaches the containers, whose settings refuse a name that looks like theirs and is none.
    alone = (COMPOSE_REQUIRED.keys() | COMPOSE_OPTIONS.keys()) - SETTINGS
    assert [name for name in alone if name.startswith(PREFIXES)] == []


def test_both_dockerfiles_use_one_python_and_one_uv() -> None:
    files = [(ROOT / name).read_text() for name in ("worker.Dockerfile", "runpod_worker/Dockerfile.runpod")]
    pythons = [re.findall(r"python:[\w.-]+", text) for text in files]
    uvs = [re.findall(r"(?:UV_VERSION=|uv==)(\d[\d.]*)", text) for text in files]
    assert len({*pythons[0], *pythons[1]}) == 1
    assert len({*uvs[0], *uvs[1]}) == 1


def test_the_images_have_the_version_of_the_project() -> None:
    said = re.findall(r"^ARG VERSION=(.*)$", (ROOT / "worker.Dockerfile").read_text(), re.MULTILINE)
    assert set(said) == {__version__}
