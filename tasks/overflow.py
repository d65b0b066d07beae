"""When does overflow pay? A pure function over what is known of the fleet and of RunPod.

The valve opens while some waiting job would, in its turn, be done by the own GPUs after its deadline, and RunPod would
have the first in line done before that one's own deadline or, where it is late anyway, sooner than it would be here.
It opens for as few jobs at RunPod as bring all others in in time; where nothing does, for as few as leave the fewest
late. Without a GPU worker it is open. Once open it closes when all are in time with a margin, so that it does not flap.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.forecast import Child

MARGIN_SECONDS = 60.0
"""An open valve closes when every waiting job would be done so long before its deadline."""
MOST_FAILURES = 0.5
"""A provider that fails more often gets nothing."""


@dataclass(frozen=True)
class Waiting:
    """A job that waits. Its deadline is in seconds from now, and may be over.

    Attributes:
        audio_seconds: Its recording's length, as far as it is known.
        due_seconds: Until its deadline.
        may_leave: Whether it may be done by a provider.
    """

    audio_seconds: float
    due_seconds: float
    may_leave: bool = True


@dataclass(frozen=True)
class Remote:
    """What is known of the provider.

    Attributes:
        delay_seconds: From submission to the begin of the work, as of now: a cold start, unless it is warm.
        seconds_per_audio_hour: What it takes for an hour of audio then.
        failure_share: Of its late runs, how many failed.
        in_flight: Jobs that are there now.
        broken: Why nothing can be sent there at all.
    """

    delay_seconds: float
    seconds_per_audio_hour: float
    failure_share: float = 0.0
    in_flight: int = 0
    broken: str | None = None


@dataclass(frozen=True)
class Limits:
    """What the operator allows.

    Attributes:
        max_in_flight: Jobs at the provider at one time.
        budget_left_usd: What may still be reserved today.
        bound_usd: What is reserved for one job.
    """

    max_in_flight: int
    budget_left_usd: float
    bound_usd: float


@dataclass(frozen=True)
class Decision:
    """The valve's position.

    Attributes:
        slots: So many jobs may be at the provider; 0 is closed.
        reclaims: So many of those that only wait there are wanted at home.
        why: In one sentence.
        last_seconds: When the last of the waiting jobs would be done without the provider; None where never.
    """

    slots: int
    reclaims: int
    why: str
    last_seconds: float | None = 0.0


def decide(
    waiting: Sequence[Waiting], children: Sequence[Child], remote: Remote, limits: Limits, *, was_open: bool = False
) -> Decision:
    """How many jobs may be at the provider now.

    Args:
        waiting: First in line first.
        children: Of the GPU workers that live.
        remote: The provider.
        limits: The operator's.
        was_open: Whether the valve is open now.
    """
    idle = sum(child.free_in_seconds <= 0 for child in children)
    if not waiting:
        return Decision(0, min(idle, remote.in_flight), "closed: nothing waits")
    alone = _schedule(waiting, children)
    last = max(alone) if children else None
    head = next((index for index, job in enumerate(waiting) if job.may_leave), None)
    if head is None:
        return Decision(0, 0, "closed: what waits must stay in the house", last)
    if shut := _shut(remote, limits):
        return Decision(0, 0, f"closed: {shut}", last)
    affordable = remote.in_flight + int(limits.budget_left_usd / limits.bound_usd) if limits.bound_usd else 10**9
    most = min(limits.max_in_flight, affordable)
    if not children:
        wanted = remote.in_flight + sum(job.may_leave for job in waiting)
        return Decision(min(most, wanted), 0, f"open for {min(most, wanted)}: no GPU worker is alive", None)
    margin = MARGIN_SECONDS if was_open else 0.0
    late = _late(waiting, alone, margin)
    if not late:
        slack = min(job.due_seconds - finish for job, finish in zip(waiting, alone, strict=True))
        return Decision(0, 0, f"closed: all {len(waiting)} waiting are in time here, by {slack:.0f} s or more", last)
    there = remote.delay_seconds + _seconds(waiting[head], remote.seconds_per_audio_hour)
    there /= 1 - remote.failure_share
    here, due = alone[head], waiting[head].due_seconds
    if there > due and there >= here:
        why = f"closed: {_said(late, waiting, alone)}, but RunPod would need {there:.0f} s for the next one"
        return Decision(0, 0, f"{why}, and the GPUs here {here:.0f} s", last)
    needed = _fewest(waiting, children, remote, most, margin)
    if needed <= 0:
        return Decision(0, 0, f"closed: {_said(late, waiting, alone)}, and RunPod would change nothing", last)
    why = f"open for {needed}: {_said(late, waiting, alone)}, RunPod would have the next one done in {there:.0f} s"
    return Decision(needed, 0, why, last)


def _shut(remote: Remote, limits: Limits) -> str | None:
    """What keeps the valve shut, whoever waits."""
    if remote.broken:
        return remote.broken
    if remote.failure_share > MOST_FAILURES:
        return f"RunPod failed {remote.failure_share:.0%} of its last runs"
    if limits.budget_left_usd < limits.bound_usd and not remote.in_flight:
        return f"today's budget has {limits.budget_left_usd:.2f} USD left, and a job may cost {limits.bound_usd:.2f}"
    return None


def _fewest(waiting: Sequence[Waiting], children: Sequence[Child], remote: Remote, most: int, margin: float) -> int:
    """The smallest number of jobs at the provider that leaves the fewest late, and those the least; 0 is no help."""
    best, least = 0, _lateness(waiting, _schedule(waiting, children), margin)
    for count in range(1, most + 1):
        still = _lateness(waiting, _schedule(waiting, children, remote, count), margin)
        if still < least:
            best, least = count, still
        if not still[0]:
            break
    return best


def _lateness(waiting: Sequence[Waiting], done: Sequence[float], margin: float) -> tuple[int, float]:
    """How many are late, and by how many seconds in all."""
    late = _late(waiting, done, margin)
    return len(late), round(sum(done[index] + margin - waiting[index].due_seconds for index in late))


def _schedule(
    waiting: Sequence[Waiting], children: Sequence[Child], remote: Remote | None = None, count: int = 0
) -> list[float]:
    """When each job is done, in seconds from now, if whoever is free first takes the first in line that it may.

    Those that are at the provider already hold their places there for as long as a job of the mean length takes.
    """
    here = [Child(max(0.0, child.free_in_seconds), child.seconds_per_audio_second) for child in children]
    there: list[float] = []
    delay, speed = (remote.delay_seconds, remote.seconds_per_audio_hour) if remote else (0.0, 0.0)
    if remote is not None:
        mean = sum(job.audio_seconds for job in waiting) / len(waiting)
        held = delay + mean / 3600 * speed
        there = [held if place < remote.in_flight else 0.0 for place in range(count)]
    heapq.heapify(here)
    heapq.heapify(there)
    done = []
    for job in waiting:
        if there and job.may_leave and (not here or there[0] < here[0].free_in_seconds):
            ready = heapq.heappop(there) + delay + _seconds(job, speed)
            heapq.heappush(there, ready)
        elif here:
            child = here[0].after(job.audio_seconds)
            heapq.heapreplace(here, child)
            ready = child.free_in_seconds
        else:
            ready = float("inf")
        done.append(ready)
    return done


def _late(waiting: Sequence[Waiting], done: Sequence[float], margin: float) -> list[int]:
    """Those that are done after their deadlines, by their places in line."""
    pairs = zip(waiting, done, strict=True)
    return [index for index, (job, ready) in enumerate(pairs) if ready + margin > job.due_seconds]


def _said(late: Sequence[int], waiting: Sequence[Waiting], done: Sequence[float]) -> str:
    by = done[late[0]] - waiting[late[0]].due_seconds
    place = f"number {late[0] + 1} of {len(waiting)} waiting"
    return f"{place} would be {by:.0f} s late here" if by > 0 else f"{place} would be in time by {-by:.0f} s only"


def _seconds(job: Waiting, seconds_per_audio_hour: float) -> float:
    return job.audio_seconds / 3600 * seconds_per_audio_hour
