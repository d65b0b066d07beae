"""The shipped policy of the valve and the simpler ones beside it; what each does with a load, and who is better."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from benchmarks.overflow_loads import GPU_PACES, Load, arrivals
from benchmarks.overflow_sim import Day, Policy, View
from benchmarks.report import percentiles
from tasks.overflow.decision import Decision, decide, reclaimable

WAITING = (1, 2, 4, 6, 8, 12, 20)
AGES = (30, 60, 120, 240, 360, 600, 900)
CHANCE = 1 / 400
"""Of all jobs: a difference in misses that says nothing."""


def shipped(view: View) -> Decision:
    """`tasks.overflow.decision.decide`."""
    return decide(view.fleet, view.remote, view.limits, view.now, view.before)


def simple(is_open: Callable[[View], bool]) -> Policy:
    """A simpler policy: all that may be in flight while `is_open`, within budget and breaker."""

    def policy(view: View) -> Decision:
        remote = view.remote
        can_send = view.limits.affordable and (not remote.throttled or remote.idle_workers)
        slots = view.limits.max_in_flight if can_send and is_open(view) else 0
        return Decision(slots, "", reclaimable(view.fleet, remote))

    return policy


FAMILIES: Mapping[str, Mapping[str, Policy]] = {
    "shipped": {"": shipped},
    "never": {"": simple(lambda _: False)},
    "queue length": {f"> {n}": simple(lambda view, n=n: len(view.fleet.waiting) > n) for n in WAITING},
    "age of the oldest": {f"> {t} s": simple(lambda view, t=t: view.oldest_seconds > t) for t in AGES},
    "always": {"": simple(lambda _: True)},
}


@dataclass(frozen=True)
class Row:
    """A policy under a load, over all days."""

    load: str
    policy: str
    threshold: str
    jobs: int
    misses: int
    p50_seconds: float
    p95_seconds: float
    usd: float
    sent: int


def measure(load: Load, policy: str, threshold: str, days: int, seed: int) -> Row:
    """All days of a load; day n of it is the same for every policy."""
    decides, outcomes = FAMILIES[policy][threshold], []
    for day in range(days):
        key = f"{seed} {load.name} {day}"
        outcomes.append(Day(arrivals(load, Random(key)), GPU_PACES, load.weather, decides, key).run())
    seconds = [one for outcome in outcomes for one in outcome.finish_seconds]
    p50, p95 = percentiles(seconds)
    misses, sent = sum(one.misses for one in outcomes), sum(one.sent for one in outcomes)
    usd = round(sum(one.usd for one in outcomes), 5)
    return Row(load.name, policy, threshold, len(seconds), misses, round(p50, 1), round(p95, 1), usd, sent)


def best(rows: Sequence[Row]) -> Row:
    """By misses, then by dollars."""
    return min(rows, key=lambda row: (row.misses, row.usd))


def shortfalls(load: Load, rows: Sequence[Row]) -> list[str]:
    """Where the shipped policy falls short under a load; `rows` are all of that load."""
    ours = next(row for row in rows if row.policy == "shipped")
    sending = [row for row in rows if row.policy not in ("shipped", "never")]
    if load.name == "quiet":
        return [f"quiet: {ours.sent} jobs were sent"] if ours.sent else []
    if not load.burst:
        return []
    found = [
        f"{load.name}: {row.policy} {row.threshold} has {row.misses} misses for {row.usd:.2f} USD"
        for row in sending
        if row.misses <= ours.misses and row.usd <= ours.usd
    ]
    fewest = best(sending).misses
    if load.works and ours.misses > fewest + CHANCE * ours.jobs:
        found.append(f"{load.name}: {ours.misses} misses, {fewest} with {best(sending).policy}")
    return found
