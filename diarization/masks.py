"""Which frames of a chunk count for which local speaker's embedding, as stock decides it."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from pyannote.core import SlidingWindowFeature

from diarization.upstream import SpeakerDiarization


class Masks:
    """Made chunk by chunk: those of a whole recording would be larger than its samples.

    Attributes:
        active: The chunks in which somebody talks.
        speakers: Local speakers of a chunk.
        window: Where the chunks lie in the recording.
    """

    def __init__(
        self, pipeline: SpeakerDiarization, segmentations: SlidingWindowFeature, exclude_overlap: bool
    ) -> None:
        self._talking = segmentations.data
        self.window = segmentations.sliding_window
        self.chunks, self._frames, self.speakers = self._talking.shape
        self.active: NDArray[np.intp] = np.flatnonzero((self._talking > 0).any(axis=(1, 2)))
        self._exclude_overlap = exclude_overlap
        if exclude_overlap:
            embedding = pipeline._embedding
            samples = self.window.duration * embedding.sample_rate
            self._fewest_frames = math.ceil(self._frames * embedding.min_num_samples / samples)

    def of(self, chunks: NDArray[np.intp]) -> NDArray[np.float32]:
        """Zeros and ones, shape (chunks, speakers, frames).

        Where overlaps are excluded, stretches in which several talk are left out, unless too little is left.
        """
        talking = self._talking[chunks]
        masks = np.nan_to_num(talking.astype(np.float32), nan=0.0)
        if self._exclude_overlap:
            # NaN counts as talking here, as it does in stock, where a sum with NaN is not below 2.
            alone = np.sum(talking, axis=2, keepdims=True) < 2
            clean = masks * alone
            masks = np.where(clean.sum(axis=1, keepdims=True) > self._fewest_frames, clean, masks)
        return np.ascontiguousarray(masks.transpose(0, 2, 1))
