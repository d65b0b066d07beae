"""The benchmarks for a GPU, as far as they go without one: the shares, a process that dies."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.children import ChildDied
from benchmarks.side_by_side import Job, Work, measure, sum_up


def test_the_shares_are_of_the_time_from_the_first_networks_to_the_last() -> None:
    jobs = [Job(1800.0, 9.0, {"decode": 5.0}, 10.0, 13.0), Job(1800.0, 9.0, {"decode": 5.0}, 14.0, 20.0)]
    samples = [(4.0, 0.0), (10.5, 80.0), (13.5, 0.0), (19.5, 70.0), (22.0, 0.0)]
    run = sum_up(Work(Path("meeting.mp3"), 2, "exact", None), 2, 30.0, jobs, samples)
    assert run.networks_share == pytest.approx(0.9)
    assert run.gpu_busy == pytest.approx(0.5)
    assert run.seconds_per_audio_hour == 30.0


def test_a_process_that_cannot_load_ends_the_benchmark(tmp_path: Path) -> None:
    """Where there is a GPU it can, and finds no recording."""
    with pytest.raises(ChildDied, match=r"^process 1 of 1 died with exit code 1$"):
        measure(Work(tmp_path / "none.mp3", jobs=1, precision="exact", pretended=None), processes=1)
