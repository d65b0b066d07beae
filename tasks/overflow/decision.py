"""When overflow pays: from what is known of the fleet and of RunPod, how many jobs may be there. Pure.

The valve is open while some waiting job would, in order, be done here after its deadline, and RunPod would have the
first in line that may leave done in time or, where it will be late anyway, sooner than it would be done here, and the
budget holds. It opens no further than pays: the line is gone through with 0, 1, 2 … jobs at RunPod, and the first
number with which all are in time is taken.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tasks.overflow.line import Fleet, Line, Remote

OPENING_SPARE_SECONDS = 300.0
"""A forecast is made of estimates; the valve opens where it sees a job done by less than this before its deadline."""
STAYING_SPARE_SECONDS = 500.0
"""It closes again when all have this to spare: so it does not flap, and fewer cold starts are paid for."""
MOST_FAILURES = 0.5
"""Above this share of failures RunPod is no help; half of what it is paid for is done again here."""


@dataclass(frozen=True)
class Limits:
    """What the operator allows.

    Attributes:
        max_in_flight: Jobs at RunPod at one time.
        budget_left_usd: What today's budget has left, with all that is reserved taken off.
        job_cost_bound_usd: What the ledger would reserve for the first in line that may leave.
        dry_run: Decide and say so, but send nothing.
    """

    max_in_flight: int
    budget_left_usd: float
    job_cost_bound_usd: float
    dry_run: bool = False

    @property
    def affordable(self) -> int:
        """How many more jobs the budget holds for, up to `max_in_flight`."""
        if self.budget_left_usd <= 0:
            return 0
        jobs = self.budget_left_usd // self.job_cost_bound_usd if self.job_cost_bound_usd > 0 else math.inf
        return int(min(jobs, max(0, self.max_in_flight)))


@dataclass(frozen=True)
class Decision:
    """What the bridge does until the next one.

    Attributes:
        slots: How many jobs may be at RunPod; the bridge takes one while fewer are. 0 is a closed valve.
        why: One sentence for the operator.
        reclaim: How many jobs that wait at RunPod are to come home, because GPUs idle here.
        pays: What `slots` would be if this were no dry run.
        head_finish_at: When the first in line would be done here. None where none waits, or no GPU worker lives.
        last_finish_at: The same of the last in line.
    """

    slots: int
    why: str
    reclaim: int = 0
    pays: int = 0
    head_finish_at: float | None = None
    last_finish_at: float | None = None


def decide(fleet: Fleet, remote: Remote, limits: Limits, now: float, before: Decision | None = None) -> Decision:
    """How many jobs may be at RunPod now, and why. `before` is the last decision, so that the valve does not flap."""
    was_open = before is not None and before.pays > 0
    line = Line(fleet, remote, now, STAYING_SPARE_SECONDS if was_open else OPENING_SPARE_SECONDS)
    pays, why = _judge(line, limits)
    state = f"open for {pays}" if pays else "closed"
    has_finish = fleet.workers and fleet.waiting
    return Decision(
        slots=0 if limits.dry_run else pays,
        why=f"dry run, would be {state}: {why}" if limits.dry_run else f"{state}: {why}",
        reclaim=reclaimable(fleet, remote),
        pays=pays,
        head_finish_at=line.here.finishes[0] if has_finish else None,
        last_finish_at=line.here.last_finish_at if has_finish else None,
    )


def _judge(line: Line, limits: Limits) -> tuple[int, str]:
    """How many jobs at RunPod pay, and why so many or none."""
    if not line.fleet.waiting:
        return 0, "nothing is waiting"
    if line.head is None:
        return 0, "nothing that waits may leave the house"
    if not line.here.late:
        return 0, f"all that wait will be in time here, the tightest with {-line.tightest[0]:.0f} s to spare"
    trouble = _trouble(line)
    obstacle = _obstacle(line, limits)
    if obstacle:
        return 0, f"{trouble}, but {obstacle}"
    slots = line.cheapest(limits.max_in_flight)
    if not slots:
        return 0, f"{trouble}, but jobs at RunPod would not change that"
    head, here_at = line.jobs[line.head], line.here.finishes[line.head]
    there_at = line.finish_there(head, slots)
    there = f"RunPod would have the first that may leave done in {there_at - line.now:.0f} s"
    if there_at > head.deadline_at and there_at >= here_at:
        return 0, f"{trouble}, but {there}, too late and no sooner than here"
    within = len(line.remote.jobs) + limits.affordable
    narrow = f" ({slots} would pay, but the budget holds for no more)" if within < slots else ""
    return min(slots, within), f"{trouble}, {there}{narrow}"


def _trouble(line: Line) -> str:
    if not line.fleet.workers:
        return f"no GPU worker takes jobs and {len(line.jobs)} that may leave wait"
    over, place = line.tightest
    how = f"{over:.0f} s late here" if over > 0 else f"in time here by only {abs(over):.0f} s"
    return f"the {_ordinal(place + 1)} waiting job would be {how}"


def _obstacle(line: Line, limits: Limits) -> str | None:
    """Why nothing can be sent, whatever waits. Where no GPU worker lives, even a poor RunPod is welcome."""
    remote = line.remote
    if remote.breaker is not None:
        return f"the breaker is open: {remote.breaker}"
    if remote.throttled and not remote.idle_workers and not remote.jobs:
        return "RunPod has no GPU for a worker (throttled)"
    if limits.max_in_flight <= 0:
        return "no job may be in flight"
    if remote.failure_share > MOST_FAILURES and line.fleet.workers:
        return f"RunPod fails {remote.failure_share:.0%} of its jobs"
    if not limits.affordable:
        left, bound = max(0.0, limits.budget_left_usd), limits.job_cost_bound_usd
        return f"the budget has {left:.2f} USD left for today, and the next job may cost {bound:.2f}"
    return None


def reclaimable(fleet: Fleet, remote: Remote) -> int:
    """GPUs that idle, beyond those that take what waits here, take what waits at RunPod."""
    free = fleet.idle_slots - len(fleet.waiting) - fleet.behind
    return max(0, min(free, sum(job.may_come_home for job in remote.jobs)))


def _ordinal(number: int) -> str:
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
