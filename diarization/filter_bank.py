"""Exact speed-up: the speaker network's filter bank once over the recording instead of once per chunk.

What it proves: a frame of the bank (25 ms of samples, log mel energies) depends on no other, and chunks begin at whole
frames. So a chunk's frames are the recording's, which chunks that overlap by nine tenths share; what stock does to a
chunk as a whole, taking its mean away, is done to the frames that lie in it. On a GPU a tenth of the samples is sent.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from pyannote.core import SlidingWindow
from torch.nn.functional import pad

from diarization.device import send
from diarization.upstream import SpeakerDiarization

_BLOCK: Final = {"cpu": 6_000, "cuda": 30_000}
"""Frames at a time, of 10 ms: the last seconds of a block are computed once more for the chunk that begins there. A GPU
stands still for each block, while tables are sent to it; five minutes take it some 300 MB."""


class FilterBank:
    """Log mel energies of a recording, computed where they are asked for, from front to back.

    Attributes:
        frames: How many there are, up to the end of the last chunk, which is filled up with zeros.
        chunk_frames: How many a chunk has.
        per_second: Frames a second.
    """

    def __init__(
        self, pipeline: SpeakerDiarization, waveform: torch.Tensor, window: SlidingWindow, chunks: int
    ) -> None:
        """Begin.

        Args:
            pipeline: Whose speaker network it is for.
            waveform: Shape (1, samples).
            window: Where the chunks lie.
            chunks: How many there are.
        """
        embedding = pipeline._embedding
        self._model, self._device, self._waveform = embedding.model_, embedding.device, waveform
        rate, options = embedding.sample_rate, embedding.model_.hparams
        self._hop, self._width = (int(rate * ms / 1000) for ms in (options.frame_shift, options.frame_length))
        self.per_second = rate / self._hop
        self._step_samples = window.step * rate
        chunk_samples = round(window.duration * rate)
        self.chunk_frames = self._count(chunk_samples)
        self.frames = self._count(chunk_samples + (chunks - 1) * round(self._step_samples))
        self._begin, self._block = 0, torch.empty((0, 0))

    @property
    def is_shared(self) -> bool:
        """Whether each chunk begins at a frame and has whole ones alone, and stock takes its mean away from it."""
        options = self._model.hparams
        return self._step_samples % self._hop == 0 and options.snip_edges and options.fbank_centering_span is None

    def of(self, chunks: NDArray[np.intp]) -> torch.Tensor:
        """Frames of each chunk without their mean, shape (chunks, chunk_frames, bands)."""
        starts = (chunks * self._step_samples / self._hop).astype(int)
        frames = torch.stack([self.raw(start, start + self.chunk_frames) for start in starts])
        return frames - frames.mean(dim=1, keepdim=True)

    def raw(self, start: int, end: int) -> torch.Tensor:
        """Frames `start` to `end`, shape (end - start, bands)."""
        if start < self._begin or end > self._begin + len(self._block):
            end_of_block = min(self.frames, max(end, start + _BLOCK[self._device.type]))
            self._begin, self._block = start, self._compute(start, end_of_block)
        return self._block[start - self._begin : end - self._begin]

    def _compute(self, start: int, end: int) -> torch.Tensor:
        samples = self._waveform[:, start * self._hop : (end - 1) * self._hop + self._width]
        missing = (end - start - 1) * self._hop + self._width - samples.shape[1]
        # The scale is that of 16-bit samples, which the model was trained on.
        bank: torch.Tensor = self._model._fbank(send(pad(samples, (0, missing)), self._device) * 2**15)
        return bank

    def _count(self, samples: int) -> int:
        return 1 + (samples - self._width) // self._hop
