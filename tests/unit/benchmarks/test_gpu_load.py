"""What is made of nvidia-smi's answers, and of which time the share is. nvidia-smi is a script here."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.gpu_load import busy_share, sampled
from tests.processes import wait_until

KNOWN = 'case "$*" in *--id=GPU-aaaa*) echo 87 ;; *) echo No devices were found; exit 6 ;; esac'


@pytest.fixture
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts an nvidia-smi first that runs such a line of shell."""

    def install(line: str) -> None:
        script = tmp_path / "nvidia-smi"
        script.write_text(f"#!/bin/sh\necho >> {tmp_path}/calls\n{line}\n")
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    return install


def test_the_gpu_is_asked_for_by_its_uuid(answers: Callable[[str], None]) -> None:
    answers(KNOWN)
    began = time.perf_counter()
    with sampled("aaaa") as samples:
        wait_until(lambda: len(samples) >= 2)
    ended = time.perf_counter()
    assert {percent for _, percent in samples} == {87.0}
    assert all(began < at < ended for at, _ in samples)
    taken = len(samples)
    assert busy_share(samples, began, ended) == pytest.approx(0.87)
    assert len(samples) == taken, "the sampler has ended with the block"


@pytest.mark.parametrize("line", [KNOWN, "echo '[N/A]'", "echo 8; echo 7", "exit 9"])
def test_what_is_no_number_is_no_sample(answers: Callable[[str], None], tmp_path: Path, line: str) -> None:
    answers(line)
    with sampled("bbbb") as samples:
        wait_until(lambda: (tmp_path / "calls").exists() and len((tmp_path / "calls").read_text()) >= 2)
    assert samples == []


def test_without_nvidia_smi_nothing_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with sampled("aaaa") as samples:
        time.sleep(0.5)
    assert busy_share(samples, 0, time.perf_counter()) is None


def test_the_share_is_of_the_time_in_which_there_was_work() -> None:
    samples = [(0.0, 99.0), (1.0, 0.0), (2.0, 80.0), (3.0, 0.0), (4.0, 100.0), (5.0, 0.0), (6.0, 50.0)]
    assert busy_share(samples, 1, 5) == pytest.approx(0.6), "the models' loading and the last clustering do not count"
    assert busy_share(samples, 1, 1) == 0.0
    assert busy_share(samples, 7, 9) is None
