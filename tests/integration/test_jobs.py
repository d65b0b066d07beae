"""Jobs through a real server and a real worker, with the stand-in diarizer: what a Celery user expects holds."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import chain, chord, group
from celery.exceptions import ChordError
from redis import Redis

from diarization.errors import (
    Cancelled,
    Expired,
    InternalError,
    InvalidJob,
    RecordingFetchFailed,
    RecordingUndecodable,
    TimeLimitReached,
    UrlNotAllowed,
)
from tasks.diarize import diarize
from tasks.record import State
from tests.foreign import app as foreign_app
from tests.foreign import count_speakers, note, note_error, url_of
from tests.processes import Worker, wait_until
from tests.standin import read_journal

pytestmark = pytest.mark.usefixtures("worker")


@pytest.fixture(scope="module")
def worker(module_redis: Redis, start_module_worker: Callable[..., Worker]) -> Worker:
    start_module_worker(arguments=("-A", "tests.foreign"), DIARIZATION_DIARIZER="unused:unused")
    return start_module_worker(QUEUE_RETRY_BASE_SECONDS=0.2, QUEUE_MAX_ATTEMPTS=3)


def state(job_id: str) -> State:
    record = diarize.records.get(job_id)
    assert record is not None
    return record.state


def test_a_call_gives_the_turns_and_how_they_came_about() -> None:
    job = diarize.delay("http://stand.in/turns/20/3?n=1")
    result = job.get(timeout=20)
    assert {turn["speaker"] for turn in result["segments"]} == {"SPEAKER_00", "SPEAKER_01", "SPEAKER_02"}
    assert result["audio_seconds"] == 20
    assert result["provenance"]["attempts"] == 1
    assert result["provenance"]["queue_seconds"] >= 0
    record = diarize.records.get(job.id)
    assert record is not None
    assert record.state is State.DONE
    assert record.result == result
    assert record.request is None, "the URL of an ended job is not kept"


@pytest.mark.parametrize(
    ("call", "speakers"),
    [
        (lambda url: diarize.delay(url, 3), 3),
        (lambda url: diarize.delay(url=url, min_speakers=4), 4),
        (lambda url: diarize.apply_async((url,), {"num_speakers": 1}), 1),
        (lambda url: diarize.apply_async(kwargs={"url": url, "max_speakers": 1}), 1),
        (lambda url: diarize.s(url).set(priority=2).delay(num_speakers=2), 2),
        (lambda url: diarize.si(url, num_speakers=5).apply_async(), 5),
        (lambda url: diarize.delay(url, provider="local", num_speakers=2), 2),
    ],
)
def test_arguments_come_through_however_they_are_passed(call: Callable[[str], Any], speakers: int) -> None:
    assert len(call("http://stand.in/turns/60/2").get(timeout=20)["speakers"]) == speakers


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        ("fail/permanent", RecordingUndecodable, "attempt 1 was told to fail"),
        ("fail/bug", InternalError, "RuntimeError: the stand-in was told to fail in a way nobody knows"),
        ("fail/transient", RecordingFetchFailed, "attempt 3 was told to fail"),
    ],
)
def test_an_error_reaches_the_caller_with_its_class(path: str, error: type[Exception], message: str) -> None:
    job = diarize.delay(f"http://stand.in/{path}")
    with pytest.raises(error) as caught:
        job.get(timeout=20)
    assert str(caught.value) == message
    record = diarize.records.get(job.id)
    assert record is not None
    assert record.state is State.DEAD
    assert record.error is not None
    assert record.error["message"] == message
    assert record.error["advice"]
    assert record.request is not None, "a dead letter can be replayed"


def test_a_transient_error_is_tried_again() -> None:
    job = diarize.delay("http://stand.in/fail/transient/2")
    assert job.get(timeout=20)["provenance"]["attempts"] == 3


def test_a_countdown_waits_in_the_due_set_not_in_a_worker(module_redis: Redis) -> None:
    began = time.time()
    job = diarize.apply_async(("http://stand.in/turns/5/1",), countdown=1.5)
    assert state(job.id) is State.DUE
    wait_until(lambda: module_redis.hlen("diarize:unacked") == 0, what="no worker holds it, nor the job before")
    assert state(job.id) is State.DUE
    job.get(timeout=20)
    record = diarize.records.get(job.id)
    assert record is not None
    assert record.started_at is not None
    assert record.started_at >= began + 1.4


def test_an_eta_in_the_future_is_kept() -> None:
    job = diarize.apply_async(("http://stand.in/turns/5/1",), eta=datetime.now(UTC) + timedelta(seconds=1))
    assert state(job.id) is State.DUE
    job.get(timeout=20)


def test_a_job_past_its_expires_is_not_started(start_module_worker: Callable[..., Worker]) -> None:
    blocker = diarize.delay("http://stand.in/sleep/2?blocker")
    job = diarize.apply_async(("http://stand.in/turns/5/1?expired",), expires=0.5)
    with pytest.raises(Expired):
        job.get(timeout=20)
    assert state(job.id) is State.EXPIRED
    blocker.get(timeout=20)


def test_the_own_task_id_is_the_job_id_and_submitting_again_joins() -> None:
    first = diarize.apply_async(("http://stand.in/turns/9/2",), task_id="my-own-id")
    again = diarize.apply_async(("http://stand.in/turns/9/2",), task_id="my-own-id")
    assert first.id == again.id == "my-own-id"
    assert first.get(timeout=20) == again.get(timeout=20)
    assert diarize.apply_async(("http://stand.in/turns/9/2",), task_id="my-own-id").get(timeout=20)
    with pytest.raises(InvalidJob, match="other arguments"):
        diarize.apply_async(("http://stand.in/turns/8/2",), task_id="my-own-id")


def test_urgent_jobs_overtake() -> None:
    blocker = diarize.delay("http://stand.in/sleep/1?blocking")
    wait_until(lambda: state(blocker.id) is State.RUNNING)
    late = diarize.apply_async(("http://stand.in/turns/5/1?late",), priority=9)
    usual = diarize.delay("http://stand.in/turns/5/1?usual")
    urgent = diarize.apply_async(("http://stand.in/turns/5/1?urgent",), priority=0)
    for job in (late, usual, urgent):
        job.get(timeout=20)
    started = [diarize.records.get(job.id).started_at for job in (urgent, usual, late)]  # type: ignore[union-attr]
    assert started == sorted(started)


def test_a_group() -> None:
    results = group(diarize.s(f"http://stand.in/turns/{n}/2") for n in (10, 11, 12))().get(timeout=20)
    assert [result["audio_seconds"] for result in results] == [10, 11, 12]


def test_a_chain_runs_ours_between_steps_of_a_backend() -> None:
    steps = chain(url_of.s("3"), diarize.s(), count_speakers.s().set(queue="backend"))
    assert steps.apply_async().get(timeout=20) == 3


def test_a_chain_that_begins_with_ours() -> None:
    steps = chain(diarize.s("http://stand.in/turns/10/2"), count_speakers.s().set(queue="backend"))
    assert steps.apply_async().get(timeout=20) == 2


def test_a_chord_counts_each_member_once_also_after_a_retry() -> None:
    header = [diarize.s("http://stand.in/turns/10/1"), diarize.s("http://stand.in/fail/transient/1/chord")]
    body = count_speakers.s().set(queue="backend")
    assert chord(header)(body).get(timeout=20) == [1, 2]


def test_a_chord_with_a_dead_member_fails() -> None:
    header = [diarize.s("http://stand.in/turns/10/1"), diarize.s("http://stand.in/fail/permanent?chord")]
    body = chord(header)(count_speakers.s().set(queue="backend"))
    # The member's error where the wait comes across it first, else the chord's, which tells of it.
    with pytest.raises((RecordingUndecodable, ChordError), match="told to fail"):
        body.get(timeout=20)
    wait_until(lambda: body.state == "FAILURE")
    assert isinstance(body.result, ChordError)


def test_callbacks_and_errbacks_are_called(module_redis: Redis) -> None:
    diarize.apply_async(("http://stand.in/turns/5/1?linked",), link=note.s("called-back").set(queue="backend")).get(
        timeout=20
    )
    wait_until(lambda: module_redis.llen("called-back") == 1)
    job = diarize.apply_async(
        ("http://stand.in/fail/permanent?linked",), link_error=note_error.s("errors").set(queue="backend")
    )
    with pytest.raises(RecordingUndecodable):
        job.get(timeout=20)
    wait_until(lambda: module_redis.lrange("errors", 0, -1))
    assert module_redis.lrange("errors", 0, -1) == [job.id]


def test_a_callback_that_cannot_be_published_changes_nothing(worker: Worker, module_redis: Redis) -> None:
    impossible = note.s("never").set(queue="backend", serializer="no-such-serializer")
    possible = note.s("called-all-the-same").set(queue="backend")
    job = diarize.apply_async(("http://stand.in/turns/5/1?impossible",), link=[impossible, possible])
    assert job.get(timeout=20)["segments"]
    assert state(job.id) is State.DONE
    wait_until(lambda: module_redis.llen("called-all-the-same") == 1)
    assert f"job {job.id} is done, but tests.foreign.note cannot be called" in worker.log


def test_a_later_step_with_an_impossible_url_fails_by_itself() -> None:
    steps = chain(diarize.s("http://stand.in/turns/5/1"), diarize.si("ftp://stand.in/x"))
    job = steps.apply_async()
    with pytest.raises(UrlNotAllowed):
        job.get(timeout=20)
    assert state(job.id) is State.DEAD
    assert job.parent is not None
    assert job.parent.state == "SUCCESS", "the step before has done its part"


def test_send_task_by_name_from_an_app_that_knows_only_celery(module_redis: Redis) -> None:
    sent = foreign_app.send_task(
        "tasks.diarize.diarize",
        ["http://stand.in/fail/transient/1/by-name"],
        {"num_speakers": 2},
        queue="diarize",
        priority=6,
    )
    assert sent.get(timeout=20)["provenance"]["attempts"] == 2
    assert state(sent.id) is State.DONE
    refused = foreign_app.send_task("tasks.diarize.diarize", ["ftp://x"], queue="diarize", priority=6)
    with pytest.raises(UrlNotAllowed):
        refused.get(timeout=20)


def test_cancel_of_a_waiting_job(worker: Worker) -> None:
    blocker = diarize.delay("http://stand.in/sleep/1?cancel-blocker")
    wait_until(lambda: state(blocker.id) is State.RUNNING)
    job = diarize.delay("http://stand.in/turns/5/1?cancelled")
    job.revoke()
    with pytest.raises(Cancelled):
        job.get(timeout=5)
    assert state(job.id) is State.CANCELLED
    blocker.get(timeout=20)
    diarize.delay("http://stand.in/turns/5/1?after").get(timeout=20)
    assert job.state == "REVOKED"
    assert f"[{job.id}] ignored" in worker.log, "its ticket was met and thrown away"


def test_cancel_of_a_running_job_leaves_the_worker_ready() -> None:
    job = diarize.delay("http://stand.in/sleep/60?running")
    wait_until(lambda: state(job.id) is State.RUNNING)
    assert diarize.cancel(job.id) is State.RUNNING
    with pytest.raises(Cancelled):
        job.get(timeout=5)
    assert state(job.id) is State.CANCELLED
    diarize.delay("http://stand.in/turns/5/1?next").get(timeout=20)


def test_a_chord_with_a_cancelled_member_ends() -> None:
    blocker = diarize.delay("http://stand.in/sleep/1?chord-blocker")
    member = diarize.s("http://stand.in/turns/5/2").set(task_id="to-be-cancelled")
    body = chord([diarize.s("http://stand.in/turns/5/1"), member])(count_speakers.s().set(queue="backend"))
    diarize.AsyncResult("to-be-cancelled").revoke()
    with pytest.raises(Cancelled):
        body.get(timeout=20)
    wait_until(lambda: body.state == "FAILURE", what="the chord hears of the member that was cancelled")
    assert isinstance(body.result, ChordError)
    blocker.get(timeout=20)


def test_a_chord_ends_when_a_member_is_cancelled_that_was_not_yet_due() -> None:
    member = diarize.s("http://stand.in/turns/5/2").set(task_id="cancelled-while-due", countdown=600)
    body = chord([diarize.s("http://stand.in/turns/5/1"), member])(count_speakers.s().set(queue="backend"))
    assert diarize.cancel("cancelled-while-due") is State.DUE
    wait_until(lambda: body.state == "FAILURE")


def test_a_group_can_be_revoked() -> None:
    blocker = diarize.delay("http://stand.in/sleep/2?group-blocker")
    wait_until(lambda: state(blocker.id) is State.RUNNING)
    jobs = group(diarize.s(f"http://stand.in/turns/{n}/2") for n in (5, 6))()
    jobs.revoke()
    wait_until(lambda: {state(job.id) for job in jobs.results} == {State.CANCELLED})
    blocker.get(timeout=20)


def test_a_result_that_nobody_wants_is_not_waited_for() -> None:
    job = diarize.apply_async(("http://stand.in/turns/5/1?ignored",), ignore_result=True)
    assert job.get(timeout=5) is None
    wait_until(lambda: state(job.id) is State.DONE, what="the record has it all the same")


@pytest.mark.parametrize("path", ["none", "nan"])
def test_an_answer_that_is_none_ends_the_job(path: str) -> None:
    job = diarize.delay(f"http://stand.in/{path}")
    with pytest.raises(InternalError):
        job.get(timeout=20)
    assert state(job.id) is State.DEAD


def test_a_soft_time_limit_ends_the_job() -> None:
    job = diarize.apply_async(("http://stand.in/deaf/60",), soft_time_limit=1)
    with pytest.raises(TimeLimitReached):
        job.get(timeout=20)
    assert state(job.id) is State.DEAD


def test_a_later_step_with_an_impossible_option_fails_by_itself() -> None:
    job = chain(diarize.s("http://stand.in/turns/5/1"), diarize.si("http://b/c").set(queue="nope")).apply_async()
    with pytest.raises(InvalidJob):
        job.get(timeout=20)


def test_progress_stands_in_the_record() -> None:
    job = diarize.delay("http://stand.in/sleep/3?progress")

    def shown() -> bool:
        record = diarize.records.get(job.id)
        return record is not None and record.stage == "segmentation" and 10 < record.percent < 90

    wait_until(shown)
    job.get(timeout=20)


def test_the_model_is_loaded_once(worker: Worker) -> None:
    assert [line["event"] for line in read_journal(worker.folder)].count("load") == 1
