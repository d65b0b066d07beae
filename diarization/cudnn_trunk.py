"""Exact speed-up on a GPU: biases, sums and rectifiers of the speaker network's trunk in the convolutions' own kernels.

What it proves: nothing beforehand. Torch runs a convolution and then a kernel each for its bias, for the way around a
block and for the rectifier, which move more memory than the convolutions themselves: 3 TB for an hour of audio. cuDNN
can do all of it in one kernel, where it has one for the GPU. So both ways are run when the pipeline is loaded, on the
same noise, and this one is taken only where it is faster and its frames agree as those of two batch sizes do.
"""

from __future__ import annotations

import logging
from typing import Any, Final, cast

import torch

from diarization.device import first_line, timed
from diarization.fused_trunk import FusedTrunk

log = logging.getLogger(__name__)

CHUNK_FRAMES: Final = 998
"""Of the filter bank, in ten seconds."""

TOLERANCE: Final = 2e-5
"""Of the largest value; between batch sizes it is a few 1e-6."""


class CudnnTrunk(FusedTrunk):
    """A `FusedTrunk` with fewer kernels, for CUDA alone."""

    def forward(self, bank: torch.Tensor) -> torch.Tensor:
        """As its parent's."""
        frames, blocks = _relu(self._stem, bank.transpose(1, 2)[:, None]), cast(Any, self._blocks)
        for block in blocks:
            inner = frames
            for convolution in block._first:
                inner = _relu(convolution, inner)
            last = block._last
            addend = block._around(frames)
            frames = torch.cudnn_convolution_add_relu(inner, last.weight, addend, 1.0, last.bias, *_shape(last))
        return frames


def _relu(convolution: Any, given: torch.Tensor) -> torch.Tensor:
    return torch.cudnn_convolution_relu(given, convolution.weight, convolution.bias, *_shape(convolution))


def _shape(convolution: Any) -> tuple[Any, ...]:
    return convolution.stride, convolution.padding, convolution.dilation, convolution.groups


def best_trunk(resnet: Any, chunks: int) -> FusedTrunk:
    """The faster of the two for so many chunks at a time, on the device of `resnet`."""
    trunk, device = FusedTrunk(resnet), resnet.conv1.weight.device
    if device.type != "cuda":
        return trunk
    bank = torch.randn((chunks, CHUNK_FRAMES, 80), generator=torch.Generator().manual_seed(0))
    return faster(trunk, CudnnTrunk(resnet), bank.to(device))


@torch.inference_mode()
def faster(trunk: FusedTrunk, other: FusedTrunk, bank: torch.Tensor) -> FusedTrunk:
    """`other` where it takes less time for `bank` than `trunk` and gives the same frames; else `trunk`."""
    try:
        seconds, expected = timed(trunk, bank)
        seconds_of_other, frames = timed(other, bank)
    except RuntimeError as error:
        log.info("the speaker network runs as torch runs it: %s", first_line(error))
        return trunk
    agrees = bool((frames - expected).abs().max() <= TOLERANCE * expected.abs().max())
    return other if agrees and seconds_of_other < seconds else trunk
