"""Messages that others have written into Redis, as docs/produce.md shows them, and ones that are none of a job."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from diarization.errors import InvalidJob
from tasks.diarize import diarize
from tasks.record import State
from tests.bridge import emulated, start_bridge
from tests.jobs import record, starts
from tests.pages import code_blocks
from tests.processes import Worker, wait_until

LIST = "diarize:diarize\x06\x166"

Message = dict[str, Any]


@pytest.fixture(scope="module")
def worker(module_redis: Redis, start_module_worker: Callable[..., Worker]) -> Worker:
    return start_module_worker()


def message_of_the_page(url: str, **options: Any) -> tuple[str, Message]:
    """The message that the page shows whole, of another job and for another recording."""
    (shown,) = code_blocks("produce.md", "json")
    message: Message = json.loads(shown)
    message["body"] = json.dumps([[url], options, {}])
    message["headers"]["id"] = message["properties"]["delivery_tag"] = job_id = str(uuid.uuid4())
    return job_id, message


def test_the_message_twice_is_one_job(module_redis: Redis, worker: Worker) -> None:
    job_id, message = message_of_the_page("http://stand.in/turns/20/1/pushed-twice", num_speakers=2)
    module_redis.lpush(LIST, json.dumps(message), json.dumps(message))
    assert len(diarize.AsyncResult(job_id).get(timeout=30)["speakers"]) == 2
    wait_until(lambda: module_redis.llen(LIST) == 0)
    diarize.delay("http://stand.in/turns/5/1?after").get(timeout=30)
    assert starts(worker.folder, "/pushed-twice") == 1


def test_how_a_failure_reads(module_redis: Redis, worker: Worker) -> None:
    job_id, message = message_of_the_page("http://stand.in/fail/recording_not_found")
    module_redis.lpush("diarize:diarize", json.dumps(message))
    key = f"diarize:celery-task-meta-{job_id}"
    ended = json.loads(str(wait_until(lambda: module_redis.get(key))))
    assert (ended["status"], ended["result"]["exc_type"]) == ("FAILURE", "RecordingNotFound")
    error = json.loads(str(module_redis.hget(f"diarize:job:{job_id}", "error")))
    assert error["code"] == "recording_not_found"
    assert error["advice"]


def test_priorities_are_the_lists_that_the_page_names(module_redis: Redis, worker: Worker) -> None:
    """Pushed last first, taken first first."""
    blocker = diarize.delay("http://stand.in/sleep/2")
    wait_until(lambda: record(blocker).state is State.RUNNING)
    ids = []
    for step in ("\x06\x169", "\x06\x166", "\x06\x163", ""):
        job_id, message = message_of_the_page("http://stand.in/turns/5/1")
        module_redis.lpush(f"diarize:diarize{step}", json.dumps(message))
        ids.insert(0, job_id)
    wait_until(lambda: all(diarize.AsyncResult(job_id).ready() for job_id in ids))
    begun = [record(job_id).started_at or 0 for job_id in ids]
    assert begun == sorted(begun)


def without(*path: str) -> Callable[[Message], str]:
    """The message, less what stands at `path`."""

    def change(message: Message) -> str:
        part = message
        for name in path[:-1]:
            part = part[name]
        del part[path[-1]]
        return json.dumps(message)

    return change


def having(value: Any, *path: str) -> Callable[[Message], str]:
    """The message, with another value at `path`."""

    def change(message: Message) -> str:
        part = message
        for name in path[:-1]:
            part = part[name]
        part[path[-1]] = value
        return json.dumps(message)

    return change


ANONYMOUS = {
    "not JSON": lambda _: "hello",
    "empty": lambda _: "",
    "a list": lambda _: "[]",
    "null": lambda _: "null",
    "no id": without("headers", "id"),
    "another kind of id": having(5, "headers", "id"),
    "no headers": without("headers"),
    "headers in a list": having([], "headers"),
}
INVALID = {
    "no task": (without("headers", "task"), "headers.task"),
    "another kind of task": (having({}, "headers", "task"), "headers.task"),
    "no properties": (without("properties"), "properties"),
    "no delivery_tag": (without("properties", "delivery_tag"), "properties.delivery_tag"),
    "no delivery_info": (without("properties", "delivery_info"), "properties.delivery_info"),
    "no body": (without("body"), "body"),
    "a body that is no JSON": (having("hello", "body"), "body"),
    "a body of two parts": (having("[[], {}]", "body"), "body"),
    "a body of the wrong parts": (having("[null, null, null]", "body"), "body"),
    "a body that is an object": (having('{"url": "SECRET"}', "body"), "body"),
    "no content-type": (without("content-type"), "body"),
    "a pickle": (having("application/x-python-serialize", "content-type"), "body"),
    "base64 that is none": (having("base64", "properties", "body_encoding"), "body"),
    "an unknown encoding": (having("rot13", "properties", "body_encoding"), "properties.body_encoding"),
    "half a time limit": (having([1], "headers", "timelimit"), "headers.timelimit"),
    "expires at no time": (having("soon", "headers", "expires"), "headers.expires"),
    "no number": (having("x", "headers", "diarize_ticket"), "headers.diarize_ticket"),
}


@pytest.mark.parametrize("change", ANONYMOUS.values(), ids=ANONYMOUS.keys())
def test_what_is_no_message_ends_no_worker(
    module_redis: Redis, worker: Worker, change: Callable[[Message], str]
) -> None:
    _, message = message_of_the_page("http://stand.in/turns/5/1")
    before = worker.log.count("is thrown away")
    module_redis.lpush(LIST, change(message))
    wait_until(lambda: worker.log.count("is thrown away") > before)
    diarize.delay("http://stand.in/turns/5/1").get(timeout=30)
    assert "Connection to broker lost" not in worker.log


@pytest.mark.parametrize(("change", "where"), INVALID.values(), ids=INVALID.keys())
def test_its_sender_is_told(module_redis: Redis, worker: Worker, change: Callable[[Message], str], where: str) -> None:
    job_id, message = message_of_the_page("http://stand.in/turns/5/1?SECRET")
    module_redis.lpush(LIST, change(message))
    with pytest.raises(InvalidJob, match=f"none of a job: {where}"):
        diarize.AsyncResult(job_id).get(timeout=30)
    diarize.delay("http://stand.in/turns/5/1").get(timeout=30)
    assert "Connection to broker lost" not in worker.log
    assert "SECRET" not in worker.log


def test_a_job_that_there_is_does_not_end_by_it(module_redis: Redis, worker: Worker) -> None:
    blocker = diarize.delay("http://stand.in/sleep/2")
    wait_until(lambda: record(blocker).state is State.RUNNING)
    before = worker.log.count("is thrown away")
    job_id, message = message_of_the_page("http://stand.in/turns/5/1")
    message["body"] = "[null, null, null]"
    module_redis.lpush(LIST, json.dumps(message))
    job = diarize.apply_async(("http://stand.in/turns/5/1",), task_id=job_id)
    assert job.get(timeout=30)["provenance"]["attempts"] == 1
    assert worker.log.count("is thrown away") == before + 1


def test_a_job_for_runpod_that_a_gpu_worker_meets(module_redis: Redis, worker: Worker) -> None:
    job_id, message = message_of_the_page("http://stand.in/turns/5/1/for-runpod", provider="runpod")
    module_redis.lpush(LIST, json.dumps(message))
    wait_until(lambda: module_redis.llen("diarize:diarize.runpod"))
    assert record(job_id).state is State.QUEUED
    assert starts(worker.folder, "/for-runpod") == 0


def test_a_job_of_the_house_that_a_bridge_meets(
    module_redis: Redis, worker: Worker, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    """It is not RunPod's to hear of, wherever its message was put."""
    with emulated(tmp_path) as emulator:
        start_bridge(start_worker, emulator)
        job_id, message = message_of_the_page("http://stand.in/turns/5/1/of-the-house", provider="local")
        module_redis.lpush("diarize:diarize.runpod", json.dumps(message))
        assert diarize.AsyncResult(job_id).get(timeout=30)["provenance"]["provider"] == "local"
        assert [one for one in emulator.submissions if "of-the-house" in str(one.input)] == []
