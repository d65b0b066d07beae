"""The benchmark's figures are of what ran: real contenders, each in a process of its own."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
from rich.console import Console

from diarization.benchmark import WIDTH, BenchmarkFailed, compare, run_apart, table
from diarization.turns import Turn
from tests.processes import ROOT
from tests.pyannote_model import SAMPLE_RATE, sample

pytestmark = pytest.mark.model


@pytest.fixture
def short(tmp_path: Path) -> Path:
    path = tmp_path / "short.wav"
    soundfile.write(path, sample(7, 9), SAMPLE_RATE, subtype="FLOAT")
    return path


def test_rows_hold_what_each_contender_answered_and_cost(short: Path) -> None:
    reference = (Turn(start=0.0, end=2.0, speaker="ann"),)

    stock, exact = compare(short, ["exact", "stock"], "cpu", reference)

    assert (stock.run.contender, exact.run.contender) == ("stock", "exact")
    assert exact.same_turns
    assert exact.run.result.segments == stock.run.result.segments != ()
    assert (exact.der, exact.der_to_stock) == (stock.der, 0.0)
    for run in (stock.run, exact.run):
        assert 0 < run.loaded_bytes <= run.peak_bytes
        assert set(run.result.provenance.stage_seconds) == {"segmentation", "embedding", "clustering"}
    assert exact.to_json()["trunk"] == "per chunk, float32"
    assert stock.to_json()["trunk"] == "stock"
    screen = Console(width=WIDTH, record=True, file=io.StringIO())
    screen.print(table([stock, exact]))
    assert [line.split()[3] for line in screen.export_text().splitlines() if "short" in line] == ["stock", "exact"]


def test_a_contender_that_fails_says_why(tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()

    with pytest.raises(BenchmarkFailed, match=r"exact failed on empty\.wav: .*empty"):
        run_apart("exact", tmp_path / "empty.wav", "cpu")


def test_the_command_line_refuses_a_reference_that_is_none(short: Path) -> None:
    command = [sys.executable, "-m", "tasks", "bench", str(short), "--reference", str(short)]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)

    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
