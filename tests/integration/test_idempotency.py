"""One key, one answer: while the first job waits, while it runs and after its end, whoever submits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from celery import chord, group
from celery.utils import uuid
from redis import Redis

from diarization.errors import Cancelled, Expired, InvalidJob, RecordingUndecodable
from tasks.diarize import diarize
from tasks.record import State
from tests.foreign import app as foreign_app
from tests.foreign import count_speakers, note
from tests.jobs import record
from tests.processes import Worker, wait_until
from tests.standin import read_journal

URL = "http://stand.in/turns/9/2"


@pytest.fixture(scope="module", autouse=True)
def worker(module_redis: Redis, start_module_worker: Callable[..., Worker]) -> Worker:
    start_module_worker(arguments=("-A", "tests.foreign"), DIARIZATION_DIARIZER="unused:unused")
    return start_module_worker(QUEUE_RETRY_BASE_SECONDS=0.1)


def starts(worker: Worker, path: str) -> int:
    return sum(line["event"] == "start" and line["what"].endswith(path) for line in read_journal(worker.folder))


@pytest.fixture
def gate(worker: Worker) -> Path:
    """A name of its own for jobs that wait until it is touched."""
    return Path(worker.folder / uuid())


def test_the_same_key_gives_the_job_that_stands(worker: Worker, gate: Path) -> None:
    """While it waits, while it runs and when it has ended."""
    key, url = uuid(), f"http://stand.in/wait/{gate.name}"
    blocker = diarize.delay(f"{url}/blocker")
    wait_until(lambda: record(blocker).state is State.RUNNING)
    first = diarize.delay(url, idempotency_key=key)
    assert diarize.delay(url, idempotency_key=key).id == first.id, "it waits"
    gate.touch()
    blocker.get(timeout=20)
    result = first.get(timeout=20)
    again = diarize.delay(url, idempotency_key=key)
    assert (again.id, again.get(timeout=5)) == (first.id, result), "it has ended"
    assert starts(worker, f"/wait/{gate.name}") == 1


def test_a_dead_letter_is_an_answer_too() -> None:
    key = uuid()
    first = diarize.delay(f"http://stand.in/fail/permanent/{key}", idempotency_key=key)
    with pytest.raises(RecordingUndecodable):
        first.get(timeout=20)
    again = diarize.delay(f"http://stand.in/fail/permanent/{key}", idempotency_key=key)
    assert again.id == first.id
    with pytest.raises(RecordingUndecodable):
        again.get(timeout=5)


@pytest.mark.parametrize(
    ("url", "options"),
    [(URL + "/other", {}), (URL, {"num_speakers": 3}), (URL, {"provider": "local"}), (URL + "?page=2", {})],
)
def test_the_same_key_for_something_else_is_an_error(url: str, options: dict[str, Any]) -> None:
    key = uuid()
    first = diarize.delay(URL, idempotency_key=key)
    with pytest.raises(InvalidJob, match=f"idempotency_key= belongs to job {first.id}, which asks for something else"):
        diarize.delay(url, idempotency_key=key, **options)


def test_a_url_signed_anew_asks_for_the_same() -> None:
    key = uuid()
    first = diarize.delay(f"{URL}?X-Amz-Signature=one&X-Amz-Date=1", idempotency_key=key, headers={"Cookie": "a=1"})
    again = diarize.delay(f"{URL}?X-Amz-Date=2&X-Amz-Signature=two", idempotency_key=key, headers={"Cookie": "a=2"})
    assert again.id == first.id


def test_across_producers_at_the_same_moment(python: Callable[..., str]) -> None:
    key = uuid()
    code = f"""
from concurrent.futures import ThreadPoolExecutor
from tasks.diarize import diarize
with ThreadPoolExecutor(8) as pool:
    jobs = [pool.submit(diarize.delay, {URL!r}, idempotency_key={key!r}) for _ in range(16)]
print(*{{job.result().id for job in jobs}})
"""
    ids = {*python(code).split(), *python(code).split()}
    assert len(ids) == 1


def test_a_duplicate_with_a_callback_ends_with_the_first(worker: Worker, gate: Path, module_redis: Redis) -> None:
    key, url = uuid(), f"http://stand.in/wait/{gate.name}"
    first = diarize.delay(url, idempotency_key=key)
    wait_until(lambda: record(first).state is State.RUNNING)
    follower = diarize.apply_async((url,), {"idempotency_key": key}, link=note.s(key).set(queue="backend"))
    assert follower.id != first.id
    assert (record(follower).state, record(follower).follows) == (State.DUE, first.id)
    gate.touch()
    assert follower.get(timeout=20) == first.get(timeout=20)
    wait_until(lambda: module_redis.llen(key) == 1, what="its own callback is called")
    late = diarize.apply_async((url,), {"idempotency_key": key}, link=note.s(key).set(queue="backend"))
    assert late.get(timeout=20) == first.get(timeout=20)
    wait_until(lambda: module_redis.llen(key) == 2)
    assert starts(worker, f"/wait/{gate.name}") == 1


def test_duplicates_in_a_chord_are_counted_each(worker: Worker) -> None:
    key = uuid()
    header = [diarize.s(URL + "/chord", idempotency_key=key) for _ in range(3)]
    assert chord(header)(count_speakers.s().set(queue="backend")).get(timeout=20) == [2, 2, 2]
    assert starts(worker, "/chord") == 1


def test_duplicates_of_a_failure_in_a_group_fail(worker: Worker) -> None:
    key = uuid()
    jobs = group(diarize.s(f"http://stand.in/fail/permanent/{key}", idempotency_key=key) for _ in range(3))()
    for job in jobs.results:
        with pytest.raises(RecordingUndecodable):
            job.get(timeout=20)
    assert starts(worker, f"/fail/permanent/{key}") == 1


def test_sent_by_name_with_a_key(worker: Worker) -> None:
    key = uuid()
    jobs = [
        foreign_app.send_task(
            "tasks.diarize.diarize", [URL + "/name"], {"idempotency_key": key}, queue="diarize", priority=6
        )
        for _ in range(2)
    ]
    first, second = (job.get(timeout=20) for job in jobs)
    assert first == second
    assert starts(worker, "/name") == 1
    refused = foreign_app.send_task(
        "tasks.diarize.diarize", [URL + "/else"], {"idempotency_key": key}, queue="diarize", priority=6
    )
    with pytest.raises(InvalidJob, match="asks for something else"):
        refused.get(timeout=20)


def test_cancelling_the_first_leaves_the_key_to_the_next(worker: Worker, gate: Path) -> None:
    """A running first job is cancelled: one of those that follow runs instead, the others go on following."""
    key, url = uuid(), f"http://stand.in/wait/{gate.name}"
    first = diarize.apply_async((url,), {"idempotency_key": key}, task_id=uuid())
    wait_until(lambda: record(first).state is State.RUNNING)
    followers = [diarize.apply_async((url,), {"idempotency_key": key}, task_id=uuid()) for _ in range(3)]
    followers[0].revoke()
    first.revoke()
    wait_until(lambda: record(followers[1]).state is State.RUNNING, what="the heir runs")
    assert record(followers[1]).follows is None
    assert record(followers[2]).follows == followers[1].id
    assert diarize.delay(url, idempotency_key=key).id == followers[1].id, "the key is the heir's"
    gate.touch()
    assert followers[1].get(timeout=20) == followers[2].get(timeout=20)
    for cancelled in (first, followers[0]):
        with pytest.raises(Cancelled):
            cancelled.get(timeout=20)
        assert record(cancelled).state is State.CANCELLED
    assert starts(worker, f"/wait/{gate.name}") == 2


def test_an_expired_first_job_gives_the_key_free(worker: Worker) -> None:
    key = uuid()
    blocker = diarize.delay("http://stand.in/sleep/1/blocks")
    wait_until(lambda: record(blocker).state is State.RUNNING)
    first = diarize.apply_async((URL,), {"idempotency_key": key}, expires=0.1)
    with pytest.raises(Expired):
        first.get(timeout=20)
    again = diarize.delay(URL, idempotency_key=key)
    assert again.id != first.id
    assert again.get(timeout=20)["segments"]


def test_a_follower_whose_first_job_is_lost_runs_itself(worker: Worker, gate: Path, module_redis: Redis) -> None:
    key, url = uuid(), f"http://stand.in/turns/5/1/{gate.name}"
    first = diarize.apply_async((url,), {"idempotency_key": key}, countdown=3600)
    follower = diarize.apply_async((url,), {"idempotency_key": key}, task_id=uuid())
    assert record(follower).follows == first.id
    module_redis.delete(f"diarize:job:{first.id}")
    module_redis.zadd("diarize:due", {follower.id: 0})
    assert follower.get(timeout=20)["segments"]
    assert diarize.delay(url, idempotency_key=key).id == follower.id


def test_a_discarded_dead_letter_gives_the_key_free() -> None:
    key, url = uuid(), "http://stand.in/fail/permanent/discarded"
    first = diarize.delay(url, idempotency_key=key)
    with pytest.raises(RecordingUndecodable):
        first.get(timeout=20)
    wait_until(lambda: diarize.records.delete(first.id) == "deleted")
    assert diarize.delay(url, idempotency_key=key).id != first.id


@pytest.mark.parametrize("key", ["", "x" * 201, 5])
def test_a_key_that_is_none_is_refused(key: Any) -> None:
    with pytest.raises(InvalidJob, match="idempotency_key"):
        diarize.delay(URL, idempotency_key=key)


def test_the_key_is_kept_as_long_as_the_answer(module_redis: Redis) -> None:
    key = uuid()
    job = diarize.delay(URL, idempotency_key=key)
    named = module_redis.hget(f"diarize:job:{job.id}", "idempotency")
    job.get(timeout=20)
    assert module_redis.ttl(f"diarize:idempotency:{named}") == pytest.approx(
        module_redis.ttl(f"diarize:job:{job.id}"), abs=2
    )
