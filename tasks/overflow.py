"""When does overflow pay? Pure: what is known of the fleet, of RunPod and of the budget goes in, a decision comes out.

The valve opens while some waiting job would, in its turn, be done here after its deadline, and RunPod would have the
job that the bridge takes, the first in line that may leave the house, done before its own deadline or, where that one
is late anyway, sooner than it would be here; and while the budget holds. Without a GPU worker no job is ever done here.

It opens for as few jobs at a time as do: the line is played through with 0, 1, 2, … places at RunPod, and the first
number that nobody is late with is enough; where there is none, the smallest one that leaves the fewest late. A worker
at RunPod that takes three jobs in a row pays for one cold start, three that take one each pay for three.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate

from tasks.line import IDLE_SECONDS, Fleet, Job, Line, Remote, Worker

__all__ = ["Decision", "Fleet", "Job", "Limits", "Remote", "Worker", "decide"]


@dataclass(frozen=True)
class Limits:
    """What the operator allows.

    Attributes:
        max_in_flight: Jobs at RunPod at one time.
        budget_left_usd: What may still be reserved today; what is in flight has its reservation.
        usd_per_second: What a second of a worker costs there.
        usd_per_job: What is reserved for one job, an upper bound.
        dry_run: Decide and explain, send nothing.
    """

    max_in_flight: int
    budget_left_usd: float
    usd_per_second: float
    usd_per_job: float
    dry_run: bool = False


@dataclass(frozen=True)
class Decision:
    """The valve's position.

    Attributes:
        slots: So many jobs may be in flight at RunPod now; 0 is closed.
        why: One sentence for the operator.
        reclaims: So many of those that RunPod has not started should come home, where they would run at once.
        wanted: What `slots` would be without the dry run.
        head_finish_at: When the first waiting job would be done if nothing more left; None: none waits, or never.
        last_finish_at: The same for the last one.
    """

    slots: int
    why: str
    reclaims: int = 0
    wanted: int = 0
    head_finish_at: float | None = None
    last_finish_at: float | None = None


def decide(fleet: Fleet, remote: Remote, limits: Limits, now: float, before: Decision | None = None) -> Decision:
    """How many jobs may be at RunPod now, and why.

    Takes about a millisecond for each place at RunPod that is tried while 500 jobs wait.

    Args:
        fleet: The GPU workers, and what waits.
        remote: RunPod.
        limits: The operator's.
        now: Seconds on the clock of the deadlines.
        before: The decision that holds now; None where there is none.
    """
    line = Line(fleet, remote, now, was_open=before is not None and before.wanted > 0)
    reclaims = min(remote.in_queue, max(0, line.idle - len(fleet.waiting) - fleet.more_jobs))
    if not fleet.waiting:
        return Decision(0, "closed: nothing waits", reclaims)
    slots, why = _position(line, limits)
    done_in = line.alone[0], max(line.alone)
    head_at, last_at = (None if math.isinf(seconds) else now + seconds for seconds in done_in)
    if limits.dry_run and slots:
        return Decision(0, f"dry run: would be {why}", reclaims, slots, head_at, last_at)
    return Decision(slots, why, reclaims, slots, head_at, last_at)


def _position(line: Line, limits: Limits) -> tuple[int, str]:
    """So many places, and the reason."""
    if not any(line.late(line.alone)):
        return 0, f"closed: {_in_time(line)}"
    late = _who_is_late(line)
    if not line.next:
        stays = (
            "a free GPU worker takes it at once"
            if any(job.may_leave for job in line.jobs)
            else "nothing that waits may leave the house"
        )
        return 0, f"closed: {late}, but {stays}"
    affordable = _affordable(line, limits)
    if shut := _shut(line.remote, limits, affordable):
        return 0, f"closed: {late}, but {shut}"
    there, here = line.there(line.next[0]), line.alone[line.next[0]]
    sooner = f"RunPod would have the next one done in {there:.0f} s"
    if not line.helps(line.next[0], there):
        return 0, f"closed: {late}, but {sooner}, later than here ({here:.0f} s)"
    most = min(limits.max_in_flight, len(line.remote.in_flight_seconds) + affordable)
    needed = line.fewest(most if line.remote.max_workers is None else min(most, line.remote.max_workers))
    if not needed:
        return 0, f"closed: {late}, but more jobs at RunPod would change nothing"
    return needed, f"open for {needed}: {late}, {sooner}"


def _shut(remote: Remote, limits: Limits, affordable: int) -> str | None:
    """What keeps the valve shut, whoever waits."""
    if remote.breaker is not None:
        return f"the breaker is open: {remote.breaker}"
    if remote.max_workers is not None and remote.max_workers < 1:
        return "RunPod has no worker for us: it throttles all of them, or max workers is 0"
    if limits.max_in_flight < 1:
        return "no job may be in flight"
    if not affordable:
        left, needed = max(0.0, limits.budget_left_usd), limits.usd_per_job
        return f"today's budget has {left:.2f} USD left, and a job may cost {needed:.2f} or more"
    return None


def _affordable(line: Line, limits: Limits) -> int:
    """How many of the next in line the budget has room for, each at its upper bound or, if more, as expected."""
    jobs = (line.jobs[index] for index in line.next[: limits.max_in_flight])
    seconds = (line.remote.seconds(job, warm=False) + IDLE_SECONDS for job in jobs)
    usd = accumulate(max(limits.usd_per_job, each * limits.usd_per_second) for each in seconds)
    return sum(total <= limits.budget_left_usd for total in usd)


def _who_is_late(line: Line) -> str:
    """The first that would be late here; where the valve is only kept open, the one that would be closest to it."""
    if not line.fleet.workers:
        return "no GPU worker is alive"
    spare, listed = line.spare(), len(line.fleet.waiting)
    late = (index for index, seconds in enumerate(spare) if seconds < 0)
    index = next(late, spare.index(min(spare)))
    who = f"the {_ordinal(index + 1)} waiting job" if index < listed else f"a job behind the first {listed}"
    if spare[index] < 0:
        return f"{who} would be {-spare[index]:.0f} s late here"
    return f"{who} would be only {spare[index]:.0f} s early here"


def _in_time(line: Line) -> str:
    count = line.fleet.more_jobs + len(line.fleet.waiting)
    spare = min(line.spare())
    if count == 1:
        return f"the waiting job would be done here {spare:.0f} s before its deadline"
    return f"all {count} waiting jobs would be done here {spare:.0f} s or more before their deadlines"


def _ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th …"""
    teens = number % 100 in (11, 12, 13)
    return f"{number}{'th' if teens else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"
