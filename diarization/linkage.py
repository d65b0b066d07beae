"""Exact speed-up: centroid linkage whose memory grows with the number of points, not with its square.

Stock calls scipy's `linkage`, which keeps the distance of every pair: 8 n² bytes, 14 GB for ten hours. Here only the
points are kept, and distances are computed when they are asked for.

What it proves: the same merges in the same order, hence the same dendrogram, row for row. Both follow the generic
algorithm of D. Müllner, "Modern hierarchical, agglomerative clustering algorithms", arXiv:1109.2378, section 3.1: each
point knows its nearest among those after it, or a lower bound of that distance; the point with the smallest one is
merged if it is exact, and looked up again if not. Centroids differ from scipy's, which updates distances instead, by
rounding alone (1e-15); so where two different pairs are as far apart as each other, to the last digits, the order of
the two merges and with it the numbers of clusters may differ. Real embeddings have no such ties.

Most points are ruled out without looking at all of their coordinates: after a rotation that puts the directions in
which points differ most first, the distance in the first few is a lower bound of the whole one, and already larger than
the nearest found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import linkage as scipy_linkage

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]
Heard = Callable[[float], None]
"""Hears which share of the work is done, now and then; what it raises ends the work."""

MATRIX_POINTS: Final = 2000
"""Up to so many points (half an hour of talk) scipy's matrix of distances takes at most 32 MB, and scipy is called."""

_LEADING: Final = 32  # coordinates that bound the distance; half to three quarters of the variance of embeddings
_SLACK: Final = 1e-5  # squared distance of unit vectors by float32 products is off by less
_BLOCK: Final = 2_000_000  # distances at a time when all are looked at once: 16 MB
_HEARD_EVERY: Final = 256  # merges
_LOOKING: Final = 0.1  # share of the seconds until the first merge: 10 to 15 % of 5,000 and of 14,000 points


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
    if not ours or not np.isfinite(points).all():  # of the latter it complains
        return np.asarray(scipy_linkage(points, method=method, metric=metric))
    return _Merging(np.asarray(points, dtype=np.float64), heard).dendrogram()


class _Merging:
    """Points and merged points in slots. A pair is merged into its later slot; the earlier one is empty from then on.

    Attributes:
        points: Centroids, shape (slots, dimension), rotated.
        leading: Their first coordinates in float32; `squares` are their squared lengths.
        sizes: Points in each centroid; 0 where a slot is empty.
        labels: The cluster's number in the dendrogram.
        nearest: The slot after it that is nearest; -1 where that is not known.
        bounds: Distance to the nearest, or a lower bound of it where that is not known; inf where there is none.
    """

    def __init__(self, points: Floats, heard: Heard) -> None:
        count = len(points)
        self._heard = heard
        self.points = _rotated(points)
        self.sizes = np.ones(count, dtype=np.intp)
        self.labels = np.arange(count)
        self.bounds = np.full(count, np.inf)
        self.nearest = np.full(count, -1)
        self._project()
        self.scale = max(1.0, float(self.squares.max()))
        for rows, nearest in _nearest_after(self.points):
            self.nearest[rows] = nearest
            self.bounds[rows] = self._distances(self.points[rows], nearest)
            heard(_LOOKING * (rows[-1] + 1) / count)

    def dendrogram(self) -> Floats:
        """Merge until one is left."""
        count = len(self.points)
        merges = np.empty((count - 1, 4))
        for step in range(count - 1):
            if step % _HEARD_EVERY == 0:
                self._heard(_LOOKING + (1 - _LOOKING) * step / count)
            first = int(np.argmin(self.bounds))
            while self.nearest[first] < 0:
                self._look_up(first)
                first = int(np.argmin(self.bounds))
            second, height = int(self.nearest[first]), self.bounds[first]
            size = self.sizes[first] + self.sizes[second]
            merges[step] = (*sorted((self.labels[first], self.labels[second])), height, size)
            self._merge(first, second)
            self.labels[second] = count + step
            if 2 * (count - step) < len(self.points):
                self._close_gaps()
        return merges

    def _merge(self, first: int, second: int) -> None:
        sizes = self.sizes[[first, second]]
        self.points[second] = sizes @ self.points[[first, second]] / sizes.sum()
        self.leading[second] = self.points[second, :_LEADING]
        self.squares[second] = self.leading[second] @ self.leading[second]
        self.sizes[second], self.sizes[first] = sizes.sum(), 0
        self.bounds[first], self.nearest[first] = np.inf, -1
        self.nearest[(self.nearest == first) | (self.nearest == second)] = -1
        least = self._least_squares(second, 0)
        near = np.flatnonzero(least[:second] <= self.bounds[:second] ** 2)
        near = near[self.sizes[near] > 0]
        distances = self._distances(self.points[second], near)
        closer = distances < self.bounds[near]
        self.bounds[near[closer]], self.nearest[near[closer]] = distances[closer], second
        self._look_up(second, least[second + 1 :])

    def _look_up(self, slot: int, least: NDArray[np.float32] | None = None) -> None:
        """Find the nearest after `slot`, given lower bounds of the squared distances to all after it."""
        if least is None:
            least = self._least_squares(slot, slot + 1)
        least = np.where(self.sizes[slot + 1 :] > 0, least, np.float32(np.inf))
        self.bounds[slot], self.nearest[slot] = np.inf, -1
        if not len(least) or not np.isfinite(least[guess := int(np.argmin(least))]):
            return
        (farthest,) = self._distances(self.points[slot], np.array([slot + 1 + guess]))
        candidates = slot + 1 + np.flatnonzero(least <= farthest**2)
        distances = self._distances(self.points[slot], candidates)
        best = int(np.argmin(distances))
        self.bounds[slot], self.nearest[slot] = distances[best], candidates[best]

    def _least_squares(self, slot: int, start: int) -> NDArray[np.float32]:
        """Lower bounds of the squared distances from `slot` to the slots from `start` on."""
        least: NDArray[np.float32] = self.leading[start:] @ self.leading[slot]
        least *= -2
        least += self.squares[start:]
        least += self.squares[slot] - np.float32(_SLACK * self.scale)
        return least

    def _distances(self, point: Floats, slots: Indices) -> Floats:
        difference = self.points[slots] - point
        return np.asarray(np.sqrt(np.einsum("ij,ij->i", difference, difference)))

    def _project(self) -> None:
        self.leading = np.ascontiguousarray(self.points[:, :_LEADING], dtype=np.float32)
        self.squares = np.einsum("ij,ij->i", self.leading, self.leading)

    def _close_gaps(self) -> None:
        """Drop the empty slots; the others keep their order."""
        kept = self.sizes > 0
        slots = np.append(np.where(kept, np.cumsum(kept) - 1, -1), -1)  # the last stands for "not known"
        self.nearest = slots[self.nearest[kept]]
        self.points, self.sizes, self.labels = self.points[kept], self.sizes[kept], self.labels[kept]
        self.bounds = self.bounds[kept]
        self._project()


def _rotated(points: Floats) -> Floats:
    """The points in coordinates of falling variance; distances stay."""
    centred = points - points.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    return np.ascontiguousarray(centred @ axes[:, ::-1])


def _nearest_after(points: Floats) -> Iterator[tuple[Indices, Indices]]:
    """Rows, and for each the nearest of the rows after it; in blocks. The last row has none."""
    count = len(points)
    squares = np.einsum("ij,ij->i", points, points)
    size = max(1, _BLOCK // count)
    for start in range(0, count - 1, size):
        rows = np.arange(start, min(start + size, count - 1))
        after = np.arange(start + 1, count)
        squared = points[start + 1 :] @ points[rows].T
        squared *= -2
        squared += squares[start + 1 :, None]
        squared[after[:, None] <= rows] = np.inf
        yield rows, after[np.argmin(squared, axis=0)]
