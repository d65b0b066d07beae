"""Workers of one host share its GPUs out among themselves. nvidia-smi is a script here; locks and workers are real."""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis

from tasks.gpu_seat import Gpu, list_gpus, take_seat
from tests.processes import Worker

L4 = "GPU 0: NVIDIA L4 (UUID: GPU-aaaa-0)\nGPU 1: NVIDIA L4 (UUID: GPU-bbbb-1)\n"
SLICED = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-cccc-0)
  MIG 3g.20gb     Device  0: (UUID: MIG-dddd)
  MIG 3g.20gb     Device  1: (UUID: MIG-GPU-cccc-0/2/0)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-eeee-1)
"""


def gpu_of(worker: Worker) -> str:
    """What its pool child was given."""
    environment = Path(f"/proc/{worker.children[0]}/environ").read_bytes().decode().split("\0")
    return next(one.partition("=")[2] for one in environment if one.startswith("CUDA_VISIBLE_DEVICES="))


def test_each_worker_has_a_gpu_of_its_own_and_gives_it_back_when_it_is_killed(
    redis: Redis, start_worker: Callable[..., Worker], nvidia_smi: Callable[[str], str], tmp_path: Path
) -> None:
    host = {"PATH": nvidia_smi(L4), "DIARIZATION_GPU_SEATS_DIR": tmp_path / "seats"}
    first, second = (start_worker(**host) for _ in range(2))
    third = start_worker(**host)
    assert {gpu_of(first), gpu_of(second)} == {"GPU-aaaa-0", "GPU-bbbb-1"}
    assert "its own" in first.log
    assert "works on the CPU, though there is a GPU" in first.log, "the stand-in does"
    assert "its own" in second.log
    assert "shared with 1 more" in third.log
    left = gpu_of(second)
    assert gpu_of(third) != left
    second.kill()
    assert gpu_of(start_worker(**host)) == left


@pytest.mark.parametrize(
    ("settings", "options", "children"),
    [
        ({}, (), 2),
        ({"DIARIZATION_JOBS_PER_GPU": "3"}, (), 3),
        ({"DIARIZATION_JOBS_PER_GPU": "3"}, ("-c", "1"), 1),
        ({"DIARIZATION_DEVICE": "cpu"}, (), 1),
        ({"CUDA_VISIBLE_DEVICES": ""}, (), 1),
        ({"CUDA_VISIBLE_DEVICES": "1"}, (), 2),
        ({"PATH": os.environ["PATH"]}, (), 1),
        ({"PATH": os.environ["PATH"], "DIARIZATION_DEVICE": "cuda"}, (), 2),
    ],
)
def test_a_worker_with_a_gpu_has_two_children_unless_it_is_told(
    redis: Redis,
    start_worker: Callable[..., Worker],
    nvidia_smi: Callable[[str], str],
    tmp_path: Path,
    settings: dict[str, str],
    options: tuple[str, ...],
    children: int,
) -> None:
    host = {"DIARIZATION_JOBS_PER_GPU": "", "PATH": nvidia_smi(L4), "DIARIZATION_GPU_SEATS_DIR": tmp_path / "seats"}
    worker = start_worker(options=options, **(host | settings))
    assert len(worker.children) == children


@pytest.mark.parametrize(
    "settings", [{"DIARIZATION_DEVICE": "cpu"}, {"DIARIZATION_DEVICE": "cuda:1"}, {"CUDA_VISIBLE_DEVICES": ""}]
)
def test_a_worker_that_is_told_where_to_work_takes_no_seat(
    redis: Redis,
    start_worker: Callable[..., Worker],
    nvidia_smi: Callable[[str], str],
    tmp_path: Path,
    settings: dict[str, str],
) -> None:
    worker = start_worker(PATH=nvidia_smi(L4), DIARIZATION_GPU_SEATS_DIR=tmp_path / "seats", **settings)
    assert not (tmp_path / "seats").exists()
    assert ("though there is a GPU" in worker.log) == (settings.get("DIARIZATION_DEVICE") == "cuda:1")


def test_what_cuda_is_told_already_stays(
    redis: Redis, start_worker: Callable[..., Worker], nvidia_smi: Callable[[str], str], tmp_path: Path
) -> None:
    worker = start_worker(PATH=nvidia_smi(L4), CUDA_VISIBLE_DEVICES="1", DIARIZATION_GPU_SEATS_DIR=tmp_path / "seats")
    assert gpu_of(worker) == "1"


def test_seats_that_cannot_be_written_end_the_worker(
    redis: Redis, start_worker: Callable[..., Worker], nvidia_smi: Callable[[str], str], tmp_path: Path
) -> None:
    (tmp_path / "seats").write_text("")
    worker = start_worker(ready=False, PATH=nvidia_smi(L4), DIARIZATION_GPU_SEATS_DIR=tmp_path / "seats")
    assert worker.process.wait(60) == 78
    assert "DIARIZATION_GPU_SEATS_DIR cannot be written to" in worker.log


def _sit(folder: Path, everyone: multiprocessing.synchronize.Barrier, seats: multiprocessing.Queue[str]) -> None:
    everyone.wait()
    seat = take_seat([Gpu(f"GPU-{number}", "") for number in range(3)], folder)
    seats.put(seat.gpu.uuid)
    everyone.wait()  # all are seated before one leaves


def test_workers_that_start_at_once_spread_evenly(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    everyone, seats = context.Barrier(8), context.Queue()
    workers = [context.Process(target=_sit, args=(tmp_path, everyone, seats)) for _ in range(8)]
    for worker in workers:
        worker.start()
    taken = [seats.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    assert sorted(Counter(taken).values()) == [2, 3, 3]


def test_the_gpu_with_the_fewest_is_taken_though_another_has_the_lower_seat(tmp_path: Path) -> None:
    a, b = Gpu("GPU-a", "A"), Gpu("GPU-b", "B")
    lower, higher = take_seat([a], tmp_path), take_seat([a], tmp_path)
    assert (lower.others, higher.others) == (0, 1)
    lower.lock.close()
    with higher.lock:
        seat = take_seat([a, b], tmp_path)
        seat.lock.close()
    assert seat.gpu == b


def test_slices_stand_in_for_the_gpu_that_is_cut_up(
    nvidia_smi: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", nvidia_smi(SLICED))
    gpus = list_gpus()
    assert [gpu.uuid for gpu in gpus] == ["MIG-dddd", "MIG-GPU-cccc-0/2/0", "GPU-eeee-1"]
    seats = [take_seat(gpus, tmp_path / "seats") for _ in gpus]
    for seat in seats:
        seat.lock.close()
    assert {seat.gpu for seat in seats} == set(gpus)


def test_a_gpu_that_has_failed_hides_no_other(nvidia_smi: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    lost = "Unable to determine the device handle for GPU0000:02:00.0: GPU is lost.\n"
    monkeypatch.setenv("PATH", nvidia_smi(L4.splitlines(keepends=True)[0] + lost, 15))
    assert [gpu.uuid for gpu in list_gpus()] == ["GPU-aaaa-0"]


def test_without_gpus_there_is_none(nvidia_smi: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", nvidia_smi("No devices were found\n", 6))
    assert list_gpus() == []


def test_without_a_driver_there_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert list_gpus() == []
