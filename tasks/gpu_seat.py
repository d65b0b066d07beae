"""Which GPU a worker works on: one of its own where there is one, else one that is shared with as few as can be.

Each GPU of a host has seats, which are files, and a worker's main process holds the lock on one of them for as long as
it lives. The kernel drops the lock when the process dies, however it dies, so a seat is never left taken; and locks on
a shared volume hold between containers. torch is not asked: in the main process its CUDA context would take memory on
each GPU.
"""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO

from diarization.device_lock import PROCESSES_PER_GPU
from tasks.settings import Settings

_LISTING_TIMEOUT_SECONDS = 30
# `nvidia-smi -L` lists "GPU 0: NVIDIA L4 (UUID: GPU-…)", and below a GPU that is cut up its slices, indented:
# "  MIG 1g.10gb  Device 0: (UUID: MIG-…)".
_LINE = re.compile(r"^(?P<indent>\s*)(?P<name>.+?):?\s+\(UUID: (?P<uuid>(GPU|MIG)-[\w/-]+)\)\s*$")


@dataclass(frozen=True)
class Gpu:
    """A GPU that this host lends out, or a slice of one.

    Attributes:
        uuid: As CUDA_VISIBLE_DEVICES takes it: `GPU-…` or `MIG-…`. The same in every container of the host.
        name: As nvidia-smi lists it, `GPU 0: NVIDIA L4`.
    """

    uuid: str
    name: str


@dataclass(frozen=True)
class Seat:
    """A place at a GPU.

    Attributes:
        gpu: Where it is.
        others: So many workers held a seat there already.
        lock: The seat is held until this file is closed, or the process ends.
    """

    gpu: Gpu
    others: int
    lock: IO[bytes]


def list_gpus() -> list[Gpu]:
    """The GPUs that the driver shows, in its order; none where there is no driver.

    A GPU that is cut into slices (MIG) takes no work itself: its slices do. Where one has failed, nvidia-smi lists the
    others and ends with an error, so its exit status says nothing.
    """
    try:
        listing = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=_LISTING_TIMEOUT_SECONDS, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return []
    gpus: list[Gpu] = []
    for found in filter(None, map(_LINE.match, listing.splitlines())):
        gpu = Gpu(found["uuid"], found["name"].strip())
        if found["indent"] and gpus and gpus[-1].uuid.startswith("GPU-"):
            gpus.pop()
        gpus.append(gpu)
    return gpus


@cache
def computes_on_gpu(settings: Settings) -> bool:
    """Whether a worker's children compute on one; who asks for CUDA is believed where no nvidia-smi lists it."""
    if settings.diarization_device == "cpu" or settings.hides_gpus:
        return False
    return settings.diarization_device.startswith("cuda") or bool(list_gpus())


def processes_of_worker(settings: Settings) -> int:
    """How many children a GPU worker has, each with a model of its own."""
    return settings.diarization_jobs_per_gpu or (PROCESSES_PER_GPU if computes_on_gpu(settings) else 1)


def take_seat(gpus: Sequence[Gpu], folder: Path | None = None) -> Seat:
    """A seat at the GPU where the fewest are taken; the first of those.

    Args:
        gpus: Those to choose from, at least one.
        folder: Where the seats are, shared by all workers of the host; None is one of this user's alone.

    Raises:
        OSError: The folder cannot be written to.
    """
    folder = folder or Path(tempfile.gettempdir()) / f"diarize-queue-gpus-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _alone(folder):
        taken = {gpu: _taken(folder, gpu) for gpu in gpus}
        gpu = min(gpus, key=lambda one: len(taken[one]))
        number = next(number for number in range(len(taken[gpu]) + 1) if number not in taken[gpu])
        lock = (folder / f"{_stem(gpu)}.{number}").open("ab")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return Seat(gpu, len(taken[gpu]), lock)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """No other worker counts or takes seats meanwhile."""
    with (folder / "counting").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _taken(folder: Path, gpu: Gpu) -> set[int]:
    """The numbers of the seats there that somebody holds."""
    taken = set()
    for path in folder.glob(f"{_stem(gpu)}.*"):
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                taken.add(int(path.suffix.removeprefix(".")))
    return taken


def _stem(gpu: Gpu) -> str:
    return gpu.uuid.replace("/", "_")  # older drivers name a slice MIG-GPU-…/1/0
