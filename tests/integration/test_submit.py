"""The producer's side: light, quick to fail, and never a secret in a message."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis

from diarization.errors import InvalidJob
from tasks.diarize import diarize
from tasks.record import State
from tasks.valkey import EmbeddedValkey
from tests.unit.diarization.hostile_urls import HOSTILE_URLS, HostileUrl

SUBMIT = """
import time
from diarization.errors import QueueUnavailable
from tasks.diarize import diarize
began = time.monotonic()
try:
    diarize.delay("https://example.com/a.wav?X-Signature=CANARY")
except QueueUnavailable as error:
    print(type(error).__name__, error, round(time.monotonic() - began, 1))
"""


def test_the_import_is_light(python: Callable[..., str]) -> None:
    code = "import sys; from tasks.diarize import diarize; print(*sorted(sys.modules))"
    loaded = {name.partition(".")[0] for name in python(code).split()}
    assert not loaded & {"torch", "torchaudio", "numpy", "scipy", "runpod", "pyannote", "typer", "rich", "requests"}


def test_an_impossible_url_fails_at_once_without_redis(python: Callable[..., str]) -> None:
    code = """
from diarization.errors import UrlNotAllowed
from tasks.diarize import diarize
try:
    diarize.delay("ftp://x")
except UrlNotAllowed as error:
    print(error.code)
"""
    assert python(code, REDIS_URL="redis://127.0.0.1:1/0") == "url_not_allowed\n"


# A file URL is the worker's to judge: only there is it known which folder may be read.
WRONG_IN_ITSELF = [row for row in HOSTILE_URLS if row.resolves is None and not row.url.lower().startswith("file:")]


@pytest.mark.parametrize("row", WRONG_IN_ITSELF, ids=lambda row: row.url[:40])
def test_what_is_wrong_with_the_url_itself_fails_in_the_producer(row: HostileUrl) -> None:
    with pytest.raises(row.error):
        diarize.delay(row.url)


@pytest.mark.parametrize(
    "options",
    [
        {"num_speakers": 0},
        {"num_speakers": "two"},
        {"num_speakers": 2, "min_speakers": 1},
        {"min_speakers": 3, "max_speakers": 2},
        {"num_speekers": 2},
        {"provider": "mars"},
        {"headers": {"Authorization": "Bearer x\r\nX-Evil: 1"}},
        {"headers": {"bad name": "x"}},
    ],
)
def test_impossible_options_fail_in_the_producer(options: dict[str, object]) -> None:
    with pytest.raises(InvalidJob) as caught:
        diarize.delay("https://example.com/a.wav", **options)
    assert "Bearer" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"time_limit": "x"},
        {"soft_time_limit": True},
        {"priority": "high"},
        {"shadow": 5},
        {"chord": "x"},
        {"link": "x"},
        {"group_id": 5},
        {"headers": "x"},
        {"stamped_headers": 5},
        {"link": [object()]},
        {"queue": "celery"},
        {"countdown": "soon"},
        {"eta": "tomorrow"},
        {"expires": object()},
        {"eta": 1, "countdown": 1},
    ],
)
def test_impossible_celery_options_fail_in_the_producer(options: dict[str, object]) -> None:
    with pytest.raises(InvalidJob):
        diarize.apply_async(("https://example.com/a.wav",), **options)


def test_redis_down_is_said_within_seconds(python: Callable[..., str]) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        printed = python(SUBMIT, REDIS_URL=f"redis://:hunter2@127.0.0.1:{closed.getsockname()[1]}/0")
    assert printed.startswith("QueueUnavailable Redis cannot be used")
    assert float(printed.split()[-1]) < 5
    assert "hunter2" not in printed
    assert "CANARY" not in printed


@pytest.fixture
def own_server() -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey() as server:
        yield server


def test_a_hung_redis_is_said_within_seconds(own_server: EmbeddedValkey, python: Callable[..., str]) -> None:
    own_server.process.send_signal(signal.SIGSTOP)
    printed = python(SUBMIT, REDIS_URL=own_server.url)
    assert printed.startswith("QueueUnavailable Redis cannot be used")
    assert float(printed.split()[-1]) < 5


def test_redis_that_hangs_after_the_record_was_written(own_server: EmbeddedValkey, python: Callable[..., str]) -> None:
    """The error names the job, and submitting again under its id gives one job, not two."""
    code = """
import os, signal, time
from diarization.errors import QueueUnavailable
from tasks.diarize import diarize
from tasks.records import Records

pid, create = int(os.environ["SERVER_PID"]), Records.create
def create_then_hang(*args, **kwargs):
    created = create(*args, **kwargs)
    os.kill(pid, signal.SIGSTOP)
    return created
Records.create = create_then_hang
began = time.monotonic()
try:
    diarize.apply_async(("https://example.com/a.wav",), task_id="the-job")
except QueueUnavailable as error:
    print(round(time.monotonic() - began, 1), error)
os.kill(pid, signal.SIGCONT)
Records.create = create
print(diarize.apply_async(("https://example.com/a.wav",), task_id="the-job").id)
"""
    printed = python(code, REDIS_URL=own_server.url, SERVER_PID=own_server.process.pid).splitlines()
    seconds, message = printed[0].split(" ", 1)
    assert float(seconds) < 5
    assert "the-job is recorded" in message
    assert printed[1] == "the-job"


def test_the_record_says_what_was_asked_for(redis: Redis) -> None:
    began = time.time()
    job = diarize.apply_async(
        ("https://example.com/a.wav?sig=1",), {"min_speakers": 2}, expires=60, priority=3, link=diarize.si("http://b/c")
    )
    record = diarize.records.get(job.id)
    assert record is not None
    assert record.state is State.QUEUED
    assert record.shown == "https://example.com/a.wav"
    assert record.options == {"min_speakers": 2}
    assert record.request == {"url": "https://example.com/a.wav?sig=1", "min_speakers": 2}
    assert record.ticket["options"]["priority"] == 3
    assert record.ticket["options"]["link"]["task"] == "tasks.diarize.diarize"
    assert record.expires_at == pytest.approx(began + 60, abs=5)
    assert record.submitted_at == pytest.approx(began, abs=5)
    assert "sig=1" not in repr(record)


@pytest.mark.parametrize(
    ("url", "options", "queue"),
    [
        ("https://example.com/a.wav", {}, "diarize"),
        ("https://example.com/a.wav", {"provider": "local"}, "diarize.local"),
        ("file:///recordings/a.wav", {}, "diarize.local"),
        ("http://192.168.1.5/a.wav", {}, "diarize.local"),
        ("http://[::1]/a.wav", {}, "diarize.local"),
        ("http://nas.local/a.wav", {}, "diarize.local"),
    ],
)
def test_where_a_job_may_run_chooses_the_queue(redis: Redis, url: str, options: dict[str, str], queue: str) -> None:
    diarize.delay(url, **options)
    assert redis.llen(f"diarize:{queue}\x06\x166") == 1


def test_a_backend_keeps_its_own_app_and_settings(python: Callable[..., str], tmp_path: Path) -> None:
    """Its current app, its `celeryconfig` and its tasks are its own, and ours are ours."""
    (tmp_path / "celeryconfig.py").write_text("broker_url = 'amqp://the-backend/'\n")
    code = """
import sys; sys.path.insert(0, "")
from celery import Celery, current_app
own = Celery("backend")
own.config_from_object("celeryconfig")
from tasks.diarize import diarize
assert current_app.main == "backend", current_app.main
assert own.conf.broker_url == "amqp://the-backend/"
assert diarize.app.conf.broker_url.startswith("redis://"), diarize.app.conf.broker_url
own.finalize()
assert diarize.name not in own.tasks
assert diarize.AsyncResult("x").app is diarize.app
"""
    python(code, cwd=tmp_path)


def test_our_celeryconfig_configures_no_other_app(python: Callable[..., str]) -> None:
    code = """
from celery import Celery
from tasks.diarize import diarize
other = Celery()
assert other.conf.broker_url is None, other.conf.broker_url
assert other.conf.task_default_queue == "celery"
assert not other.conf.task_acks_late
"""
    python(code)
