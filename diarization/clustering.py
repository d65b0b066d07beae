"""Exact speed-up: stock's clustering without memory that grows with the square of the recording.

What it proves: stock's own functions run as they are. Only three of the names that they call are bound to others, each
of which gives the same: `linkage` and `cluster_vbx` (see there), and `cdist`, which here takes its rows in blocks,
because it copies them to float64. On the way, those that take long tell how far they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FunctionType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist as scipy_cdist

from diarization.linkage import linkage
from diarization.upstream import AgglomerativeClustering, SpeakerDiarization, VBxClustering
from diarization.vbx import cluster_vbx

PARTS: Final = 100
"""Of the clustering; the linkage is 70 of them: where it takes 30 s, for ten hours, VBx takes up to 14."""

_LINKAGE_PARTS: Final = 70
_ROWS: Final = 8192

Listener = Callable[[int, int], None]


class ClusteringProgress:
    """How far a pipeline's clustering is. The linkage of a short recording, which scipy does, tells nothing."""

    def __init__(self) -> None:
        self._listener: Listener | None = None

    @contextmanager
    def told_to(self, listener: Listener) -> Iterator[None]:
        """While the block runs, `listener` is called with the parts done and `PARTS`; it may raise to end the work."""
        self._listener = listener
        try:
            yield
        finally:
            self._listener = None  # what it holds is as large as the recording

    def linkage(self, share: float) -> None:
        """So much of the linkage is done."""
        self._tell(_LINKAGE_PARTS * share)

    def vbx(self, share: float) -> None:
        """So much of VBx is done."""
        self._tell(_LINKAGE_PARTS + (PARTS - _LINKAGE_PARTS) * share)

    def _tell(self, parts: float) -> None:
        if self._listener is not None:
            self._listener(int(parts), PARTS)


def bound_clustering(pipeline: SpeakerDiarization) -> ClusteringProgress:
    """Let `pipeline` cluster this way; one that clusters by other means than VBx or linkage is left as it is."""
    stock = type(pipeline.clustering)
    progress, methods = ClusteringProgress(), {}
    heard_linkage = partial(linkage, heard=progress.linkage)
    if issubclass(stock, VBxClustering):
        names = {"linkage": heard_linkage, "cluster_vbx": partial(cluster_vbx, heard=progress.vbx), "cdist": cdist}
        methods["__call__"] = _rebound(stock.__call__, names)
    elif issubclass(stock, AgglomerativeClustering):
        methods["cluster"] = _rebound(stock.cluster, {"linkage": heard_linkage})
        methods["assign_embeddings"] = _rebound(stock.assign_embeddings, {"cdist": cdist})
    pipeline.clustering.__class__ = type(f"Bounded{stock.__name__}", (stock,), methods)
    return progress


def cdist(rows: NDArray[Any], columns: NDArray[Any], metric: str) -> NDArray[np.float64]:
    """What scipy's function of this name gives: the distance of each row to each column, shape (rows, columns)."""
    blocks = [scipy_cdist(rows[start : start + _ROWS], columns, metric) for start in range(0, len(rows), _ROWS)]
    return np.vstack(blocks)


def _rebound(function: Callable[..., Any], names: dict[str, Any]) -> FunctionType:
    """`function` with some of the names that it looks up in its module bound to others, for this copy alone.

    Raises:
        LookupError: It looks up no such name: this is another pyannote than the one that this was written for.
    """
    assert isinstance(function, FunctionType)
    if unknown := names.keys() - set(function.__code__.co_names):
        raise LookupError(f"{function.__qualname__} of pyannote.audio does not call {', '.join(sorted(unknown))}")
    copy = FunctionType(
        function.__code__,
        function.__globals__ | names,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy
