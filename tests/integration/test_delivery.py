"""A job is delivered until it has ended, and not twice: long jobs, dead workers, dead children, poison."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from celery.exceptions import TaskRevokedError
from redis import Redis

from diarization.errors import AttemptsExhausted, Cancelled, TimeLimitReached
from tasks.diarize import diarize
from tasks.record import State, describe
from tasks.tickets import publish
from tests.jobs import record, starts
from tests.processes import Worker, wait_until
from tests.standin import read_journal

LEASE_SECONDS = 3


@pytest.mark.parametrize("path", ["sleep/9", "deaf/9", "gil/9"])
def test_a_job_longer_than_the_lease_runs_once(
    redis: Redis, start_worker: Callable[..., Worker], tmp_path: Path, path: str
) -> None:
    """Two workers, the second idle and sweeping: the main process of the first renews, whatever its child does."""
    workers = [start_worker(QUEUE_LEASE_SECONDS=LEASE_SECONDS) for _ in range(2)]
    job = diarize.delay(f"http://stand.in/{path}")
    assert job.get(timeout=30)["provenance"]["attempts"] == 1
    assert starts(tmp_path, f"http://stand.in/{path}") == 1
    assert sum(worker.log.count(f"[{job.id}] received") for worker in workers) == 1, "and is delivered once"


@pytest.mark.parametrize("broker_loses_it_too", [False, True])
def test_the_job_of_a_killed_worker_is_run_by_another(
    redis: Redis, start_worker: Callable[..., Worker], tmp_path: Path, broker_loses_it_too: bool
) -> None:
    first = start_worker(QUEUE_LEASE_SECONDS=LEASE_SECONDS)
    job = diarize.delay("http://stand.in/wait/go")
    wait_until(lambda: record(job).state is State.RUNNING)
    second = start_worker(QUEUE_LEASE_SECONDS=LEASE_SECONDS)
    first.kill()
    if broker_loses_it_too:
        redis.delete("diarize:unacked", "diarize:unacked_index")
    wait_until(lambda: record(job).attempts == 2, what="the second attempt")
    (tmp_path / "go").touch()
    assert job.get(timeout=30)["provenance"]["attempts"] == 2
    assert f"job {job.id} done" in second.log


def test_the_job_of_a_killed_child_is_run_again(
    redis: Redis, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    worker = start_worker()
    job = diarize.delay("http://stand.in/kill/1")
    assert job.get(timeout=30)["provenance"]["attempts"] == 2
    assert starts(tmp_path, "http://stand.in/kill/1") == 2
    assert worker.process.poll() is None


def test_a_recording_that_kills_its_worker_ends_as_a_dead_letter(
    redis: Redis, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    start_worker(QUEUE_MAX_ATTEMPTS=3)
    job = diarize.delay("http://stand.in/exit/9")
    with pytest.raises(AttemptsExhausted, match="started 3 times"):
        job.get(timeout=60)
    assert starts(tmp_path, "http://stand.in/exit/9") == 3
    assert record(job).state is State.DEAD


def test_a_worker_that_is_told_to_stop_finishes_its_job(
    redis: Redis, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    """Also one that takes longer than the lease: another worker is idle and would take it."""
    worker = start_worker(QUEUE_LEASE_SECONDS=LEASE_SECONDS)
    job = diarize.delay("http://stand.in/sleep/8")
    wait_until(lambda: record(job).state is State.RUNNING)
    start_worker(QUEUE_LEASE_SECONDS=LEASE_SECONDS)
    assert worker.stop() == 0
    assert job.get(timeout=5)["provenance"]["attempts"] == 1
    assert starts(tmp_path, "http://stand.in/sleep/8") == 1


def test_a_stale_runner_writes_nothing(redis: Redis, start_worker: Callable[..., Worker], tmp_path: Path) -> None:
    """A worker frozen for longer than the lease wakes up when its job has been done by another one."""
    frozen = start_worker(QUEUE_LEASE_SECONDS=LEASE_SECONDS)
    job = diarize.delay("http://stand.in/wait/go")
    wait_until(lambda: record(job).state is State.RUNNING)
    pids = [frozen.process.pid, *frozen.children]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    start_worker(QUEUE_LEASE_SECONDS=LEASE_SECONDS)
    wait_until(lambda: record(job).attempts == 2, what="the second attempt")
    (tmp_path / "go").touch()
    result = job.get(timeout=30)
    ended = wait_until(lambda: record(job).answered and record(job))
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: f"[{job.id}] ignored" in frozen.log, what="the frozen worker finds out")
    assert record(job) == ended
    assert diarize.AsyncResult(job.id).get(timeout=5) == result


def test_a_due_job_whose_issuer_died_is_issued_again_and_runs_once(
    redis: Redis, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    """The issuer had published the ticket but not yet said so: the second ticket counts, the first is stale."""
    job = diarize.apply_async(("http://stand.in/turns/5/1",), countdown=0.01)
    wait_until(lambda: diarize.records.claim_due(10) == [job.id])
    publish(diarize, record(job))
    redis.zadd("diarize:due", {job.id: 0})
    start_worker()
    job.get(timeout=30)
    other = diarize.delay("http://stand.in/turns/5/1/other")
    other.get(timeout=30)
    wait_until(lambda: redis.hlen("diarize:unacked") == 0)
    assert starts(tmp_path, "http://stand.in/turns/5/1") == 1


def test_a_ticket_that_is_delivered_twice_does_not_run_twice(
    redis: Redis, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    """All connections are cut while a job runs: Celery's channel puts its message back, though the job goes on."""
    first, second = start_worker(), start_worker()
    job = diarize.delay("http://stand.in/wait/go")
    wait_until(lambda: record(job).state is State.RUNNING)
    redis.client_kill_filter(_type="normal", skipme=True)
    redis.client_kill_filter(_type="pubsub", skipme=True)
    wait_until(lambda: f"[{job.id}] ignored" in first.log + second.log, what="the copy is thrown away")
    (tmp_path / "go").touch()
    assert diarize.AsyncResult(job.id).get(timeout=30)["provenance"]["attempts"] == 1
    assert starts(tmp_path, "http://stand.in/wait/go") == 1


def test_the_job_of_a_dead_child_is_first_in_line(
    redis: Redis, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    worker = start_worker()
    job = diarize.delay("http://stand.in/wait/go")
    wait_until(lambda: record(job).state is State.RUNNING)
    others = [diarize.delay(f"http://stand.in/wait/go/{n}") for n in range(3)]
    os.kill(worker.children[0], signal.SIGKILL)
    wait_until(lambda: record(job).attempts == 2, what="the second attempt")
    assert [record(other).state for other in others] == [State.QUEUED] * 3
    (tmp_path / "go").touch()
    for one in (job, *others):
        one.get(timeout=30)


def test_a_cancel_reaches_a_job_whose_worker_died(
    redis: Redis, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    first = start_worker(QUEUE_LEASE_SECONDS=LEASE_SECONDS)
    job = diarize.delay("http://stand.in/deaf/60")
    wait_until(lambda: starts(tmp_path, "http://stand.in/deaf/60"))
    job.revoke()
    first.kill()
    start_worker(QUEUE_LEASE_SECONDS=LEASE_SECONDS)
    with pytest.raises(Cancelled):
        job.get(timeout=30)
    assert record(job).state is State.CANCELLED
    assert starts(tmp_path, "http://stand.in/deaf/60") == 1


def test_a_quick_shutdown_hands_the_job_back_and_counts_no_attempt(
    redis: Redis, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    first = start_worker()
    job = diarize.delay("http://stand.in/wait/go")
    wait_until(lambda: starts(tmp_path, "http://stand.in/wait/go"))
    start_worker()
    first.process.send_signal(signal.SIGQUIT)
    wait_until(lambda: starts(tmp_path, "http://stand.in/wait/go") == 2, what="the other worker runs it")
    (tmp_path / "go").touch()
    assert job.get(timeout=30)["provenance"]["attempts"] == 1
    first.process.wait(30)


def test_a_time_limit_ends_the_job_for_good(redis: Redis, start_worker: Callable[..., Worker], tmp_path: Path) -> None:
    start_worker()
    job = diarize.apply_async(("http://stand.in/sleep/60",), time_limit=1)
    with pytest.raises(TimeLimitReached):
        job.get(timeout=30)
    assert record(job).state is State.DEAD
    assert record(job).error == describe(TimeLimitReached("time_limit=1 s is over"))
    diarize.delay("http://stand.in/turns/5/1").get(timeout=30)


@pytest.mark.parametrize("terminate", [True, False])
def test_celery_s_own_revoke_ends_the_record_too(
    redis: Redis, start_worker: Callable[..., Worker], tmp_path: Path, terminate: bool
) -> None:
    start_worker()
    running = diarize.delay("http://stand.in/wait/go")
    wait_until(lambda: record(running).state is State.RUNNING)
    job = running if terminate else diarize.delay("http://stand.in/turns/5/1")
    diarize.app.control.revoke(job.id, terminate=terminate)
    diarize.app.control.inspect(timeout=5).ping()
    (tmp_path / "go").touch()
    with pytest.raises(TaskRevokedError):
        job.get(timeout=30)
    wait_until(lambda: record(job).state is State.CANCELLED)
    diarize.delay("http://stand.in/turns/5/1/after").get(timeout=30)


def test_a_job_sent_by_name_with_a_countdown_runs_once(
    redis: Redis, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    """Celery holds such a message in a worker until it is due: that may be longer than the lease."""
    for _ in range(2):
        start_worker(QUEUE_LEASE_SECONDS=LEASE_SECONDS)
    sent = diarize.app.send_task(
        "tasks.diarize.diarize", ["http://stand.in/turns/5/1"], queue="diarize", countdown=8, task_id="by-name"
    )
    assert sent.get(timeout=30)["provenance"]["attempts"] == 1
    assert starts(tmp_path, "http://stand.in/turns/5/1") == 1


def test_a_copy_of_a_job_that_has_ended_calls_nobody_again(
    redis: Redis, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    worker = start_worker()
    link = diarize.si("http://stand.in/turns/6/1")
    job = diarize.apply_async(("http://stand.in/turns/5/1",), link=link)
    first = job.get(timeout=30)
    publish(diarize, record(job))
    wait_until(lambda: worker.log.count(f"{job.id}] received") == 2, what="the copy is met")
    publish(diarize, record(job), number=7)
    wait_until(lambda: f"[{job.id}] ignored" in worker.log or worker.log.count(f"{job.id}] received") == 3)
    diarize.delay("http://stand.in/turns/7/1").get(timeout=30)
    assert diarize.AsyncResult(job.id).get(timeout=5) == first
    wait_until(lambda: starts(tmp_path, "http://stand.in/turns/6/1") == 1, what="the link is called")
    assert starts(tmp_path, "http://stand.in/turns/5/1") == 1
    assert redis.zcard("diarize:state:done") == 3, "the job, its link and the last one"


def test_one_bad_job_does_not_stop_the_due_set(redis: Redis, start_worker: Callable[..., Worker]) -> None:
    bad = diarize.apply_async(("http://stand.in/turns/5/1",), countdown=0.1)
    redis.hset(f"diarize:job:{bad.id}", "ticket", "no json")
    worker = start_worker()
    good = diarize.apply_async(("http://stand.in/turns/5/1",), countdown=0.5)
    good.get(timeout=30)
    assert f"job {bad.id} is due, but its ticket cannot be published" in worker.log


def test_submitting_again_loses_no_ticket(
    redis: Redis, start_worker: Callable[..., Worker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second ticket cannot be published; the first one still counts, and both would start it only once."""
    diarize.apply_async(("http://stand.in/turns/5/1",), task_id="again")
    with monkeypatch.context() as patched:
        patched.setattr("tasks.producer.publish", lambda *_args, **_options: None)
        diarize.apply_async(("http://stand.in/turns/5/1",), task_id="again")
    diarize.apply_async(("http://stand.in/turns/5/1",), task_id="again")
    start_worker()
    diarize.AsyncResult("again").get(timeout=30)
    diarize.delay("http://stand.in/turns/6/1").get(timeout=30)
    assert starts(tmp_path, "http://stand.in/turns/5/1") == 1


def test_a_cancel_outlives_an_attempt_that_fails(
    redis: Redis, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    start_worker(QUEUE_RETRY_BASE_SECONDS=600)
    job = diarize.delay("http://stand.in/deaf-fail/2")
    wait_until(lambda: record(job).state is State.RUNNING)
    job.revoke()
    with pytest.raises(Cancelled):
        job.get(timeout=30)


def test_one_child_that_cannot_load_lets_the_other_finish(
    redis: Redis, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    (tmp_path / "loaded").touch()
    worker = start_worker(arguments=("-A", "tasks"), options=("-c", "2"), DIARIZATION_MODEL="wait/loaded")
    job = diarize.delay("http://stand.in/wait/go")
    wait_until(lambda: starts(tmp_path, "http://stand.in/wait/go"))
    busy = int(next(line["pid"] for line in read_journal(tmp_path) if line["event"] == "start"))
    (tmp_path / "refuse").touch()
    os.kill(next(pid for pid in worker.children if pid != busy), signal.SIGKILL)
    wait_until(lambda: "this worker must stop" in worker.log)
    (tmp_path / "go").touch()
    assert job.get(timeout=30)["provenance"]["attempts"] == 1
    assert worker.process.wait(30) == 78


def test_a_job_whose_ticket_the_broker_lost_gets_another(
    redis: Redis, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    """With its link, at the front, and once; a job whose ticket waits is left alone."""
    lost = diarize.apply_async(("http://stand.in/turns/5/1",), link=diarize.si("http://stand.in/turns/6/1"))
    redis.delete("diarize:diarize\x06\x166")
    workers = [start_worker(), start_worker()]
    blockers = [diarize.delay(f"http://stand.in/wait/go/{n}") for n in range(2)]
    for blocker in blockers:
        wait_until(lambda blocker=blocker: record(blocker).state is State.RUNNING)
    waiting = diarize.delay("http://stand.in/turns/7/1")
    wait_until(lambda: record(lost).ticket_number == 1, seconds=60, what="another ticket")
    (tmp_path / "go").touch()
    lost.get(timeout=30)
    waiting.get(timeout=30)
    wait_until(lambda: starts(tmp_path, "http://stand.in/turns/6/1") == 1, what="the link is called")
    assert starts(tmp_path, "http://stand.in/turns/5/1") == 1
    assert record(waiting).ticket_number == 0
    assert sum("does the chores" in worker.log for worker in workers) == 1, "one leads"


def test_a_rolling_restart_under_load_loses_and_doubles_nothing(
    redis: Redis, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    """Each worker is told to stop, half of them with too short a grace, and another one takes its place."""
    settings = [{"QUEUE_GRACE_SECONDS": 20}, {"QUEUE_GRACE_SECONDS": 0.2}]
    workers = [start_worker(**settings[n]) for n in range(2)]
    jobs = [diarize.delay(f"http://stand.in/sleep/0.5/{n}") for n in range(24)]
    for n in range(4):
        wait_until(lambda n=n: sum(record(job).state is State.DONE for job in jobs) >= 4 * n)
        workers.append(start_worker(**settings[n % 2]))
        assert workers.pop(0).stop() == 0
    for job in jobs:
        assert job.get(timeout=60)["provenance"]["attempts"] == 1
    ends = [line["what"] for line in read_journal(tmp_path) if line["event"] == "end"]
    assert sorted(ends) == sorted(f"http://stand.in/sleep/0.5/{n}" for n in range(24))


def test_a_cancel_counts_also_while_no_worker_is_up(
    redis: Redis, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    waiting = diarize.delay("http://stand.in/turns/5/1")
    due = diarize.apply_async(("http://stand.in/turns/6/1",), countdown=0.1)
    for job in (waiting, due):
        job.revoke()
        with pytest.raises(Cancelled):
            job.get(timeout=5)
    start_worker()
    diarize.delay("http://stand.in/turns/7/1").get(timeout=30)
    wait_until(
        lambda: redis.zcard("diarize:jobs:unanswered") == 0, what="their chords, had they any, would have been told"
    )
    assert [starts(tmp_path, f"http://stand.in/turns/{n}/1") for n in (5, 6, 7)] == [0, 0, 1]


def test_what_is_past_its_retention_is_forgotten(redis: Redis, start_worker: Callable[..., Worker]) -> None:
    """Also where no other job ends afterwards, and a worker that is gone with it."""
    worker = start_worker(QUEUE_RETENTION_DAYS=2 / 86400)
    redis.hset("diarize:fleet:workers", "gone", "{}")
    redis.hset("diarize:fleet:speeds", "gone", "{}")
    redis.zadd("diarize:fleet:workers_seen", {"gone": 5})
    done = diarize.delay("http://stand.in/turns/5/1", idempotency_key="kept-as-long")
    done.get(timeout=30)
    dead = diarize.delay("http://stand.in/fail/permanent")
    wait_until(lambda: record(dead).state is State.DEAD)
    wait_until(lambda: "2 jobs are past their retention" in worker.log or worker.log.count("past their retention") == 2)
    wait_until(lambda: "worker gone has been silent for an hour" in worker.log)
    ours = {key for key in redis.scan_iter("diarize:*") if "_kombu" not in key and "celery-task-meta" not in key}
    assert ours == {
        f"diarize:{name}"
        for name in (
            "fleet:counters",
            *("leader", "fleet:rounds", "fleet:lapsed_at", "fleet:lengths"),
            *("fleet:workers", "fleet:workers_seen", "fleet:speeds", "fleet:idle"),
        )
    }
    assert len(redis.hkeys("diarize:fleet:speeds")) == 1, "that of the worker that lives"
