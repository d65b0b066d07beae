"""Fast, and not stock's answer: the speaker network's trunk once over the recording instead of once per chunk.

Chunks overlap by nine tenths, so that the trunk computes each frame ten times. Here it runs over the recording once, in
blocks with as much context as it can see; a chunk's embeddings are pooled, by the model's own head, from those of the
frames that lie in the chunk.

What it trades: stock takes the mean of each chunk's filter bank away from it, so that a frame has up to ten values.
Here it is the mean of the ten seconds around the frame. And at a chunk's ends the trunk hears the recording go on,
where stock has it hear nothing. Blocks trade nothing: the frames equal those of one run over everything.

The trunk may run in half precision; the pooling does not, which can give NaN in it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import pad

from diarization.batches import FittingBatch, one_behind
from diarization.device import fetch, send
from diarization.filter_bank import FilterBank
from diarization.fused_trunk import FusedTrunk
from diarization.half_precision import best_precision
from diarization.masks import Masks
from diarization.shared_trunk import Floats, SharedTrunk
from diarization.upstream import SpeakerDiarization, WeSpeakerResNet34

STRIDE: Final = 8
"""Filter bank frames a frame of the trunk: three of its four layers halve the time."""

CONTEXT: Final = 112
"""Filter bank frames that a frame of the trunk sees to each side, by its convolutions' widths and strides."""

CENTRING: Final = 999
"""Filter bank frames whose mean is taken away: as many as a chunk has, and one, so that there is a middle."""

POOLED: Final = {"cpu": 1, "cuda": 64}
"""Chunks at a time. On a CPU one stays in the cache; of 64 at a time each takes three times as long. A GPU needs many
to be kept busy by one thread."""


def whole_trunk(pipeline: SpeakerDiarization, blocks: FittingBatch) -> torch.dtype | None:
    """Let `pipeline` compute its embeddings this way, in the precision that is best on its device.

    Args:
        pipeline: On its device.
        blocks: Frames of the trunk at a time, of 80 ms.

    Returns:
        The trunk's precision; None where the speaker network is of another kind, and nothing was changed.
    """
    model: Any = getattr(pipeline._embedding, "model_", None)
    if not isinstance(model, WeSpeakerResNet34) or model.hparams["fbank_centering_span"] is not None:
        return None
    precision = best_precision(FusedTrunk(model.resnet), pipeline._embedding.device)
    trunk = WholeTrunk(pipeline, FittingBatch(POOLED[pipeline._embedding.device.type]), blocks, precision)
    pipeline.get_embeddings = trunk.get_embeddings  # type: ignore[method-assign]
    return precision


class WholeTrunk(SharedTrunk):
    """Stands in for `SpeakerDiarization.get_embeddings`.

    Attributes:
        evenly: The first block and the last get as many frames as those between them. cuDNN keeps a plan, in the host's
            memory, for each convolution and each length that it has met, and every recording would bring another one.
    """

    def __init__(
        self, pipeline: SpeakerDiarization, batch: FittingBatch, blocks: FittingBatch, precision: torch.dtype
    ) -> None:
        super().__init__(pipeline, batch, FusedTrunk(pipeline._embedding.model_.resnet))
        self._blocks, self._precision = blocks, precision
        self.evenly = pipeline._embedding.device.type == "cuda"
        self._trunk.compute_in(precision)

    def _fill(self, embeddings: Floats, file: dict[str, Any], masks: Masks, report: Callable[[int, int], None]) -> None:
        bank = FilterBank(self._pipeline, file["waveform"], masks.window, masks.chunks)
        starts = np.rint(masks.active * masks.window.step * bank.per_second / STRIDE).astype(int)
        length, total = -(-bank.chunk_frames // STRIDE), -(-bank.frames // STRIDE)
        held, begin, pooled = self._nothing(0), 0, 0

        def pool(chunks: NDArray[np.intp]) -> Callable[[], torch.Tensor]:
            inside = [held[..., start - begin : start - begin + length] for start in starts[chunks]]
            return fetch(self._pool(torch.cat(inside), masks.of(masks.active[chunks])))

        report(0, total)
        for block, frames in self._blocks.run(lambda block: self._frames(bank, block, starts, length), range(total)):
            held = torch.cat([held, frames], dim=-1)
            complete = int(np.searchsorted(starts, block.stop - length, side="right"))
            for chunks, embedded in one_behind(self.batch.run(pool, np.arange(pooled, complete))):
                embeddings[masks.active[chunks]] = embedded()
            pooled = complete
            needed = min(starts[pooled], block.stop) if pooled < len(starts) else block.stop
            held, begin = held[..., needed - begin :], needed
            report(block.stop, total)

    def _frames(self, bank: FilterBank, block: range, starts: NDArray[np.intp], length: int) -> torch.Tensor:
        """The trunk's frames of a block, shape (1, features, 1, frames); zeros where no chunk needs them."""
        next_chunk = int(np.searchsorted(starts, block.start - length, side="right"))
        if next_chunk == len(starts) or starts[next_chunk] >= block.stop:
            return self._nothing(len(block))
        start = max(0, block.start * STRIDE - CONTEXT)
        end = min(bank.frames, block.stop * STRIDE + CONTEXT)
        if self.evenly:
            length = self._blocks.size * STRIDE + 2 * CONTEXT
            end = min(bank.frames, start + length)
            start = max(0, (end - length) // STRIDE * STRIDE)
        frames: torch.Tensor = self._trunk(_centred(bank, start, end)[None].to(self._precision))
        skipped = block.start - start // STRIDE
        return frames[..., skipped : skipped + len(block)].flatten(1, 2)[:, :, None].float()

    def _nothing(self, frames: int) -> torch.Tensor:
        return torch.zeros((1, self._trunk.features, 1, frames), device=self._pipeline._embedding.device)


def _centred(bank: FilterBank, start: int, end: int) -> torch.Tensor:
    """Frames `start` to `end` without the mean of those around them, shape (end - start, bands)."""
    width = min(CENTRING, bank.frames)
    windows = (torch.arange(start, end) - width // 2).clamp(0, bank.frames - width)
    first = min(start, int(windows[0]))
    frames = bank.raw(first, max(end, int(windows[-1]) + width))
    # Along what lies side by side in memory: a GPU sums up the other way in one thread a band.
    sums = pad(frames.T.double().contiguous().cumsum(dim=1), (1, 0)).T
    windows = send(windows - first, frames.device)
    means = (sums[windows + width] - sums[windows]) / width
    return frames[start - first : end - first] - means.float()
