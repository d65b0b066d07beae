"""How busy a GPU is while a benchmark runs, as its driver counts it.

nvidia-smi is called anew for each sample: what one call that goes on for minutes has not yet written when it is ended
is lost.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import fmean

SAMPLE_SECONDS = 0.2
TIMEOUT_SECONDS = 5.0

Sample = tuple[float, float]
"""When, as `time.perf_counter` says, and in how much of the moment before a kernel ran, in percent."""


@contextmanager
def sampled(uuid: str) -> Iterator[list[Sample]]:
    """While the block runs, take samples: none where nvidia-smi knows no number, or is not there.

    Args:
        uuid: Of the GPU, as torch writes it. Unlike a number it means the same GPU to CUDA and to nvidia-smi.
    """
    samples: list[Sample] = []
    over = threading.Event()

    def sample() -> None:
        while not over.wait(SAMPLE_SECONDS):
            if (percent := _percent(uuid)) is not None:
                samples.append((time.perf_counter(), percent))

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    try:
        yield samples
    finally:
        over.set()
        sampler.join()


def busy_share(samples: Sequence[Sample], began: float, ended: float) -> float | None:
    """Part of the time between two moments in which a kernel ran; None where no sample was taken.

    It counts from the first sample that saw one to the last: the driver's count lags by up to a second.
    """
    inside = [percent for at, percent in samples if began <= at <= ended]
    if not inside:
        return None
    at_work = [index for index, percent in enumerate(inside) if percent > 0]
    return fmean(inside[at_work[0] : at_work[-1] + 1]) / 100 if at_work else 0.0


def _percent(uuid: str) -> float | None:
    query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", f"--id=GPU-{uuid}"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    return float(answer) if answer.strip().isdecimal() else None  # a slice of a GPU (MIG) has no number: [N/A]
