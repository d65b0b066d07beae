"""Exact speed-up: the speaker network's trunk in fewer passes over memory.

What it proves: in inference a batch norm multiplies and adds by channel, which the convolution before it can do by
itself with other weights; and what a convolution gives may be overwritten by the step that follows. The channels of a
pixel, which a convolution sums up, lie side by side where that is faster. The trunk's frames agree to a few 1e-6 of the
largest, as they do between batch sizes; on one core of a CPU it is faster by a quarter to a third.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


class FusedTrunk(nn.Module):
    """What a WeSpeaker ResNet does before its pooling, with a copy of its weights, on its device.

    Attributes:
        features: Channels times bands of a frame.
    """

    def __init__(self, resnet: Any) -> None:
        super().__init__()
        self.features: int = resnet.pool.in_dim
        self._stem = fuse_conv_bn_eval(resnet.conv1, resnet.bn1)
        layers = (resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4)
        self._blocks = nn.Sequential(*(_Block(block) for layer in layers for block in layer))
        self.compute_in(torch.float32)

    def compute_in(self, precision: torch.dtype) -> None:
        """From now on take a filter bank of that type."""
        # A CPU, and what a GPU has for half precision, take a pixel's channels from one place.
        is_planar = self._stem.weight.device.type == "cuda" and precision == torch.float32
        layout = torch.contiguous_format if is_planar else torch.channels_last
        self.to(precision, memory_format=layout)  # type: ignore[call-overload]

    def forward(self, bank: torch.Tensor) -> torch.Tensor:
        """Frames of the trunk, shape (batch, channels, bands, frames), of a filter bank, (batch, frames, bands)."""
        frames: torch.Tensor = self._blocks(self._stem(bank.transpose(1, 2)[:, None]).relu_())
        return frames


class _Block(nn.Module):
    """A residual block: two convolutions or three, and a way around them."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        pairs = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"))
        found = [(getattr(block, conv), getattr(block, norm)) for conv, norm in pairs if hasattr(block, conv)]
        *first, self._last = (fuse_conv_bn_eval(*pair) for pair in found)
        self._first = nn.ModuleList(first)
        self._around = fuse_conv_bn_eval(*block.shortcut) if len(block.shortcut) else nn.Identity()

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        inner = given
        for convolution in self._first:
            inner = convolution(inner).relu_()
        inner = self._last(inner)
        inner += self._around(given)
        ended: torch.Tensor = inner.relu_()
        return ended
