"""The processor a model runs on, and what its failures mean."""

from __future__ import annotations

import logging
import re
import time
import warnings
from collections.abc import Callable

import torch

from diarization.errors import DeviceLost, ModelUnavailable, OutOfMemory, TransientError

log = logging.getLogger(__name__)

# What an allocation that failed says of itself: CUDA's own, cuBLAS's, cuDNN's and cuFFT's, and the CPU allocator's.
# Where none of cuDNN's engines finds room for its workspace, torch says only that there is none (pytorch#108645).
_OUT_OF_MEMORY = (
    *("out of memory", "_ALLOC_FAILED", "can't allocate memory", "not enough memory"),
    *("unable to find an engine", "No valid execution plans"),
)
# A CUDA context that has met one of these never works again in its process.
_DEVICE_LOST = (
    *("CUDA error", "CUDA driver error", "CUBLAS_STATUS", "CUDNN_STATUS", "cuDNN error", "cuFFT error"),
    "device-side assert",
)


def choose_device(name: str) -> torch.device:
    """The device that `name` asks for, tried out.

    Args:
        name: `auto` (CUDA if it works, else the CPU), `cpu`, `cuda` (its first device) or `cuda:N`.

    Raises:
        ModelUnavailable: There is no such device, or it does not work.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise ModelUnavailable(f"the device {name!r} is none of auto, cpu, cuda and cuda:N: check DIARIZATION_DEVICE")
    if name == "cpu":
        return torch.device("cpu")
    with warnings.catch_warnings():  # torch warns where a driver is too old; the count says it as well
        warnings.simplefilter("ignore")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto" and not count:
        return torch.device("cpu")
    index = int(name.partition(":")[2] or 0)
    if index >= count:
        raise ModelUnavailable(
            f"the device {name} was asked for, but torch sees {count} CUDA devices: check nvidia-smi and that the "
            "container was given its GPUs, or set DIARIZATION_DEVICE to auto or cpu"
        )
    device = torch.device("cuda", index)
    try:
        torch.ones(1, device=device).sum().item()
    except RuntimeError as error:
        if name != "auto":
            raise ModelUnavailable(f"the device {name} does not work: {first_line(error)}") from error
        log.warning("cuda:%d does not work, the CPU is used: %s", index, first_line(error))
        return torch.device("cpu")
    return device


def gpu_name(device: torch.device) -> str | None:
    """The GPU's own name; None for the CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else None


def send(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """`values` on the device, without a wait for what it is doing: from pinned memory, which a GPU reads by itself."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


def send_overlapping(chunks: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The same of chunks, shape (chunks, 1, samples). Where they are views into one recording, a GPU gets it once."""
    count, _, length = chunks.shape
    step, _, by_one = chunks.stride()
    if by_one != 1 or not 0 < step < length:
        return send(chunks, device)
    stretch = chunks.as_strided(((count - 1) * step + length,), (1,))
    return send(stretch, device).unfold(0, length, step)[:, None]


def fetch(values: torch.Tensor) -> Callable[[], torch.Tensor]:
    """Begin to copy `values` from the device; what is returned waits for that copy, and for nothing that came after it.

    `values.cpu()` is queued, and would wait, behind all that the device has been given by then.
    """
    if values.device.type != "cuda":
        return lambda: values
    copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
    host = values.to("cpu", non_blocking=True)
    copied.record(torch.cuda.current_stream(values.device))

    def wait() -> torch.Tensor:
        copied.synchronize()
        return host

    return wait


def timed(compute: Callable[[torch.Tensor], torch.Tensor], given: torch.Tensor) -> tuple[float, torch.Tensor]:
    """Seconds of the fastest of three runs, after one that warms up, and what it gave. `given` is on the device."""
    seconds = []
    for _ in range(4):
        began = time.perf_counter()
        result = compute(given)
        if given.device.type == "cuda":
            torch.cuda.synchronize(given.device)
        seconds.append(time.perf_counter() - began)
    return min(seconds[1:]), result


def device_failure(error: BaseException) -> TransientError | None:
    """What `error` means where the device is its cause; None where it is not.

    pyannote turns a segmentation that ran out of memory into a MemoryError of its own.
    """
    text = str(error)
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return OutOfMemory(f"out of memory: {first_line(error)}")
    if not isinstance(error, RuntimeError):
        return None
    if any(mark in text for mark in _OUT_OF_MEMORY):
        return OutOfMemory(f"out of memory: {first_line(error)}")
    if any(mark in text for mark in _DEVICE_LOST):
        return DeviceLost(f"the GPU failed: {first_line(error)}")
    return None


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its class where it has none."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
