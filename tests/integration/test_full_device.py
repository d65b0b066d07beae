"""A device that runs out of memory: smaller batches, and an error only where nothing is small enough."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pyannote.core import SlidingWindow

from diarization.batches import FittingBatch, fit_segmentation
from diarization.diarizer import BUNDLED_MODEL
from diarization.errors import OutOfMemory
from diarization.hub import load_pipeline
from diarization.turns import SpeakerHints
from tests.pyannote_model import SAMPLE_RATE, pyannote, sample, untouched

pytestmark = pytest.mark.model

NO_HINTS = SpeakerHints()
CHUNKS = SlidingWindow(start=0.0, duration=10.0, step=1.0)


def ignore(stage: str, done: int, total: int) -> None:
    """A report nobody reads."""


def too_many(limit: int, calls: list[int]) -> Callable[[Any], int]:
    """A network that has room for `limit` items."""

    def compute(items: Any) -> int:
        calls.append(len(items))
        if len(items) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return int(sum(items))

    return compute


def test_a_batch_that_does_not_fit_is_halved_and_the_size_is_remembered() -> None:
    batch, calls = FittingBatch(32), []

    done = list(batch.run(too_many(9, calls), range(40)))

    assert [item for taken, _ in done for item in taken] == list(range(40))
    assert sum(result for _, result in done) == sum(range(40))
    assert calls == [32, 16, 8, 8, 8, 8, 8]
    assert list(batch.run(too_many(9, calls), range(8))) == [(range(8), 28)]
    assert batch.size == 8


def test_an_item_that_does_not_fit_alone_is_out_of_memory() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        list(FittingBatch(4).run(too_many(0, []), range(4)))


def test_another_error_is_not_tried_again() -> None:
    calls = []

    def broken(items: range) -> None:
        calls.append(len(items))
        raise RuntimeError("CUDA error: device-side assert triggered")

    with pytest.raises(RuntimeError, match="device-side assert"):
        list(FittingBatch(4).run(broken, range(4)))
    assert calls == [4]


@pytest.mark.parametrize("room", [3, 0])
def test_a_job_on_a_full_device_goes_on_in_smaller_batches(room: int) -> None:
    pipeline = load_pipeline(str(BUNDLED_MODEL)).pipeline
    pipeline.segmentation_batch_size = 8
    infer, sizes = pipeline._segmentation.infer, []

    def full(chunks: torch.Tensor) -> NDArray[np.float32]:
        sizes.append(len(chunks))
        if len(chunks) > room:
            raise MemoryError("batch_size (8) is probably too large.")
        answer: NDArray[np.float32] = infer(chunks)
        return answer

    pipeline._segmentation.infer = full  # type: ignore[method-assign]
    fit_segmentation(pipeline, FittingBatch(8))
    file = {"waveform": torch.from_numpy(sample(0, 25))[None], "sample_rate": SAMPLE_RATE}
    if not room:
        with pytest.raises(MemoryError):
            pipeline.get_segmentations(file)
        return
    given = pipeline.get_segmentations(file)
    assert np.array_equal(given.data, untouched().get_segmentations(file).data)
    assert sizes[:3] == [8, 4, 2]
    assert max(sizes[2:]) == 2


def test_out_of_memory_for_good_is_transient(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(frames: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(pyannote()._pipeline._embedding.model_, "forward_embedding", full)

    with pytest.raises(OutOfMemory, match="out of memory: CUDA out of memory"):
        pyannote().diarize_waveform(sample(7, 8), NO_HINTS, ignore)
