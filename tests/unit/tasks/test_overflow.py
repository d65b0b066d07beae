"""When the valve opens, how far, and what it says: a table of the rules, and what holds for every fleet."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.overflow.decision import OPENING_SPARE_SECONDS, STAYING_SPARE_SECONDS, Decision, Limits, decide
from tasks.overflow.line import Fleet, GpuWorker, Remote, RemoteJob, WaitingJob

NOW = 1_000_000.0
HOUR = 3600.0
PACE = 120.0
"""An hour of audio takes two minutes here and at RunPod."""
LIMITS = Limits(max_in_flight=3, budget_left_usd=10.0, job_cost_bound_usd=0.5)
REMOTE = Remote(cold_start_seconds=60, queue_delay_seconds=0, seconds_per_audio_hour=PACE, failure_share=0.0)
OPEN = Decision(slots=1, pays=1, why="open for 1: as it was")


def line(*deadlines: float, hours: float = 1.0, may_leave: bool = True) -> tuple[WaitingJob, ...]:
    """Jobs of so many hours, each with the seconds until its deadline."""
    return tuple(WaitingJob(hours * HOUR, NOW + seconds, may_leave) for seconds in deadlines)


def busy(*seconds_left: float) -> tuple[GpuWorker, ...]:
    """A worker for each job that runs."""
    return tuple(GpuWorker(PACE, 1, (seconds,)) for seconds in seconds_left)


def away(*seconds_left: float, queued: bool = False) -> tuple[RemoteJob, ...]:
    return tuple(RemoteJob(seconds, queued) for seconds in seconds_left)


LATE = Fleet(busy(0), line(*[900] * 10))
"""One GPU with ten jobs of two minutes for a quarter of an hour: the last three would be late."""

CLOSED = [
    (Fleet(busy(50)), REMOTE, LIMITS, "nothing is waiting"),
    (Fleet(busy(0), line(*[900] * 10, may_leave=False)), REMOTE, LIMITS, "nothing that waits may leave"),
    (Fleet((), line(900, may_leave=False)), REMOTE, LIMITS, "nothing that waits may leave"),
    (Fleet(busy(0), line(900, 900)), REMOTE, LIMITS, "all that wait will be in time here, the tightest with 660 s"),
    (LATE, replace(REMOTE, breaker="401 Unauthorized"), LIMITS, "the breaker is open: 401 Unauthorized"),
    (LATE, replace(REMOTE, throttled=True), LIMITS, "RunPod has no GPU for a worker (throttled)"),
    (LATE, replace(REMOTE, failure_share=0.6), LIMITS, "RunPod fails 60% of its jobs"),
    (LATE, REMOTE, replace(LIMITS, max_in_flight=0), "no job may be in flight"),
    (LATE, REMOTE, replace(LIMITS, budget_left_usd=0.49), "0.49 USD left for today, and the next job may cost 0.50"),
    (LATE, REMOTE, replace(LIMITS, budget_left_usd=-1.0), "0.00 USD left"),
    (LATE, replace(REMOTE, cold_start_seconds=math.inf), LIMITS, "jobs at RunPod would not change that"),
    (LATE, replace(REMOTE, cold_start_seconds=5000), LIMITS, "jobs at RunPod would not change that"),
    (Fleet((), line(900)), replace(REMOTE, breaker="no such endpoint"), LIMITS, "no such endpoint"),
    (Fleet((), line(900)), replace(REMOTE, throttled=True), LIMITS, "throttled"),
    (Fleet((), line(900)), REMOTE, replace(LIMITS, budget_left_usd=0.0), "the budget has 0.00 USD left"),
]


@pytest.mark.parametrize(("fleet", "remote", "limits", "reason"), CLOSED)
def test_it_is_closed_and_says_why(fleet: Fleet, remote: Remote, limits: Limits, reason: str) -> None:
    decision = decide(fleet, remote, limits, NOW)
    assert (decision.slots, decision.pays) == (0, 0)
    assert decision.why.startswith("closed: ")
    assert reason in decision.why


OPENED = [
    (LATE, REMOTE, LIMITS, 2, "the 10th waiting job would be 300 s late here, RunPod would have the first"),
    (Fleet(busy(0), line(*[900] * 7)), REMOTE, LIMITS, 1, "in time here by only 60 s"),
    (Fleet(busy(0), line(*[900] * 40)), REMOTE, LIMITS, 3, "the 40th waiting job would be 3900 s late here"),
    (LATE, replace(REMOTE, throttled=True, idle_workers=1), LIMITS, 1, "300 s late"),
    (LATE, REMOTE, replace(LIMITS, budget_left_usd=0.6), 1, "(2 would pay, but the budget holds for no more)"),
    (LATE, REMOTE, replace(LIMITS, max_in_flight=1), 1, "300 s late"),
    (Fleet((), line(9000)), REMOTE, LIMITS, 1, "no GPU worker takes jobs and 1 that may leave wait"),
    (Fleet((), line(*[600] * 9)), REMOTE, LIMITS, 3, "no GPU worker takes jobs and 9 that may leave wait"),
    (Fleet((), line(600)), replace(REMOTE, failure_share=0.9), LIMITS, 1, "no GPU worker takes jobs"),
]


@pytest.mark.parametrize(("fleet", "remote", "limits", "slots", "reason"), OPENED)
def test_it_is_open_as_far_as_pays(fleet: Fleet, remote: Remote, limits: Limits, slots: int, reason: str) -> None:
    decision = decide(fleet, remote, limits, NOW)
    assert (decision.slots, decision.pays) == (slots, slots)
    assert decision.why.startswith(f"open for {slots}: ")
    assert reason in decision.why


def test_the_head_is_not_sent_where_runpod_would_be_late_with_it_and_no_sooner() -> None:
    fleet = Fleet(busy(0), line(150, *[900] * 9))
    assert decide(fleet, REMOTE, LIMITS, NOW).why.endswith("done in 180 s, too late and no sooner than here")
    warm = decide(fleet, replace(REMOTE, idle_workers=1), LIMITS, NOW)
    assert warm.slots > 0


def test_a_head_that_is_late_anyway_is_sent_where_runpod_is_sooner() -> None:
    fleet = Fleet(busy(400), line(100, 100))
    assert decide(fleet, REMOTE, LIMITS, NOW).slots > 0
    assert decide(fleet, replace(REMOTE, cold_start_seconds=450), LIMITS, NOW).slots == 0


def test_the_head_is_the_first_that_may_leave() -> None:
    stays = WaitingJob(4 * HOUR, NOW + 900, may_leave=False)
    decision = decide(Fleet(busy(0), (stays, *line(*[900] * 6))), REMOTE, LIMITS, NOW)
    assert "RunPod would have the first that may leave done in 180 s" in decision.why


def test_one_late_job_that_cannot_leave_is_helped_by_those_before_it() -> None:
    fleet = Fleet(busy(0), (*line(*[3000] * 5), WaitingJob(HOUR, NOW + 500, may_leave=False)))
    assert decide(fleet, REMOTE, LIMITS, NOW).slots > 0


def test_jobs_in_flight_take_up_slots_until_they_end() -> None:
    """Eight jobs need one slot that is free now; where it is busy for long, another one."""
    fleet = Fleet(busy(0), line(*[900] * 8))
    assert decide(fleet, REMOTE, LIMITS, NOW).slots == 1
    assert decide(fleet, replace(REMOTE, jobs=away(10)), LIMITS, NOW).slots == 1
    assert decide(fleet, replace(REMOTE, jobs=away(800)), LIMITS, NOW).slots == 2


def test_what_runpod_fails_is_done_again_here_so_more_may_be_needed() -> None:
    fleet = Fleet(busy(0), line(*[900] * 8))
    reliable = decide(fleet, REMOTE, LIMITS, NOW).slots
    assert decide(fleet, replace(REMOTE, failure_share=0.4), LIMITS, NOW).slots > reliable


def test_it_stays_open_until_all_are_in_time_with_more_to_spare_than_it_opens_for() -> None:
    between = (OPENING_SPARE_SECONDS + STAYING_SPARE_SECONDS) / 2
    fleet = Fleet(busy(0), line(*[10 * PACE + between] * 10))
    assert decide(fleet, REMOTE, LIMITS, NOW).slots == 0
    assert decide(fleet, REMOTE, LIMITS, NOW, before=OPEN).slots == 1
    calm = Fleet(busy(0), line(*[10 * PACE + STAYING_SPARE_SECONDS + 1] * 10))
    assert decide(calm, REMOTE, LIMITS, NOW, before=OPEN).slots == 0


def test_a_dry_run_says_what_it_would_do_and_flaps_no_more_than_a_real_one() -> None:
    dry = decide(LATE, REMOTE, replace(LIMITS, dry_run=True), NOW)
    assert (dry.slots, dry.pays) == (0, 2)
    assert dry.why.startswith("dry run, would be open for 2: the 10th")
    real = decide(LATE, REMOTE, LIMITS, NOW)
    assert decide(LATE, REMOTE, LIMITS, NOW, before=dry) == decide(LATE, REMOTE, LIMITS, NOW, before=real)


@pytest.mark.parametrize(
    ("fleet", "jobs", "reclaim"),
    [
        (Fleet((GpuWorker(PACE),)), away(100, 100, queued=True), 1),
        (Fleet((GpuWorker(PACE, 3, (5,)),)), away(100, queued=True), 1),
        (Fleet((GpuWorker(PACE),)), away(100), 0),
        (Fleet((GpuWorker(PACE),), line(900)), away(100, queued=True), 0),
        (Fleet(busy(5)), away(100, queued=True), 0),
        (Fleet(()), away(100, queued=True), 0),
    ],
)
def test_what_waits_at_runpod_comes_home_to_gpus_that_idle(
    fleet: Fleet, jobs: tuple[RemoteJob, ...], reclaim: int
) -> None:
    assert decide(fleet, replace(REMOTE, jobs=jobs), LIMITS, NOW).reclaim == reclaim


def test_the_forecast_of_the_line() -> None:
    decision = decide(Fleet(busy(30, 50), line(9000, 9000, 9000)), REMOTE, LIMITS, NOW)
    assert (decision.head_finish_at, decision.last_finish_at) == (NOW + 150, NOW + 270)
    behind = decide(Fleet(busy(0, 0), line(9000), behind=20, behind_audio_seconds=HOUR), REMOTE, LIMITS, NOW)
    assert behind.last_finish_at == pytest.approx(NOW + 21 * PACE / 2)
    nobody = decide(Fleet((), line(9000)), REMOTE, LIMITS, NOW)
    assert (nobody.head_finish_at, nobody.last_finish_at) == (None, None)


SECONDS = st.floats(0, 5000)
PACES = st.floats(10, 1000)
WORKERS = st.lists(
    st.builds(GpuWorker, PACES, st.integers(1, 3), st.lists(SECONDS, max_size=3).map(tuple)), max_size=3
).map(tuple)
WAITING = st.lists(
    st.builds(WaitingJob, st.floats(1, 30000), st.floats(NOW - 1000, NOW + 10000), st.booleans()), max_size=15
).map(tuple)
FLEETS = st.builds(Fleet, WORKERS, WAITING)
REMOTES = st.builds(
    Remote,
    jobs=st.lists(st.builds(RemoteJob, SECONDS, st.booleans()), max_size=4).map(tuple),
    idle_workers=st.integers(0, 3),
    throttled=st.booleans(),
    cold_start_seconds=SECONDS,
    queue_delay_seconds=st.floats(0, 60),
    seconds_per_audio_hour=PACES,
    failure_share=st.floats(0, 1),
    breaker=st.none() | st.just("HTTP 401"),
)
ALL_LIMITS = st.builds(Limits, st.integers(0, 6), st.floats(-1, 5), st.floats(0, 1), st.booleans())
BEFORE = st.none() | st.just(OPEN) | st.just(Decision(slots=0, why="closed: nothing is waiting"))
REASONS = (
    r"nothing is waiting|nothing that waits may leave the house|all that wait will be in time here, .* to spare"
    r"|(the \d+(st|nd|rd|th) waiting job would be (\d+ s late here|in time here by only \d+ s)"
    r"|no GPU worker takes jobs and \d+ that may leave wait), (but .+|RunPod would have the first .+)"
)


@given(FLEETS, REMOTES, ALL_LIMITS, BEFORE)
def test_limits_hold_and_the_sentence_says_why(
    fleet: Fleet, remote: Remote, limits: Limits, before: Decision | None
) -> None:
    decision = decide(fleet, remote, limits, NOW, before)
    assert 0 <= decision.slots <= limits.max_in_flight
    assert decision.slots == (0 if limits.dry_run else decision.pays)
    new_jobs = max(0, decision.pays - len(remote.jobs))
    assert new_jobs * limits.job_cost_bound_usd <= max(0.0, limits.budget_left_usd) + 1e-9
    assert new_jobs <= sum(job.may_leave for job in fleet.waiting)
    state = f"open for {decision.pays}" if decision.pays else "closed"
    assert re.fullmatch(rf"(dry run, would be )?{state}: ({REASONS})", decision.why)
    assert 0 <= decision.reclaim <= min(fleet.idle_slots, len(remote.jobs))
    if not fleet.waiting or limits.budget_left_usd <= 0 or remote.breaker:
        assert decision.pays == 0


@given(FLEETS, REMOTES, ALL_LIMITS, BEFORE, st.floats(0, 5))
def test_more_budget_never_means_fewer_slots(
    fleet: Fleet, remote: Remote, limits: Limits, before: Decision | None, more_usd: float
) -> None:
    richer = replace(limits, budget_left_usd=limits.budget_left_usd + more_usd)
    assert decide(fleet, remote, richer, NOW, before).pays >= decide(fleet, remote, limits, NOW, before).pays


@given(FLEETS.filter(lambda fleet: fleet.workers), REMOTES, ALL_LIMITS, BEFORE)
def test_where_all_are_in_time_with_enough_to_spare_nothing_is_sent(
    fleet: Fleet, remote: Remote, limits: Limits, before: Decision | None
) -> None:
    slowest = max(worker.seconds_per_audio_hour for worker in fleet.workers)
    work = sum(job.audio_seconds for job in fleet.waiting) / HOUR * slowest
    running = max((left for worker in fleet.workers for left in worker.seconds_left), default=0.0)
    calm = NOW + 1 + running + work + STAYING_SPARE_SECONDS
    waiting = tuple(replace(job, deadline_at=calm) for job in fleet.waiting)
    assert decide(replace(fleet, waiting=waiting), remote, limits, NOW, before).pays == 0


@given(WAITING.filter(lambda jobs: any(job.may_leave for job in jobs)), BEFORE)
def test_without_a_gpu_worker_it_is_open_at_once(waiting: tuple[WaitingJob, ...], before: Decision | None) -> None:
    assert decide(Fleet((), waiting), REMOTE, LIMITS, NOW, before).slots > 0
