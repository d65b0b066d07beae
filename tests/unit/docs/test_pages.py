"""Settings, files, imports and commands that pages name are there. `make lint` looks at links and what is generated."""

from __future__ import annotations

import ast
import re
import subprocess
from importlib import import_module
from pathlib import Path
from textwrap import dedent

import pytest
from typer.main import get_command

from docs.generators.environment import COMPOSE_OPTIONS, COMPOSE_REQUIRED
from tasks.__main__ import app
from tasks.settings import Settings
from tests.processes import ROOT

FILES = [ROOT / name for pattern in ("*.md", "docs/**/*.md", "examples/**/*.md") for name in ROOT.glob(pattern)]
SETTINGS = {name.upper() for name in Settings.model_fields} | COMPOSE_REQUIRED.keys() | COMPOSE_OPTIONS.keys()
LIKE_A_SETTING = re.compile(r"\b(?:DIARIZATION|QUEUE|OVERFLOW|WEBHOOK|REDIS|RUNPOD|FLOWER|WORKER)_[A-Z_]*[A-Z]\b")
LIKE_A_FILE = re.compile(r"`([\w./-]+\.(?:py|lua|yml|toml|json|Dockerfile))`")
EXAMPLE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
A_COMMAND = re.compile(r"(?:`|^|&& )(?:diarize-queue|python -m tasks) ([a-z]+)", re.MULTILINE)
A_TARGET = re.compile(r"(?:`|^|&& )make ([a-z-]+)", re.MULTILINE)
COMMANDS = set(get_command(app).commands)
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
THE_READERS_OWN = {"app.py", "docker-compose.override.yml", "flowerconfig.py", "reports.py", "runpod-live-check.json"}
"""Files that a page tells its reader to make."""


def pages() -> list[Path]:
    return sorted(page for page in FILES if page.is_file())


def project_files() -> set[str]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    return set(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines())


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_each_setting_that_a_page_names_is_one(page: Path) -> None:
    assert set(LIKE_A_SETTING.findall(page.read_text())) - SETTINGS == set()


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no checkout: nobody knows which files are the project's")
@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_each_file_that_a_page_names_is_there(page: Path) -> None:
    there = project_files()
    named = set(LIKE_A_FILE.findall(page.read_text())) - THE_READERS_OWN
    assert {name for name in named if not any(f"/{file}".endswith(f"/{name}") for file in there)} == set()


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_examples_in_python_can_be_read_and_import_what_is_there(page: Path) -> None:
    for example in EXAMPLE.findall(page.read_text()):
        for node in ast.walk(ast.parse(dedent(example))):
            if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] in ("diarization", "tasks"):
                module = import_module(str(node.module))
                assert [name.name for name in node.names if not hasattr(module, name.name)] == []


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_each_command_that_a_page_names_is_one(page: Path) -> None:
    text = page.read_text()
    assert set(A_COMMAND.findall(text)) - COMMANDS == set()
    assert set(A_TARGET.findall(text)) - TARGETS == set()
