"""Whether a network is faster in half precision on this device: measured, because what a processor claims says little.

A CPU may have instructions for bfloat16 and still be faster in float32: so one with AVX-512 BF16 but without AMX. fp16
is slow on CPUs; on GPUs it is closer to float32 than bfloat16 is, at the same speed. It ends at 65,504: activations of
this trunk stay below 10 on speech, and below 30 where digital silence and full loudness meet.
"""

from __future__ import annotations

from typing import Final

import torch

from diarization.device import timed
from diarization.fused_trunk import FusedTrunk

GAIN: Final = 1.3
"""Less is not worth another answer."""

_FRAMES: Final = {"cpu": 512, "cuda": 16_384}
"""Of the filter bank, 10 ms each. On a GPU five seconds of it are done before the next kernel is launched, in whatever
precision, and the difference does not show."""


@torch.inference_mode()
def best_precision(trunk: FusedTrunk, device: torch.device) -> torch.dtype:
    """The type in which `trunk` runs best: float32, or a half one that is faster by `GAIN` and gives numbers.

    Some GPUs give NaN for convolutions in fp16 (the GTX 16 series: pytorch#58123).

    Args:
        trunk: On `device`. It is left in the half precision.
        device: Where it runs.
    """
    half = torch.float16 if device.type == "cuda" else torch.bfloat16
    bank = torch.randn((1, _FRAMES[device.type], 80), generator=torch.Generator().manual_seed(0)).to(device)
    trunk.compute_in(torch.float32)
    exact, _ = timed(trunk, bank)
    trunk.compute_in(half)
    seconds, frames = timed(trunk, bank.to(half))
    return half if seconds * GAIN < exact and bool(frames.isfinite().all()) else torch.float32
