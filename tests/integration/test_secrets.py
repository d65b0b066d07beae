"""Canaries: a signed URL's query, a password in a URL and a header's value show nowhere but in the record itself."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from celery.events import EventReceiver
from redis import Redis

from diarization.errors import InternalError, RecordingUndecodable
from tasks.diarize import diarize
from tasks.record import State
from tasks.valkey import EmbeddedValkey
from tests.processes import Worker, wait_until

URL = "http://user:CANARY-password@stand.in/{}?X-Signature=CANARY-query#CANARY-fragment"
HEADERS = {"Authorization": "Bearer CANARY-header"}


def everything(redis: Redis, *, records: bool) -> list[str]:
    """Every value in the server, message bodies decoded; the records' own only where asked for."""
    read: dict[str, Callable[[str], list[Any]]] = {
        "list": lambda key: redis.lrange(key, 0, -1),
        "hash": lambda key: [f"{name}={value}" for name, value in redis.hgetall(key).items()],
        "zset": lambda key: redis.zrange(key, 0, -1),
        "set": lambda key: [*redis.smembers(key)],
        "string": lambda key: [redis.get(key)],
    }
    texts = []
    for key in redis.scan_iter("*"):
        if not records and key.startswith("diarize:job:"):
            continue
        for value in read[redis.type(key)](key):
            texts.append(f"{key} {value}")
            if value.startswith("{") and isinstance(body := json.loads(value).get("body"), str):
                texts.append(base64.b64decode(body).decode())
    return texts


@contextmanager
def heard_events() -> Iterator[list[Any]]:
    """What Flower would hear."""
    events: list[Any] = []
    with diarize.app.connection_for_read() as connection:
        receiver = EventReceiver(connection, handlers={"*": events.append}, app=diarize.app)
        thread = threading.Thread(target=receiver.capture, kwargs={"limit": None, "wakeup": True})
        thread.start()
        try:
            yield events
        finally:
            receiver.should_stop = True
            thread.join()


def assert_no_canary(texts: list[str]) -> None:
    assert not [text for text in texts if "CANARY" in text]


def test_a_ticket_carries_no_secret(redis: Redis) -> None:
    diarize.apply_async((URL.format("meeting.wav"),), {"headers": HEADERS, "num_speakers": 2}, argsrepr="CANARY")
    texts = everything(redis, records=False)
    assert any("http://stand.in/meeting.wav" in text for text in texts), "the operator sees which recording it is"
    assert any("num_speakers" in text for text in texts)
    assert_no_canary(texts)


def test_no_secret_in_logs_events_inspect_errors_and_results(redis: Redis, start_worker: Callable[..., Worker]) -> None:
    worker = start_worker(CELERY_LOG_LEVEL="DEBUG", QUEUE_RETRY_BASE_SECONDS=0.1, QUEUE_MAX_ATTEMPTS=2)
    with heard_events() as events:
        wait_until(lambda: any(event["type"] == "worker-heartbeat" for event in events), what="events are heard")

        running = diarize.delay(URL.format("sleep/60"), headers=HEADERS)
        wait_until(lambda: _state(running.id) is State.RUNNING)
        active = diarize.app.control.inspect(timeout=5).active()
        assert active
        assert running.id in repr(active)
        waiting = diarize.delay(URL.format("turns/5/1"), headers=HEADERS)
        reserved = repr(diarize.app.control.inspect(timeout=5).query_task(running.id, waiting.id))
        running.revoke()

        result = waiting.get(timeout=20)
        leaked = diarize.delay(URL.format("leak"), headers=HEADERS)
        with pytest.raises(InternalError) as leak:
            leaked.get(timeout=20)
        failed = diarize.delay(URL.format("fail/permanent"), headers=HEADERS)
        with pytest.raises(RecordingUndecodable):
            failed.get(timeout=20)
        retried = diarize.delay(URL.format("fail/transient/1"), headers=HEADERS)
        retried.get(timeout=20)
        wait_until(lambda: any(e["type"] == "task-succeeded" and e["uuid"] == retried.id for e in events))

    assert "http://stand.in/leak" in str(leak.value), "which recording it was can be told"
    assert "http://stand.in/leak" in worker.log
    assert {"task-sent", "task-received", "task-started", "task-failed", "task-retried", "task-revoked"} <= {
        event["type"] for event in events
    }
    assert_no_canary([repr(event) for event in events])
    assert_no_canary([worker.log, repr(active), reserved, repr(result), str(leak.value), leaked.traceback or ""])
    assert_no_canary(everything(redis, records=False))
    kept = [text for text in everything(redis, records=True) if "CANARY" in text]
    assert {text.split("=")[0].split()[1] for text in kept} == {"request"}, "only there, and only of dead letters"
    assert {text.split()[0] for text in kept} == {f"diarize:job:{job.id}" for job in (leaked, failed)}


def _state(job_id: str) -> State | None:
    record = diarize.records.get(job_id)
    return record.state if record else None


def test_no_secret_in_the_surroundings(
    redis: Redis, start_worker: Callable[..., Worker], python: Callable[..., str]
) -> None:
    """Redis' password and the hub's token: not in logs, also when Redis goes away, in argv or what the CLI prints."""
    with EmbeddedValkey() as server:
        with Redis.from_url(server.url) as client:
            client.config_set("requirepass", "CANARY-redis")
        url = server.url.replace("redis://", "redis://:CANARY-redis@")
        worker = start_worker(
            REDIS_URL=url,
            HF_TOKEN="CANARY-token",
            QUEUE_MAX_ATTEMPTS=2,
            QUEUE_RETRY_BASE_SECONDS=0.1,
            options=("-l", "debug"),
        )
        settings = {"REDIS_URL": url, "HF_TOKEN": "CANARY-token"}
        submit = f"""
from tasks.diarize import diarize
for path in ("leak", "fail/transient"):
    job = diarize.delay({URL!r}.format(path), headers={HEADERS!r}, idempotency_key="key-of-" + path[:4])
    job.get(timeout=20, propagate=False)
    print(job.id)
"""
        ids = python(submit, **settings).split()
        client = Redis.from_url(url, decode_responses=True)
        kept = [text for text in everything(client, records=True) if "CANARY" in text]
        assert {text.split("=")[0].split()[1] for text in kept} == {"request"}
        pids = [worker.process.pid, *worker.children]
        argv = [Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ") for pid in pids]
        cli = "import sys; from tasks.__main__ import main; sys.argv = ['diarize-queue', *{}]; main()"
        commands = (
            ["dead", "list"],
            ["dead", "list", "--json"],
            ["dead", "show", ids[0]],
            ["list", "--json"],
            ["status", *ids],
        )
        printed = [python(cli.format(command), **settings) for command in commands]
        server.kill()
        wait_until(lambda: "heartbeat cannot reach Redis" in worker.log or "Connection to broker lost" in worker.log)
        refused = python(SUBMIT_TO_NOBODY, **settings)
    for job_id in ids:
        assert any(job_id in text for text in printed)
    assert "QueueUnavailable" in refused
    assert_no_canary([worker.log, refused, *argv, *printed])


SUBMIT_TO_NOBODY = """
import traceback
from tasks.diarize import diarize
try:
    diarize.delay("http://stand.in/x")
except Exception:
    print(traceback.format_exc())
"""
