"""Who ran which job when, on the machine's monotonic clock, from the stand-in's journal: runs and their overlaps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

Span = tuple[float, float]


@dataclass(frozen=True)
class Run:
    """One start of one job in one process. `how` is `end`, an error's code, or `died` where the process did."""

    what: str
    pid: int
    began: float
    ended: float
    how: str


@dataclass(frozen=True)
class Overlap:
    """Two runs of one job at a time. `frozen`: the first one's process stood still long enough to lose its lease."""

    first: Run
    second: Run
    frozen: bool

    @property
    def seconds(self) -> float:
        """How long both ran."""
        return min(self.first.ended, self.second.ended) - self.second.began


def runs_of(journal: Iterable[Mapping[str, Any]], last_alive: Mapping[int, float]) -> list[Run]:
    """All runs, by their beginning.

    Args:
        journal: Lines as `tests.standin.read_journal` gives them.
        last_alive: By pid, when a process that has died was last seen alive. A run without an end lasted at least so
            long (and no longer than it takes to look twice).
    """
    runs: list[Run] = []
    open_runs: dict[int, tuple[str, float]] = {}
    for line in journal:
        pid, at = int(line["pid"]), float(line["at"])
        if line["event"] == "load":
            continue
        if pid in open_runs:
            what, began = open_runs.pop(pid)
            runs.append(Run(what, pid, began, at, line["event"] if line["event"] != "start" else "left"))
        if line["event"] == "start":
            open_runs[pid] = line["what"], at
    for pid, (what, began) in open_runs.items():
        runs.append(Run(what, pid, began, max(began, last_alive.get(pid, began)), "died"))
    return sorted(runs, key=lambda run: run.began)


def by_job(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Runs of each job, by their beginning."""
    found: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        found[run.what].append(run)
    return found


def overlaps(runs: Sequence[Run], frozen: Mapping[int, Sequence[Span]], lease_seconds: float) -> list[Overlap]:
    """Pairs of runs of one job that went on at the same time: each run with the one before it that ended last.

    Args:
        runs: In any order.
        frozen: By pid, when its worker stood still.
        lease_seconds: A heartbeat comes every quarter of it, so who stands still for three quarters may lose it.
    """
    found = []
    for runs_of_job in by_job(sorted(runs, key=lambda run: run.began)).values():
        ended_last = accumulate(runs_of_job, lambda one, other: max(one, other, key=lambda run: run.ended))
        for first, second in zip(ended_last, runs_of_job[1:], strict=False):
            if second.began < first.ended:
                stood_still = longest(frozen.get(first.pid, ()), (first.began - lease_seconds, second.began))
                found.append(Overlap(first, second, stood_still >= 0.75 * lease_seconds))
    return found


def longest(spans: Iterable[Span], within: Span) -> float:
    """The longest of the spans, as far as it lies within another."""
    return max((min(end, within[1]) - max(start, within[0]) for start, end in spans), default=0.0)
