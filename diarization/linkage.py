"""Exact speed-up: centroid linkage whose memory grows with the number of points, not with its square.

Stock calls scipy's `linkage`, which keeps the distance of every pair: 8 n² bytes, 14 GB for ten hours. Here only the
points are kept, and distances are computed when they are asked for.

What it proves: the same merges in the same order, hence the same dendrogram, row for row. As in the generic algorithm
of D. Müllner, "Modern hierarchical, agglomerative clustering algorithms", arXiv:1109.2378, section 3.1, each cluster
knows which one was nearest when it looked; that distance stays a lower bound. The smallest is that of the next merge if
the nearest is still there, and is looked up again if not. Unlike there, a cluster looks among those that were there
before it, so that of any two the later one has the bound, and a merge changes nothing of what others know. Centroids
differ from scipy's, which updates distances instead, by rounding alone (1e-15); so where two different pairs are as far
apart as each other, to the last digits, the order of the two merges and with it the numbers of clusters may differ.

Most clusters are ruled out without looking at all of their coordinates: after a rotation that puts the directions in
which points differ most first, the first few, and the length of what the others add, give a lower bound of the
distance, and mostly one that is larger than the nearest's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import linkage as scipy_linkage

Floats = NDArray[np.float64]
Heard = Callable[[float], None]
"""Hears which share of the work is done, now and then; what it raises ends the work."""

MATRIX_POINTS: Final = 1000
"""Up to so many points (a quarter of an hour of talk) scipy is as fast, with a matrix of 4 MB, and is called."""

_LEADING: Final = 30  # coordinates that bound the distance; half to three quarters of the variance of embeddings
_SLACK: Final = 1e-5  # half the squared distance of unit vectors by float32 products is off by less
_LARGEST: Final = 1e30  # squared length whose products float32 still holds
_FULL: Final = 0.8  # share of the slots; where fewer are taken, the empty ones are dropped
_HEARD_EVERY: Final = 256  # looks, then merges


def linkage(
    points: NDArray[Any], method: str = "centroid", metric: str = "euclidean", *, heard: Heard = lambda _: None
) -> Floats:
    """What `scipy.cluster.hierarchy.linkage` gives, shape (points - 1, 4).

    Args:
        points: Shape (points, dimension). Of length 1 for the bounds to be tight; they hold for any.
        method: Another than `centroid` goes to scipy, whatever it takes.
        metric: Likewise for another than `euclidean`.
        heard: Not called by scipy.
    """
    ours = method == "centroid" and metric == "euclidean" and len(points) > MATRIX_POINTS
    if not ours or not (np.vecdot(points, points) < _LARGEST).all():  # of what is no number, scipy complains
        return np.asarray(scipy_linkage(points, method=method, metric=metric))
    return _Merging(np.asarray(points, dtype=np.float64)).dendrogram(heard)


class _Merging:
    """Clusters in slots. Two are merged into the slot of one; that of the other is empty from then on.

    Attributes:
        points: Centroids, shape (slots, dimension), rotated.
        leading: What bounds distances, shape (leading + 2, slots): the first coordinates, the length of the others, and
            half the squared length of all; the latter is inf where a slot is empty.
        bounds: Squared distance to the nearest when it was looked up, shape (slots,); inf where there is none.
        labels: Which cluster of the dendrogram is in a slot.
        slots: Where a cluster of the dendrogram is; -1 once it is merged.
        sizes: Points in a cluster of the dendrogram.
        nearest: Which cluster was nearest to one of the dendrogram when it was looked up.
    """

    def __init__(self, points: Floats) -> None:
        count, dimension = points.shape
        self.points = _rotated(points)
        self.leading = np.empty((min(_LEADING, dimension) + 2, count), dtype=np.float32)
        self._project(slice(None))
        self.slack = _SLACK * max(1.0, float(self.leading[-1].max()))
        self.bounds = np.full(count, np.inf)
        self.labels, self.slots = list(range(count)), list(range(count))
        self.sizes, self.nearest = [1] * count, [0] * count

    def dendrogram(self, heard: Heard) -> Floats:
        """Each point looks among those before it, then the nearest are merged until one is left."""
        count = len(self.points)
        for slot in range(1, count):
            if slot % _HEARD_EVERY == 0:
                heard(0.5 * slot / count)
            self._look_up(slot, end=slot)
        merges = np.empty((count - 1, 4))
        for step in range(count - 1):
            if step % _HEARD_EVERY == 0:
                heard(0.5 + 0.5 * step / count)
            merges[step] = self._merge(*self._closest())
            if count - step < _FULL * len(self.bounds):
                self._close_gaps()
        return merges

    def _closest(self) -> tuple[int, int]:
        """The slots of the two clusters that are the nearest to each other."""
        while True:
            slot = int(self.bounds.argmin())
            other = self.slots[self.nearest[self.labels[slot]]]
            if other >= 0:
                return slot, other
            self._look_up(slot)

    def _merge(self, slot: int, other: int) -> tuple[int, int, float, int]:
        """Merge two clusters into the first one's slot; gives the dendrogram's row."""
        pair = self.labels[slot], self.labels[other]
        size, more = self.sizes[pair[0]], self.sizes[pair[1]]
        row = min(pair), max(pair), math.sqrt(self.bounds[slot]), size + more
        self.points[slot] = (size * self.points[slot] + more * self.points[other]) / (size + more)
        self._project(slot)
        self.leading[-1, other] = self.bounds[other] = np.inf
        self.slots[pair[0]] = self.slots[pair[1]] = -1
        self.labels[slot] = len(self.slots)
        self.slots.append(slot)
        self.sizes.append(size + more)
        self.nearest.append(-1)
        self._look_up(slot)
        return row

    def _look_up(self, slot: int, end: int | None = None) -> None:
        """Find the nearest to `slot` among the slots before `end`, or among all others."""
        weights = -self.leading[:, slot]
        half_square, weights[-1] = weights[-1], 1
        least = weights @ self.leading[:, :end]  # minus `half_square`: of half the squared distances
        if end is None:
            least[slot] = np.inf
        nearest = int(least.argmin())
        squared = self._squared_distances(slot, nearest)
        (candidates,) = (least <= half_square + float(squared / 2 + self.slack)).nonzero()
        if len(candidates) > 1:
            squares = self._squared_distances(slot, candidates)
            best = squares.argmin()
            nearest, squared = candidates[best], squares[best]
        self.bounds[slot], self.nearest[self.labels[slot]] = squared, self.labels[nearest]

    def _squared_distances(self, slot: int, others: Any) -> Any:
        difference = self.points[others] - self.points[slot]
        return np.vecdot(difference, difference)

    def _project(self, slots: int | slice) -> None:
        points = self.points[slots]
        others = points[..., _LEADING:]
        self.leading[:-2, slots] = points[..., :_LEADING].T
        self.leading[-2, slots] = np.sqrt(np.vecdot(others, others))
        self.leading[-1, slots] = np.vecdot(points, points) / 2

    def _close_gaps(self) -> None:
        """Drop the empty slots; the others keep their order."""
        kept = np.flatnonzero(np.isfinite(self.leading[-1]))
        self.points, self.leading, self.bounds = self.points[kept], self.leading[:, kept], self.bounds[kept]
        self.labels = [self.labels[slot] for slot in kept.tolist()]
        for slot, label in enumerate(self.labels):
            self.slots[label] = slot


def _rotated(points: Floats) -> Floats:
    """The points in coordinates of falling variance; distances stay."""
    centred = points - points.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    return np.ascontiguousarray(centred @ axes[:, ::-1])
