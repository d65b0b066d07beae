"""Exact speed-up: what comes after the networks, on small integers instead of floats.

Stock builds a cube of float64 (chunks, frames, speakers) twice, and walks over every frame of every speaker in Python:
1.6 GB and half a minute for ten hours. The segmentations of a powerset model are zeros and ones, so what is summed up
over overlapping chunks are counts, which a byte holds.

What it proves: each function gives what the stock function of its name gives. Sums of small integers are exact in
whatever type; divisions, sorting (which decides between speakers of equal counts) and times are left to the very
operations that stock uses, on the same types.
"""

from __future__ import annotations

from functools import reduce
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pyannote.core import Annotation, Segment, SlidingWindow, SlidingWindowFeature
from pyannote.core.utils.generators import string_generator

from diarization.upstream import SpeakerDiarization

_FRAMES: Final = 65_536  # sorted at a time, as float32


def keep_small(pipeline: SpeakerDiarization) -> bool:
    """Let `pipeline` work this way; False where its segmentation model gives probabilities instead of decisions."""
    steps: Any = pipeline
    if not steps._segmentation.model.specifications.powerset:
        return False
    infer = steps._segmentation.infer
    steps._segmentation.infer = lambda chunks: _by_speaker(infer(chunks))
    steps.speaker_count, steps.reconstruct, steps.to_annotation = speaker_count, reconstruct, to_annotation
    return True


def _by_speaker(decisions: NDArray[Any]) -> NDArray[np.uint8]:
    """As bytes, a speaker's side by side in memory: numpy adds up rows of 589 frames ten times as fast as rows of 3."""
    return np.array(decisions.transpose(0, 2, 1), dtype=np.uint8, order="C").transpose(0, 2, 1)


def speaker_count(
    segmentations: SlidingWindowFeature, frames: SlidingWindow, warm_up: tuple[float, float]
) -> SlidingWindowFeature:
    """How many speak in each frame: the mean over the chunks that see it, rounded; uint8, shape (frames, 1).

    Args:
        segmentations: Zeros and ones, shape (chunks, frames, local speakers).
        frames: The model's frames.
        warm_up: Shares of a chunk to pass over at its ends; the pipeline asks for none.
    """
    if any(warm_up):
        raise ValueError(f"no warm-up is expected, not {warm_up}")
    talking = segmentations.data.sum(axis=2, dtype=np.uint8, keepdims=True)
    grid = _Grid(segmentations, frames, limit=int(talking.max()))
    total, seen = grid.empty(1), grid.empty(1)
    for place, talkers in zip(grid.places(), talking, strict=True):
        total[place] += talkers
        seen[place] += 1
    mean = total.astype(np.float32) / np.maximum(seen.astype(np.float32), np.float32(1e-12))
    return SlidingWindowFeature(np.rint(mean).astype(np.uint8), grid.frames)


def reconstruct(
    segmentations: SlidingWindowFeature, hard_clusters: NDArray[Any], count: SlidingWindowFeature
) -> SlidingWindowFeature:
    """Who speaks in each frame: as many as `count` says, those whom most chunks hear; uint8, shape (frames, speakers).

    Args:
        segmentations: Zeros and ones, shape (chunks, frames, local speakers).
        hard_clusters: The speaker behind each local speaker, -2 for none, shape (chunks, local speakers).
        count: Shape (frames, 1).
    """
    speakers = max(int(hard_clusters.max()) + 1, int(count.data.max()))
    grid = _Grid(segmentations, count.sliding_window, limit=1)
    votes = grid.empty(speakers)
    for place, talking, clusters in zip(grid.places(), segmentations.data, hard_clusters.tolist(), strict=True):
        for speaker in set(clusters) - {-2}:
            heard = [talking[:, local] for local, cluster in enumerate(clusters) if cluster == speaker]
            votes[place, speaker] += reduce(np.maximum, heard)
    activations = SlidingWindowFeature(votes, grid.frames)
    extent = activations.extent & count.extent
    activations, counts = activations.crop(extent, return_data=False), count.crop(extent)[:, 0]
    binary = np.zeros_like(activations.data)
    for start in range(0, min(len(counts), len(binary)), _FRAMES):
        _mark_loudest(activations.data[start : start + _FRAMES], counts[start : start + _FRAMES], binary[start:])
    return SlidingWindowFeature(binary, activations.sliding_window)


def _mark_loudest(votes: NDArray[Any], counts: NDArray[Any], binary: NDArray[Any]) -> None:
    """Set the speakers with the most votes to 1, `counts` of them in each frame."""
    ranking = np.argsort(-votes.astype(np.float32), axis=-1)
    for rank in range(int(counts.max(initial=0))):
        (rows,) = np.nonzero(counts[: len(votes)] > rank)
        binary[rows, ranking[rows, rank]] = 1


def to_annotation(
    discrete: SlidingWindowFeature, min_duration_on: float = 0.0, min_duration_off: float = 0.0
) -> Annotation:
    """Turns of each speaker, from the middle of their first frame to that of the first one after.

    Args:
        discrete: Zeros and ones, shape (frames, speakers).
        min_duration_on: Shorter turns are dropped, in seconds.
        min_duration_off: Shorter pauses are filled, in seconds.
    """
    turns, tracks, frames = list[tuple[Segment, str, int]](), string_generator(), discrete.sliding_window
    last = len(discrete.data) - 1
    for speaker in range(discrete.data.shape[1]):
        track = next(tracks)
        talking = np.concatenate([[0], discrete.data[:, speaker], [0]]).astype(np.int8)
        edges = np.minimum(np.flatnonzero(np.diff(talking)), last)
        starts = frames.start + edges * frames.step
        middles = 0.5 * (starts + (starts + frames.duration))
        turns += [(Segment(*turn), track, speaker) for turn in middles.reshape(-1, 2).tolist() if turn[0] < turn[1]]
    annotation = Annotation.from_records(turns)
    if min_duration_off > 0:
        annotation = annotation.support(collar=min_duration_off)
    if min_duration_on > 0:
        for segment, track in list(annotation.itertracks()):
            if segment.duration < min_duration_on:
                del annotation[segment, track]
    return annotation


class _Grid:
    """The recording's frames, and where each chunk's lie among them.

    Attributes:
        frames: The frames, from the begin of the first chunk on.
    """

    def __init__(self, chunks: SlidingWindowFeature, frames: SlidingWindow, limit: int) -> None:
        window = chunks.sliding_window
        self.frames = SlidingWindow(start=window.start, duration=frames.duration, step=frames.step)
        self._window, (self._chunks, self._chunk_frames, _) = window, chunks.data.shape
        end = window.start + window.duration + (self._chunks - 1) * window.step
        self._length = int(self._frames_at(end)) + 1
        overlapping = int(np.ceil(window.duration / window.step)) + 1
        self._type = np.min_scalar_type(overlapping * max(limit, 1))

    def empty(self, columns: int) -> NDArray[Any]:
        """Zeros for each frame, of a type that holds what overlapping chunks add up to; column by column in memory."""
        return np.zeros((columns, self._length), dtype=self._type).T

    def places(self) -> list[slice]:
        """The frames of each chunk."""
        starts = self._frames_at(self._window.start + np.arange(self._chunks) * self._window.step)
        return [slice(start, start + self._chunk_frames) for start in starts.tolist()]

    def _frames_at(self, seconds: Any) -> Any:
        """What `SlidingWindow.closest_frame` gives, for many; stock adds the half frame that it takes away again."""
        half = 0.5 * self.frames.duration
        return np.rint((seconds + half - self.frames.start - half) / self.frames.step).astype(int)
