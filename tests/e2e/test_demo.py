"""The demo with the real model: what a newcomer sees."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT


@pytest.mark.model
@pytest.mark.timeout(600)
def test_the_demo_shows_turns_scores_and_a_picture_that_git_does_not_see() -> None:
    demo = subprocess.run(
        [sys.executable, "-m", "tasks", "demo"],
        cwd=ROOT,
        env=_without_settings(),
        capture_output=True,
        text=True,
        timeout=590,
        check=False,
    )
    assert demo.returncode == 0, demo.stdout + demo.stderr
    turns = re.findall(r"^ *\d+:\d\d\.\d\d +\d+:\d\d\.\d\d +(SPEAKER_\d\d) *$", demo.stdout, re.MULTILINE)
    assert set(turns) == {"SPEAKER_00", "SPEAKER_01"}
    assert f"The turns equal stock's, all {len(turns)} of them." in demo.stdout

    ours = re.search(r"^this queue +(\d+\.\d\d)%", demo.stdout, re.MULTILINE)
    stock = re.search(r"^stock +(\d+\.\d\d)%", demo.stdout, re.MULTILINE)
    assert ours
    assert stock
    assert ours[1] == stock[1]
    assert float(ours[1]) < 10, "the reference is of this recording"
    assert "collar=0, overlap scored" in demo.stdout
    for stage in ("download", "decode", "segmentation", "embedding", "clustering"):
        assert re.search(rf"^{stage} +\d+\.\d\d$", demo.stdout, re.MULTILINE)

    picture = Path(demo.stdout.splitlines()[-1])
    assert picture.read_text().startswith("<svg")
    assert "SPEAKER_01" in picture.read_text()
    assert "\x1b" not in demo.stdout + demo.stderr, "colours are for terminals"
    ignored = subprocess.run(["git", "check-ignore", "--quiet", str(picture)], cwd=ROOT, check=False)
    assert ignored.returncode == 0, f"{picture} dirties the checkout"


def _without_settings() -> dict[str, str]:
    """A newcomer's environment: the tests' own settings would be taken for theirs."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("REDIS_", "DIARIZATION_"))}
