"""How much a network is given at once: what the device has room for, found out once for a worker's process."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
import torch

from diarization.device import device_failure, first_line, send_overlapping
from diarization.errors import OutOfMemory
from diarization.upstream import SpeakerDiarization

log = logging.getLogger(__name__)

T = TypeVar("T")


class FittingBatch:
    """A batch size that is halved where the device runs out of memory, and stays so.

    Attributes:
        size: Items at a time.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def run(self, compute: Callable[[Any], T], items: Any) -> Iterator[tuple[Any, T]]:
        """Pairs of a batch and what `compute` makes of it, until all of `items` is done.

        Args:
            compute: Takes a slice of `items`. After it ran out of memory it is called again with half as many.
            items: Whatever has a length and can be sliced: an array, a tensor, a range.

        Raises:
            RuntimeError, MemoryError: Raised by `compute`; for want of memory only where a single item does not fit.
        """
        done = 0
        while done < len(items):
            batch = items[done : done + self.size]
            try:
                result = compute(batch)
            except (RuntimeError, MemoryError) as error:
                if len(batch) == 1 or not isinstance(device_failure(error), OutOfMemory):
                    raise
                log.warning("%d at a time are too many for the device: %s", len(batch), first_line(error))
            else:
                done += len(batch)
                yield batch, result
                continue
            # Out here nothing holds the frames in which the failed step's tensors live.
            self.size = len(batch) // 2
            if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
                torch.cuda.empty_cache()


def one_behind(results: Iterator[T]) -> Iterator[T]:
    """Each result once the next one is under way: a GPU goes on while what it has done is used."""
    before: list[T] = []
    for result in results:
        yield from before
        before = [result]
    yield from before


def fit_segmentation(pipeline: SpeakerDiarization, batch: FittingBatch) -> None:
    """Let `pipeline` give its segmentation network no more chunks at a time than fit."""
    network: Any = pipeline._segmentation
    infer = network.infer

    def infer_batch(chunks: torch.Tensor) -> Any:
        return infer(send_overlapping(chunks, network.device))

    network.infer = lambda chunks: np.concatenate([part for _, part in batch.run(infer_batch, chunks)])
