"""Many recordings submitted at once: in few round trips, all or none, and behind everything else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from celery.result import ResultSet
from celery.utils import uuid
from redis import Redis
from redis.connection import AbstractConnection

from diarization.errors import InvalidJob, QueueUnavailable, UrlNotAllowed
from tasks.diarize import diarize
from tasks.record import State
from tasks.valkey import EmbeddedValkey
from tests.jobs import record
from tests.processes import Worker, wait_until

URL = "http://stand.in/turns/20/2"


def test_all_are_done_in_the_order_in_which_they_were_given(redis: Redis, start_worker: Callable[..., Worker]) -> None:
    start_worker()
    recordings: list[Any] = [URL, {"url": URL, "num_speakers": 3}, {"url": "http://stand.in/turns/40/1"}, URL]
    jobs = diarize.submit_many(recordings, expires=600)
    assert len({job.id for job in jobs}) == 4
    results = ResultSet(jobs, app=diarize.app).get(timeout=30)
    assert [(len(one["speakers"]), one["audio_seconds"]) for one in results] == [(2, 20), (3, 20), (1, 40), (2, 20)]
    assert record(jobs[0]).expires_at is not None


def test_a_thousand_cost_a_few_round_trips(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    diarize.submit_many([URL])  # the scripts are known, the connections there
    sent: list[int] = []
    send = AbstractConnection.send_packed_command

    def count(self: AbstractConnection, *arguments: Any, **options: Any) -> None:
        sent.append(1)
        send(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(AbstractConnection, "send_packed_command", count)
        jobs = diarize.submit_many([f"{URL}?n={number}" for number in range(1000)])
    assert len(sent) <= 10, "two for each 500 of them, and what keeps the connections alive"
    assert len(jobs) == redis.zcard("diarize:state:queued") - 1 == 1000
    assert sum(int(redis.llen(key)) for key in redis.scan_iter("diarize:diarize*")) == 1001


def test_a_single_job_is_not_behind_them(redis: Redis, start_worker: Callable[..., Worker]) -> None:
    many = diarize.submit_many([f"{URL}?n={number}" for number in range(5)])
    single = diarize.delay(URL)
    assert diarize.position(single).place == 1
    start_worker()
    single.get(timeout=20)
    many[-1].get(timeout=20)
    assert record(single).ended_at < min(record(job).started_at or 0 for job in many)


@pytest.mark.parametrize(
    ("wrong", "error", "says"),
    [
        ("ftp://example.com/a.wav", UrlNotAllowed, "recording 2 of 3: scheme 'ftp'"),
        ({"url": URL, "num_speakers": 0}, InvalidJob, "recording 2 of 3: num_speakers"),
        ({"url": URL, "speakers": 2}, InvalidJob, "recording 2 of 3: diarize: got an unexpected"),
        (7, InvalidJob, "recording 2 of 3: is neither a URL nor a mapping, but a int"),
    ],
)
def test_one_that_cannot_be_keeps_all_others_out(redis: Redis, wrong: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match="nothing was submitted") as caught:
        diarize.submit_many([URL, wrong, URL])
    assert says in str(caught.value)
    assert not redis.keys("*")


def test_nothing_is_submitted_by_an_empty_list_nor_under_one_id(redis: Redis) -> None:
    assert diarize.submit_many([]) == []
    with pytest.raises(InvalidJob, match="idempotency_key="):
        diarize.submit_many([URL], task_id="mine")
    assert not redis.keys("*")


def test_submitted_again_each_key_has_its_first_job(redis: Redis) -> None:
    recordings = [{"url": f"{URL}?n={number}", "idempotency_key": f"meeting-{number}"} for number in range(3)]
    first = diarize.submit_many(recordings)
    again = diarize.submit_many([*recordings, recordings[0]])
    assert [job.id for job in again] == [*(job.id for job in first), first[0].id]
    assert redis.zcard("diarize:state:queued") == 3


def test_a_key_of_another_request_is_named_and_the_others_are_submitted(redis: Redis) -> None:
    key = uuid()
    owner = diarize.delay(URL, idempotency_key=key)
    recordings = [URL, {"url": "http://stand.in/turns/60/1", "idempotency_key": key}, URL]
    with pytest.raises(InvalidJob, match=f"recording 2: .*{owner.id}.*the other 2 have been submitted"):
        diarize.submit_many(recordings)
    assert redis.zcard("diarize:state:queued") == 3


def test_those_that_start_later_wait_in_the_due_set(redis: Redis) -> None:
    jobs = diarize.submit_many([URL, URL], countdown=600)
    assert [record(job).state for job in jobs] == [State.DUE] * 2
    assert not redis.exists("diarize:diarize\x06\x169")


def test_tickets_that_a_full_redis_refuses_are_published_by_a_worker(
    redis: Redis, server: EmbeddedValkey, start_worker: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the records and their tickets the server takes no more."""
    create_many = diarize.records.create_many

    def create_and_fill(jobs: Any) -> Any:
        done = create_many(jobs)
        redis.config_set("maxmemory", 1)
        return done

    with monkeypatch.context() as patch:
        patch.setattr(diarize.records, "create_many", create_and_fill)
        try:
            with pytest.raises(QueueUnavailable, match="2 jobs are recorded"):
                diarize.submit_many([URL, URL])
        finally:
            redis.config_set("maxmemory", 0)
    assert redis.zcard("diarize:state:queued") == 2
    start_worker(QUEUE_LEASE_SECONDS=4)
    wait_until(lambda: redis.zcard("diarize:state:done") == 2, seconds=60)


def test_who_only_submits_listens_to_nothing(redis: Redis, start_worker: Callable[..., Worker]) -> None:
    """Celery would subscribe to each result as its job is submitted, and never end that where nobody reads it."""
    jobs = [diarize.delay(URL), *diarize.submit_many([URL])]
    for job in jobs:
        assert not redis.pubsub_channels(f"*celery-task-meta-{job.id}")
    start_worker()
    jobs[1].get(timeout=20)
    assert jobs[0].get(timeout=20)["audio_seconds"] == 20, "it had ended before anybody listened"
