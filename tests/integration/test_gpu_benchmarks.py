"""The benchmarks for a GPU, as far as they go without one: verdict, shares, a process that dies, the trunk's ways."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import bench_gpu
from benchmarks.children import ChildDied
from benchmarks.side_by_side import Job, Throughput, Work, measure, sum_up
from benchmarks.trunk_ways import measure as measure_ways
from diarization.benchmark import Row, Run
from diarization.device_lock import PROCESSES_PER_GPU
from diarization.turns import Diarization, Provenance
from tests.pyannote_model import untouched

IN_A_ROW = Throughput("exact", PROCESSES_PER_GPU, None, 5.0, 0.95, 0.9, 10.0, {})


def row(contender: str, seconds: float) -> Row:
    result = Diarization(segments=(), audio_seconds=3600.0, provenance=Provenance())
    return Row("meeting", Run(contender, seconds, seconds, 0, 0, result), same_turns=True, der=None, der_to_stock=None)


ROWS = {"stock": row("stock", 30.0), "exact": row("exact", 4.0), "fast": row("fast", 1.0)}


@pytest.mark.parametrize(
    ("busy", "found"), [(0.9, []), (0.8, ["the GPU is 80% busy, not 85%"]), (0.0, ["the GPU is 0% busy, not 85%"])]
)
def test_a_gpu_that_is_too_idle_fails_the_benchmark(busy: float, found: list[str]) -> None:
    assert bench_gpu.shortfalls(ROWS, [replace(IN_A_ROW, gpu_busy=busy)]) == found


@pytest.mark.parametrize("runs", [[], [replace(IN_A_ROW, gpu_busy=None)], [replace(IN_A_ROW, processes=1)]])
def test_a_gpu_whose_load_was_not_measured_does_not(runs: list[Throughput]) -> None:
    assert bench_gpu.gpu_busy(runs) is None
    assert bench_gpu.shortfalls(ROWS, runs) == []


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


@pytest.mark.model
def test_each_way_of_the_trunk_gives_its_frames_or_says_why_not() -> None:
    model: Any = untouched()._embedding.model_
    rows = {row["way"]: row for row in measure_ways(model.resnet, torch.randn(1, 80, 80))}
    assert rows["as it is"]["difference"] == 0.0
    for way, most in {"stock, not fused": 1e-5, "contiguous": 1e-5, "channels last": 1e-5}.items():
        assert rows[way]["difference"] < most
    for way in ("float16, channels last", "bfloat16, channels last"):
        assert 1e-5 < rows[way]["difference"] < 0.2
    assert "cudnn_convolution_relu" in rows["contiguous, relu by cuDNN"]["refused"]
    assert all(row["chunk_seconds"] > 0 and row["tflops"] > 0 for row in rows.values() if "refused" not in row)
