"""Whether a network is faster in half precision on this device: measured, because what a processor claims says little.

A CPU may have instructions for bfloat16 and still be faster in float32: so one with AVX-512 BF16 but without AMX. fp16
is slow on CPUs; on GPUs it is closer to float32 than bfloat16 is, at the same speed. It ends at 65,504: activations of
this trunk stay below 10 on speech, and below 30 where digital silence and full loudness meet.
"""

from __future__ import annotations

import time
from typing import Final

import torch

from diarization.fused_trunk import FusedTrunk

GAIN: Final = 1.3
"""Less is not worth another answer."""

_FRAMES: Final = {"cpu": 512, "cuda": 16_384}
"""Of the filter bank, 10 ms each. On a GPU five seconds of it are done before the next kernel is launched, in whatever
precision, and the difference does not show."""

_TRIES: Final = 3


@torch.inference_mode()
def best_precision(trunk: FusedTrunk, device: torch.device) -> torch.dtype:
    """The type in which `trunk` runs best: float32, or a half one that is faster by `GAIN`.

    Args:
        trunk: In float32, on `device`. It is left in the other precision.
        device: Where it runs.
    """
    half = torch.float16 if device.type == "cuda" else torch.bfloat16
    exact = _seconds(trunk, torch.float32, device)
    return half if _seconds(trunk.to(half), half, device) * GAIN < exact else torch.float32


def _seconds(trunk: FusedTrunk, precision: torch.dtype, device: torch.device) -> float:
    """Of the fastest of a few runs, after one that warms up."""
    bank = torch.zeros((1, _FRAMES[device.type], 80), dtype=precision, device=device)
    seconds = []
    for _ in range(1 + _TRIES):
        began = time.perf_counter()
        trunk(bank)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - began)
    return min(seconds[1:])
