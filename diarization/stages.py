"""What pyannote does at the moment: progress, and the time that each stage takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pyannote.core import SlidingWindowFeature

from diarization.diarizer import Report


class StageWatch:
    """pyannote's hook: passes progress on, measures the stages, and keeps what a second try needs.

    Attributes:
        stage_seconds: Wall seconds by stage.
        segmentation: (chunks, frames, local speakers), once known.
        embeddings: (chunks, local speakers, dimension), once known.
    """

    _STAGES: ClassVar = {"segmentation": "segmentation", "embeddings": "embedding"}

    def __init__(self, report: Report, networks_done: Callable[[], object] = lambda: None) -> None:
        """Begin with the first stage.

        Args:
            report: Hears of progress.
            networks_done: Called as soon as the embeddings are there: what follows needs no device.
        """
        self._report = report
        self._networks_done = networks_done
        self._since = time.perf_counter()
        self._parts = 1
        self.stage_seconds: dict[str, float] = {}
        self.segmentation: SlidingWindowFeature | None = None
        self.embeddings: NDArray[np.float32] | None = None

    def __call__(
        self,
        step: str,
        artifact: Any,
        file: Mapping[str, Any] | None = None,
        total: int | None = None,
        completed: int | None = None,
    ) -> None:
        """Called by pyannote after each batch (with `total` and `completed`) and after each step (with its result)."""
        if step not in self._STAGES:
            return
        stage = self._STAGES[step]
        if total is not None and completed is not None:
            self._report(stage, min(int(completed), int(total)), int(total))  # the last batch counts as a full one
            return
        self._end(stage)
        if stage == "segmentation":
            self.segmentation = artifact
        else:
            self.embeddings = artifact
            self._networks_done()
            self._report("clustering", 0, 1)

    def clustering(self, done: int, total: int) -> None:
        """See `diarization.clustering.ClusteringProgress`."""
        self._parts = total
        self._report("clustering", done, total)

    def finish(self) -> None:
        """The answer is there."""
        self._end("clustering")
        self._report("clustering", self._parts, self._parts)

    def _end(self, stage: str) -> None:
        now = time.perf_counter()
        self.stage_seconds[stage] = round(now - self._since, 3)
        self._since = now
