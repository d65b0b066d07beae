"""What type checkers know of the installed package: the page's example passes, and mistakes are found."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pages import code_blocks
from tests.release.conftest import Installation

NAME = "typed_use.py"
MISTAKES = """
from tasks.diarize import diarize

diarize.delay("https://example.com/a.mp3", num_speakers="4")
diarize.delay("https://example.com/a.mp3", num_speekers=4)
diarize.delay()
diarize.position(17)
speakers: str = diarize.submit_many([])
"""


@pytest.fixture(params=["without celery-types", "with celery-types"])
def typed(request: pytest.FixtureRequest, install: Callable[..., Installation]) -> Installation:
    return install(*(["celery-types"] if request.param.startswith("with ") else []))


def mypy(installation: Installation, text: str, folder: Path) -> list[str]:
    """The errors of mypy --strict, which sees the installation and not the checkout."""
    (folder / NAME).write_text(text)
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--config-file", ""]
    command += ["--python-executable", str(installation.bin / "python"), NAME]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.stderr == ""
    return [line for line in done.stdout.splitlines() if ": error: " in line]


def test_the_package_is_typed(typed: Installation, tmp_path: Path) -> None:
    (example,) = (block for block in code_blocks("produce.md", "python") if block.startswith(f"# {NAME}\n"))
    assert mypy(typed, example, tmp_path) == []
    found = [line.split(": error: ")[0] for line in mypy(typed, MISTAKES, tmp_path)]
    assert found == [f"{NAME}:{line}" for line in (4, 5, 6, 7, 8)]
