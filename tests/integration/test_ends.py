"""A job ends once, and whoever waits for it hears of it once, wherever its worker dies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from celery import chain, chord
from celery.exceptions import ChordError
from celery.utils import uuid
from redis import Redis

from diarization.errors import RecordingUndecodable
from tasks.diarize import diarize
from tasks.record import State
from tasks.tickets import publish
from tests.deadly import POINTS
from tests.foreign import count_speakers, note, note_error
from tests.jobs import starts
from tests.processes import Worker, wait_until

LEASE_SECONDS = 2
DEATHS = [*((point, who) for point in POINTS for who in ("child", "main")), ("ack", "main")]


@pytest.fixture(scope="module", autouse=True)
def backend(module_redis: Redis, start_module_worker: Callable[..., Worker]) -> None:
    start_module_worker(arguments=("-A", "tests.foreign"), DIARIZATION_DIARIZER="unused:unused")


@pytest.fixture
def start_deadly(redis: Redis, start_worker: Callable[..., Worker]) -> Callable[..., None]:
    """Starts a worker that dies at a point, and another that does not."""

    def start(point: str, who: str, **settings: Any) -> None:
        common = {"QUEUE_LEASE_SECONDS": LEASE_SECONDS, "QUEUE_RETRY_BASE_SECONDS": 0.1}
        deadly = {"DEADLY_AT": point, "DEADLY_WHO": who, **settings}
        if point != "ack":
            deadly["DIARIZATION_DIARIZER"] = "tests.deadly:load"
        start_worker(**common, **deadly, options=("-I", "tests.deadly"))

    return start


def state(job_id: str) -> State:
    record = diarize.records.get(job_id)
    assert record is not None
    return record.state


def settled(redis: Redis) -> bool:
    """Nothing waits, nothing is held, and Celery has been told of every end."""
    return not (
        redis.zcard("diarize:jobs:unanswered")
        or redis.hlen("diarize:unacked")
        or redis.zcard("diarize:state:queued")
        or redis.zcard("diarize:state:running")
        or redis.zcard("diarize:state:due")
        or redis.llen("diarize:backend")
    )


@pytest.mark.parametrize(("point", "who"), DEATHS)
def test_wherever_the_worker_dies_the_result_its_link_and_its_chord_come_once(
    redis: Redis,
    start_worker: Callable[..., Worker],
    start_deadly: Callable[..., None],
    tmp_path: Path,
    point: str,
    who: str,
) -> None:
    start_deadly(point, who)
    member_id = uuid()
    own, foreign = diarize.si("http://stand.in/turns/9/1"), note.s("called").set(queue="backend")
    member = diarize.s("http://stand.in/turns/5/1").set(task_id=member_id, link=[own, foreign])
    body = chord([member, diarize.s("http://stand.in/turns/6/2").set(countdown=0.1)])(
        count_speakers.s().set(queue="backend", link=note.s("body-done").set(queue="backend"))
    )
    wait_until((tmp_path / "died").exists, what="the worker dies")
    start_worker(QUEUE_LEASE_SECONDS=LEASE_SECONDS)
    assert body.get(timeout=30) == [1, 2]
    assert diarize.AsyncResult(member_id).get(timeout=10)["audio_seconds"] == 5
    wait_until(lambda: settled(redis), what="all is told")
    record = diarize.records.get(member_id)
    assert record is not None
    assert record.result == diarize.AsyncResult(member_id).get(timeout=5)
    # The backend's worker acknowledges what it takes before it has run it, and that is then in no list.
    wait_until(lambda: redis.llen("body-done") and redis.llen("called"), what="the backend's callbacks have run")
    assert redis.llen("body-done") == 1
    assert starts(tmp_path, "/turns/9/1") == 1, "the link ran once"
    # A callback that is not ours may be called twice, by one id, where the worker dies right after.
    assert redis.llen("called") == (2 if point == "called" else 1)
    assert starts(tmp_path, "/turns/5/1") == (2 if point == "ran" else 1)


@pytest.mark.parametrize(("point", "who"), [("recorded", "child"), ("stored", "main"), ("counted", "child")])
def test_wherever_the_worker_dies_a_failure_is_told_once(
    redis: Redis,
    start_worker: Callable[..., Worker],
    start_deadly: Callable[..., None],
    tmp_path: Path,
    point: str,
    who: str,
) -> None:
    start_deadly(point, who, DEADLY_END="dead")
    member_id = uuid()
    member = diarize.s("http://stand.in/fail/permanent").set(
        task_id=member_id, link_error=[note_error.s("errors").set(queue="backend")]
    )
    body = chord([member, diarize.s("http://stand.in/turns/6/2").set(countdown=3)])(
        count_speakers.s().set(queue="backend")
    )
    wait_until((tmp_path / "died").exists, what="the worker dies")
    start_worker(QUEUE_LEASE_SECONDS=LEASE_SECONDS)
    with pytest.raises(RecordingUndecodable):
        diarize.AsyncResult(member_id).get(timeout=30)
    wait_until(lambda: body.state == "FAILURE", what="the chord hears of it")
    assert isinstance(body.result, ChordError)
    wait_until(lambda: settled(redis), what="all is told")
    assert redis.lrange("errors", 0, -1) == [member_id]
    assert starts(tmp_path, "/fail/permanent") == 1


@pytest.mark.parametrize("who", ["child", "main"])
def test_a_chain_goes_on_once(
    redis: Redis, start_worker: Callable[..., Worker], start_deadly: Callable[..., None], tmp_path: Path, who: str
) -> None:
    start_deadly("called", who)
    steps = chain(diarize.s("http://stand.in/turns/5/1"), diarize.si("http://stand.in/turns/6/2")).apply_async()
    wait_until((tmp_path / "died").exists, what="the worker dies")
    start_worker(QUEUE_LEASE_SECONDS=LEASE_SECONDS)
    assert len(steps.get(timeout=30)["speakers"]) == 2
    wait_until(lambda: settled(redis), what="all is told")
    assert (starts(tmp_path, "/turns/5/1"), starts(tmp_path, "/turns/6/2")) == (1, 1)


def test_an_end_of_which_nobody_was_told_gets_another_ticket(
    redis: Redis, start_worker: Callable[..., Worker], start_deadly: Callable[..., None], tmp_path: Path
) -> None:
    """The worker died with the end in the record alone, and then the broker lost the message, too."""
    start_deadly("recorded", "main")
    job = diarize.apply_async(("http://stand.in/turns/5/1",), link=note.s("told").set(queue="backend"))
    wait_until((tmp_path / "died").exists, what="the worker dies")
    wait_until(lambda: state(job.id) is State.DONE)
    redis.delete("diarize:unacked", "diarize:unacked_index")
    worker = start_worker(QUEUE_LEASE_SECONDS=LEASE_SECONDS)
    assert job.get(timeout=60)["audio_seconds"] == 5
    wait_until(lambda: settled(redis))
    assert redis.llen("told") == 1
    assert f"job {job.id} has ended (done) and nobody has been told" in worker.log
    assert starts(tmp_path, "/turns/5/1") == 1


@pytest.mark.parametrize("path", ["turns/5/1", "fail/permanent"])
def test_a_copy_of_a_job_that_has_been_told_tells_nobody_again(
    redis: Redis, start_worker: Callable[..., Worker], tmp_path: Path, path: str
) -> None:
    """Long after: Celery's own memory of who was counted in a chord (five minutes) has run out."""
    worker, only = start_worker(), uuid()
    header = [
        diarize.s(f"http://stand.in/{path}").set(
            task_id=only,
            link=[note.s("called").set(queue="backend")],
            link_error=[note_error.s("called").set(queue="backend")],
        )
    ]
    chord(header)(note.s("body").set(queue="backend"))
    wait_until(lambda: settled(redis) and state(only).ended, what="all is told")
    before = (redis.llen("called"), redis.llen("body"))
    for key in redis.scan_iter("diarize:celery-taskset-meta-*"):
        redis.delete(key)
    record = diarize.records.get(only)
    assert record is not None
    publish(diarize, record)
    wait_until(lambda: worker.log.count(f"{only}] received") == 2 and settled(redis), what="the copy is met")
    diarize.delay("http://stand.in/turns/7/1").get(timeout=30)
    wait_until(lambda: settled(redis))
    assert (redis.llen("called"), redis.llen("body")) == before == (1, 1 if path.startswith("turns") else 0)
