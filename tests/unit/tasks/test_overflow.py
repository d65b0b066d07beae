"""The policy of the valve: each rule by a case worked out by hand, and what holds for all fleets."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.overflow import Decision, Fleet, Job, Limits, Remote, Worker, decide

NOW = 1_000_000.0
REMOTE = Remote(
    cold_start_seconds=100, queue_delay_seconds=0, seconds_per_audio_hour=60, failure_share=0, max_workers=None
)
LIMITS = Limits(max_in_flight=5, budget_left_usd=10, usd_per_second=0.001, usd_per_job=0.5)
OPEN = Decision(1, "open for 1: …", wanted=1)


def jobs(count: int, due_in: float, *, hours: float = 1.0, may_leave: bool = True) -> tuple[Job, ...]:
    return (Job(3600 * hours, NOW + due_in, may_leave),) * count


def workers(*busy_seconds: float) -> tuple[Worker, ...]:
    """One for each, which takes a minute for an hour of audio."""
    return tuple(Worker(60, busy_seconds=(seconds,) if seconds else ()) for seconds in busy_seconds)


def fleet(*waiting: tuple[Job, ...], busy: tuple[float, ...] = (60,)) -> Fleet:
    return Fleet(workers(*busy), sum(waiting, ()))


CASES = {
    # One worker is free in 60 s; jobs of 60 s each are done at 120, 180, 240, … A job sent now is done in 160 s.
    "nothing waits": (fleet(), REMOTE, LIMITS, 0, "closed: nothing waits"),
    "all in time": (
        fleet(jobs(3, 250)),
        REMOTE,
        LIMITS,
        0,
        "closed: all 3 waiting jobs would be done here 10 s or more before their deadlines",
    ),
    "the only one in time": (
        fleet(jobs(1, 250)),
        REMOTE,
        LIMITS,
        0,
        "closed: the waiting job would be done here 130 s before its deadline",
    ),
    "the third is late, and the first has time for a cold start": (
        fleet(jobs(3, 200)),
        REMOTE,
        LIMITS,
        1,
        "open for 1: the 3rd waiting job would be 40 s late here, RunPod would have the next one done in 160 s",
    ),
    # Done here by 330: four. Two at one place at RunPod (160, 220), two more at a second one.
    "seven jobs, one place at RunPod is enough": (fleet(jobs(7, 330)), REMOTE, LIMITS, 1, "open for 1: the 5th"),
    "ten jobs, two places": (fleet(jobs(10, 330)), REMOTE, LIMITS, 2, "open for 2: the 5th waiting job"),
    "more than all places can do: as many as there may be": (fleet(jobs(60, 330)), REMOTE, LIMITS, 5, "open for 5"),
    "no use in more places than jobs that would leave": (
        fleet(jobs(2, 165, hours=1.5)),
        replace(REMOTE, cold_start_seconds=50),
        LIMITS,
        1,
        "open for 1: the 2nd waiting job would be 75 s late here, RunPod would have the next one done in 140 s",
    ),
    "RunPod has no time for the first before its deadline, and here it is in time": (
        fleet(jobs(3, 150)),
        REMOTE,
        LIMITS,
        0,
        "closed: the 2nd waiting job would be 30 s late here, but RunPod would have the next one done in 160 s, "
        "later than here (120 s)",
    ),
    "late anyway, sooner at RunPod": (fleet(jobs(1, 50), busy=(600,)), REMOTE, LIMITS, 1, "open for 1: the 1st"),
    "late anyway, sooner here": (fleet(jobs(1, 50), busy=(60,)), REMOTE, LIMITS, 0, "closed: the 1st waiting job"),
    "late since long": (fleet(jobs(4, -500), busy=(600,)), REMOTE, LIMITS, 4, "open for 4: the 1st waiting job would"),
    "the late one stays, those before it may leave": (
        fleet(jobs(2, 500), jobs(1, 200, may_leave=False)),
        REMOTE,
        LIMITS,
        1,
        "open for 1: the 3rd waiting job would be 40 s late here",
    ),
    "the next that may leave stands behind one that may not": (
        fleet(jobs(1, 900, may_leave=False), jobs(2, 200)),
        REMOTE,
        LIMITS,
        1,
        "open for 1: the 3rd waiting job would be 40 s late here",
    ),
    "nothing may leave": (
        fleet(jobs(3, 200, may_leave=False)),
        REMOTE,
        LIMITS,
        0,
        "closed: the 3rd waiting job would be 40 s late here, but nothing that waits may leave the house",
    ),
    "a free worker takes what is late": (
        fleet(jobs(1, 30), busy=(0,)),
        REMOTE,
        LIMITS,
        0,
        "closed: the 1st waiting job would be 30 s late here, but a free GPU worker takes it at once",
    ),
    # With one place the slow worker still takes the third, at 90 s; with two nothing is left for it.
    "two workers, one of them slow": (
        Fleet((Worker(60, busy_seconds=(60,)), Worker(600, busy_seconds=(90,))), jobs(3, 600)),
        REMOTE,
        LIMITS,
        2,
        "open for 2: the 2nd waiting job would be 90 s late here",
    ),
    "a worker that runs two at a time": (
        Fleet((Worker(60, slots=2, busy_seconds=(60, 60)),), jobs(4, 200)),
        REMOTE,
        LIMITS,
        0,
        "closed: all 4 waiting jobs would be done here 20 s or more before their deadlines",
    ),
    "no GPU worker": (
        Fleet((), jobs(2, 10_000)),
        REMOTE,
        LIMITS,
        1,
        "open for 1: no GPU worker is alive, RunPod would have the next one done in 160 s",
    ),
    "no GPU worker, nothing may leave": (
        Fleet((), jobs(1, 100, may_leave=False)),
        REMOTE,
        LIMITS,
        0,
        "closed: no GPU worker is alive, but nothing that waits may leave the house",
    ),
    "no GPU worker, breaker open": (
        Fleet((), jobs(2, 10_000)),
        replace(REMOTE, breaker="401 from RunPod"),
        LIMITS,
        0,
        "closed: no GPU worker is alive, but the breaker is open: 401 from RunPod",
    ),
    "all throttled": (fleet(jobs(3, 200)), replace(REMOTE, max_workers=0), LIMITS, 0, "closed: the 3rd waiting job"),
    "some throttled": (fleet(jobs(60, 330)), replace(REMOTE, max_workers=2), LIMITS, 2, "open for 2"),
    "a warm worker is in time where a cold one is not": (
        fleet(jobs(3, 150)),
        replace(REMOTE, warm_workers=1),
        LIMITS,
        1,
        "open for 1: the 2nd waiting job would be 30 s late here, RunPod would have the next one done in 60 s",
    ),
    "of three cold starts one is seen to take longer": (
        fleet(jobs(3, 200)),
        replace(REMOTE, in_flight_seconds=(300,), in_queue=1, queued_seconds=150),
        LIMITS,
        0,
        "closed: the 3rd waiting job would be 40 s late here, but RunPod would have the next one done in 210 s",
    ),
    # 160 s / (1 - 0.3) are 229 s.
    "failures cost time": (
        fleet(jobs(3, 200)),
        replace(REMOTE, failure_share=0.3),
        LIMITS,
        0,
        "closed: the 3rd waiting job would be 40 s late here, but RunPod would have the next one done in 229 s",
    ),
    "a provider that always fails": (
        fleet(jobs(3, 200)),
        replace(REMOTE, failure_share=1.0),
        LIMITS,
        0,
        "closed: the 3rd waiting job would be 40 s late here, but RunPod would have the next one done in 1600 s",
    ),
    # The one in flight is done in 20 s, and the next one can follow it on the same worker.
    "whoever is at RunPod makes room soon enough": (
        fleet(jobs(3, 200)),
        replace(REMOTE, in_flight_seconds=(20,)),
        LIMITS,
        1,
        "open for 1: the 3rd",
    ),
    "whoever is at RunPod is too slow to wait for": (
        fleet(jobs(3, 200)),
        replace(REMOTE, in_flight_seconds=(190,)),
        LIMITS,
        2,
        "open for 2: the 3rd",
    ),
    "no job may be in flight": (
        fleet(jobs(3, 200)),
        REMOTE,
        replace(LIMITS, max_in_flight=0),
        0,
        "closed: the 3rd waiting job would be 40 s late here, but no job may be in flight",
    ),
    "no budget": (
        fleet(jobs(3, 200)),
        REMOTE,
        replace(LIMITS, budget_left_usd=0.2),
        0,
        "closed: the 3rd waiting job would be 40 s late here, but today's budget has 0.20 USD left, and a job may cost "
        "0.50 or more",
    ),
    "budget for two": (fleet(jobs(60, 330)), REMOTE, replace(LIMITS, budget_left_usd=1.4), 2, "open for 2"),
    "budget for two more": (
        fleet(jobs(60, 330)),
        replace(REMOTE, in_flight_seconds=(100, 100)),
        replace(LIMITS, budget_left_usd=1.4),
        4,
        "open for 4",
    ),
    # 100 s of cold start, 600 s for ten hours and 5 s of idle time are 0.705 USD, though 0.50 were reserved.
    "a long one costs more than the bound": (
        fleet(jobs(3, 900, hours=10)),
        REMOTE,
        replace(LIMITS, budget_left_usd=0.6),
        0,
        "closed: the 2nd waiting job would be 360 s late here, but today's budget has 0.60 USD left",
    ),
    "dry run": (
        fleet(jobs(3, 200)),
        REMOTE,
        replace(LIMITS, dry_run=True),
        0,
        "dry run: would be open for 1: the 3rd waiting job would be 40 s late here",
    ),
    # Eleven jobs behind the one that is listed, of an hour each: the last of them is done here at 60 + 12 * 60 = 780.
    "those behind are late": (
        Fleet(workers(60), jobs(1, 700), more_jobs=11, more_audio_seconds=3600),
        REMOTE,
        LIMITS,
        1,
        "open for 1: a job behind the first 1 would be 20 s late here",
    ),
    "those behind are in time": (
        Fleet(workers(60), jobs(1, 800), more_jobs=11, more_audio_seconds=3600),
        REMOTE,
        LIMITS,
        0,
        "closed: all 12 waiting jobs",
    ),
}


@pytest.mark.parametrize(("known", "remote", "limits", "slots", "why"), CASES.values(), ids=CASES)
def test_rules(known: Fleet, remote: Remote, limits: Limits, slots: int, why: str) -> None:
    decision = decide(known, remote, limits, NOW)
    assert (decision.slots, decision.why[: len(why)]) == (slots, why)


def test_once_open_it_stays_so_until_a_tenth_of_the_time_is_spare() -> None:
    """Three jobs are done here in 240 s: a deadline in 250 s leaves 10 s, one in 270 s leaves 30 s."""
    tight, comfortable = fleet(jobs(3, 250)), fleet(jobs(3, 270))
    assert decide(tight, REMOTE, LIMITS, NOW).slots == 0
    kept = decide(tight, REMOTE, LIMITS, NOW, OPEN)
    assert (kept.slots, kept.why.split(",")[0]) == (1, "open for 1: the 3rd waiting job would be only 10 s early here")
    assert decide(comfortable, REMOTE, LIMITS, NOW, OPEN).slots == 0


def test_a_dry_run_has_the_same_hysteresis() -> None:
    dry = replace(LIMITS, dry_run=True)
    first = decide(fleet(jobs(3, 200)), REMOTE, dry, NOW)
    assert (first.slots, first.wanted) == (0, 1)
    assert decide(fleet(jobs(3, 250)), REMOTE, dry, NOW, first).wanted == 1


@pytest.mark.parametrize(
    ("busy", "waiting", "in_queue", "reclaims"),
    [((0, 0, 60), 0, 3, 2), ((0, 0, 60), 0, 1, 1), ((0, 0, 60), 1, 3, 1), ((60,), 0, 3, 0), ((0,), 4, 3, 0)],
)
def test_what_idle_workers_could_do_comes_home(
    busy: tuple[float, ...], waiting: int, in_queue: int, reclaims: int
) -> None:
    remote = replace(REMOTE, in_flight_seconds=(200.0,) * 3, in_queue=in_queue)
    assert decide(fleet(jobs(waiting, 900), busy=busy), remote, LIMITS, NOW).reclaims == reclaims


def test_when_head_and_last_would_be_done_here() -> None:
    decision = decide(fleet(jobs(3, 900)), REMOTE, LIMITS, NOW)
    assert (decision.head_finish_at, decision.last_finish_at) == (NOW + 120, NOW + 240)
    nobody = decide(Fleet((), jobs(3, 900)), REMOTE, LIMITS, NOW)
    assert (nobody.head_finish_at, nobody.last_finish_at) == (None, None)


seconds = st.floats(0, 2000)
fleets = st.builds(
    Fleet,
    st.lists(st.builds(Worker, st.floats(10, 600), st.integers(1, 2), st.lists(seconds, max_size=2).map(tuple))).map(
        lambda found: tuple(found[:4])
    ),
    st.lists(st.builds(Job, st.floats(1, 20_000), st.floats(NOW - 500, NOW + 2000), st.booleans()), max_size=12).map(
        tuple
    ),
    st.integers(0, 100),
    st.floats(1, 7200),
)
remotes = st.builds(
    Remote,
    cold_start_seconds=seconds,
    queue_delay_seconds=st.floats(0, 20),
    seconds_per_audio_hour=st.floats(10, 600),
    failure_share=st.floats(0, 1),
    in_flight_seconds=st.lists(seconds, max_size=4).map(tuple),
    in_queue=st.integers(0, 4),
    warm_workers=st.integers(0, 2),
    max_workers=st.none() | st.integers(0, 5),
)
limits_ = st.builds(
    Limits,
    max_in_flight=st.integers(0, 8),
    budget_left_usd=st.floats(0, 3),
    usd_per_second=st.floats(1e-5, 1e-2),
    usd_per_job=st.floats(0.01, 1),
)
before = st.sampled_from([None, OPEN])


@given(fleets, remotes, limits_, before, st.floats(0, 5))
def test_more_budget_never_gives_fewer_places(
    known: Fleet, remote: Remote, limits: Limits, held: Decision | None, more: float
) -> None:
    richer = replace(limits, budget_left_usd=limits.budget_left_usd + more)
    assert decide(known, remote, limits, NOW, held).slots <= decide(known, remote, richer, NOW, held).slots


@given(fleets, remotes, limits_, before)
def test_never_more_than_allowed_or_paid_for(
    known: Fleet, remote: Remote, limits: Limits, held: Decision | None
) -> None:
    decision = decide(known, remote, limits, NOW, held)
    assert 0 <= decision.slots <= limits.max_in_flight
    assert decision.slots <= (limits.max_in_flight if remote.max_workers is None else remote.max_workers)
    more = max(0, decision.slots - len(remote.in_flight_seconds))
    assert more * limits.usd_per_job <= limits.budget_left_usd
    assert more <= sum(job.may_leave for job in known.waiting)
    assert 0 <= decision.reclaims <= remote.in_queue


@given(fleets, remotes, limits_, before)
def test_closed_where_nothing_waits_and_shut_where_the_breaker_says_so(
    known: Fleet, remote: Remote, limits: Limits, held: Decision | None
) -> None:
    assert decide(replace(known, waiting=()), remote, limits, NOW, held).slots == 0
    assert decide(known, replace(remote, breaker="401"), limits, NOW, held).slots == 0


@given(fleets, remotes, limits_)
def test_closed_where_all_are_in_time(known: Fleet, remote: Remote, limits: Limits) -> None:
    """By a schedule that no queue would be slower than: every job waits for all that runs and for all before it."""
    if not known.workers:
        return
    slowest = max(worker.seconds_per_audio_hour for worker in known.workers)
    audio_seconds = sum(job.audio_seconds for job in known.waiting) + known.more_jobs * known.more_audio_seconds
    busy = max((left for worker in known.workers for left in worker.busy_seconds), default=0.0)
    due = NOW + busy + audio_seconds / 3600 * slowest + 1
    waiting = tuple(replace(job, deadline=max(due, job.deadline)) for job in known.waiting)
    assert decide(replace(known, waiting=waiting), remote, limits, NOW).slots == 0
