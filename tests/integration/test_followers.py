"""Jobs of one idempotency key, step by step, the test in place of the worker: who runs, who follows, who is told."""

from __future__ import annotations

import json
from typing import Any

import pytest
from celery.utils import uuid
from redis import Redis

from diarization.errors import Cancelled, DiarizationError, InvalidJob, RecordingUndecodable
from tasks.dead_letters import discard, replay
from tasks.diarize import diarize
from tasks.record import State
from tasks.speed import Speed
from tests.jobs import record

URL = "http://stand.in/turns/5/1"
DEAD = RecordingUndecodable("it plays nowhere")


@pytest.fixture
def key(redis: Redis) -> str:
    return uuid()


def submit(key: str, *, apart: bool = False, **options: Any) -> Any:
    """A job of that key; `apart` keeps its own id."""
    return diarize.apply_async((URL,), {"idempotency_key": key}, task_id=uuid() if apart else None, **options)


def take(job: Any) -> str:
    return diarize.records.take(job.id, record(job).ticket_number, "w (1)")


def end(job: Any, error: DiarizationError | None = None, *, told: bool = True) -> None:
    one = record(job)
    if error:
        diarize.records.give_up(one.id, one.token, error)
    else:
        diarize.records.finish(one.id, one.token, "{}", Speed(5.0, 1.0))
    if told:
        diarize.records.answered(one.id, one.taken_number or 0)


def test_a_follower_met_before_its_first_job_has_ended_waits_on(key: str) -> None:
    first, follower = submit(key), submit(key, apart=True)
    assert take(follower) == "follows"
    take(first)
    end(first)
    assert take(follower) == "done"


def test_of_those_whose_first_job_redis_lost_one_runs(key: str, redis: Redis) -> None:
    first, one, other = submit(key, countdown=3600), submit(key, apart=True), submit(key, apart=True)
    redis.delete(f"diarize:job:{first.id}")
    assert [take(one), take(other)] == ["taken", "follows"]
    end(one)
    assert take(other) == "done"


def test_of_those_whose_first_job_was_discarded_none_takes_the_key_from_a_new_one(key: str) -> None:
    first = submit(key)
    take(first)
    follower = submit(key, apart=True)
    end(first, DEAD)
    discard(diarize, record(first))
    new = submit(key)
    take(new)
    late = submit(key, apart=True)
    assert take(follower) == "follows"
    end(new)
    assert [take(follower), take(late)] == ["done", "done"]


def test_of_dead_letters_that_are_all_replayed_one_runs(key: str) -> None:
    first = submit(key)
    take(first)
    one, other = submit(key, apart=True), submit(key, apart=True)
    end(first, DEAD)
    assert [take(one), take(other)] == ["dead", "dead"]
    for job in (one, other):
        diarize.records.answered(job.id, record(job).taken_number or 0)
    for job in (other, one, first):
        replay(diarize, record(job))
    assert sorted(take(job) for job in (other, one, first)) == ["follows", "follows", "taken"]
    assert submit(key).id == other.id, "the key is with the one that runs"


def test_a_job_that_is_being_cancelled_will_not_do_for_another(key: str) -> None:
    first = submit(key)
    take(first)
    first.revoke()
    again = submit(key)
    assert again.id != first.id
    end(first, Cancelled("as asked"))
    assert take(again) == "taken"


@pytest.mark.parametrize("options", [{"expires": 60}, {"ignore_result": True}])
def test_a_job_that_may_leave_no_result_will_not_do_for_another(key: str, options: dict[str, Any]) -> None:
    assert submit(key, **options).id != submit(key).id


def test_an_heir_keeps_its_countdown(key: str, redis: Redis) -> None:
    first = submit(key)
    take(first)
    heir = submit(key, apart=True, countdown=3600)
    first.revoke()
    end(first, Cancelled("as asked"))
    assert redis.zscore("diarize:due", heir.id) > record(first).submitted_at + 3000


def test_nothing_is_left_of_who_followed(key: str, redis: Redis) -> None:
    first = submit(key)
    take(first)
    early = submit(key, apart=True)
    end(first)
    late = submit(key, apart=True)
    assert [take(early), take(late)] == ["done", "done"]
    assert not list(redis.scan_iter("diarize:followers:*"))


def test_the_key_itself_is_not_shown(key: str) -> None:
    assert key not in json.dumps(dict(record(submit(key)).options))


def test_a_dead_letter_is_not_replayed_before_its_end_is_told(redis: Redis) -> None:
    """Its old chord would never hear of it."""
    job = diarize.delay(URL)
    take(job)
    end(job, DEAD, told=False)
    with pytest.raises(InvalidJob, match="is being told"):
        replay(diarize, record(job))
    assert record(job).state is State.DEAD


def test_what_is_said_of_the_life_before_is_not_said_of_this_one(redis: Redis) -> None:
    job = diarize.delay(URL)
    take(job)
    number = record(job).taken_number or 0
    end(job, DEAD)
    replay(diarize, record(job))
    assert redis.ttl(f"diarize:job:{job.id}") == -1, "a job that lives has no end of its own"
    diarize.records.answered(job.id, number)
    assert record(job).answered is None
    take(job)
    diarize.records.answered(job.id, number)
    assert record(job).answered is None
    end(job, told=False)
    diarize.records.answered(job.id, number)
    assert record(job).answered is None
    assert redis.zscore("diarize:jobs:unanswered", job.id)


def test_a_running_job_is_nobody_s_but_its_runner_s(redis: Redis) -> None:
    """Its lease has run out while Redis was away; only when nobody renews it is it due."""
    job = diarize.delay(URL)
    take(job)
    redis.zadd("diarize:leases", {job.id: 5})
    assert take(job) == "held"
    assert diarize.records.lapse(10) == [job.id]
    assert record(job).state is State.DUE


def test_a_child_hands_back_its_own_job_alone(redis: Redis) -> None:
    """Another child of the same worker has it by now."""
    job = diarize.delay(URL)
    take(job)
    assert diarize.records.hand_back(job.id, "w (1)", counts=True, ticket_number=0) == "due"
    take(job)
    assert diarize.records.hand_back(job.id, "w (1)", counts=True, ticket_number=0) == "stale"
    assert record(job).state is State.RUNNING
