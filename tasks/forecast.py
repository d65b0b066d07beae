"""When waiting jobs will be done: list scheduling over the children of the fleet. Pure; seconds from now.

Whoever is free takes the job that is first in line: what Graham called list scheduling ("Bounds on multiprocessing
timing anomalies", SIAM J. Appl. Math. 17, 1969), and what a queue does by itself. What is predicted is therefore what
would happen, not what would be best.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Child:
    """One that takes jobs, one at a time.

    Attributes:
        free_in_seconds: When it has done what it does now.
        seconds_per_audio_second: Its speed, as an RTF.
    """

    free_in_seconds: float
    seconds_per_audio_second: float

    def after(self, audio_seconds: float) -> Child:
        """The same, once it has done a recording of that length as well."""
        busy = audio_seconds * self.seconds_per_audio_second
        return Child(self.free_in_seconds + busy, self.seconds_per_audio_second)


class Forecast:
    """Which child takes which job; jobs are added in the order in which they wait."""

    def __init__(self, children: Iterable[Child]) -> None:
        self._children = list(children)
        heapq.heapify(self._children)
        self._last_in_seconds = max((child.free_in_seconds for child in self._children), default=0.0)

    @property
    def free_in_seconds(self) -> float:
        """When the next job starts; `inf` where nobody works."""
        return self._children[0].free_in_seconds if self._children else math.inf

    def add(self, audio_seconds: float) -> float:
        """The next job goes to whoever is free first; when it is done. `inf` where nobody works."""
        if not self._children:
            self._last_in_seconds = math.inf
            return math.inf
        child = self._children[0].after(audio_seconds)
        heapq.heapreplace(self._children, child)
        self._last_in_seconds = max(self._last_in_seconds, child.free_in_seconds)
        return child.free_in_seconds

    def last_in_seconds(self, more_audio_seconds: float = 0.0) -> float:
        """When all is done: the jobs so far and, as if it could be split at will, so much audio after them."""
        if more_audio_seconds <= 0:
            return self._last_in_seconds
        return max(self._last_in_seconds, self._drained_in_seconds(more_audio_seconds))

    def _drained_in_seconds(self, audio_seconds: float) -> float:
        """When so much audio is done that the children share, each from when it is free."""
        children, left, audio_per_second = sorted(self._children), audio_seconds, 0.0
        for index, child in enumerate(children):
            audio_per_second += 1 / child.seconds_per_audio_second
            until = children[index + 1].free_in_seconds if index + 1 < len(children) else math.inf
            if left <= (until - child.free_in_seconds) * audio_per_second:
                return child.free_in_seconds + left / audio_per_second
            left -= (until - child.free_in_seconds) * audio_per_second
        return math.inf
