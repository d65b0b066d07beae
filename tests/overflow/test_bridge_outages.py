"""Outages at bad moments, answers that are none, and jobs that meet the wrong worker: nothing is lost, owed or told."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from diarization.errors import QueueUnavailable
from tasks.celery import app
from tasks.diarize import diarize
from tasks.record import State
from tasks.runpod_bridge import diarize_on_runpod
from tasks.valkey import EmbeddedValkey
from tests.bridge import HASTY, emulated, ledger, start_bridge
from tests.emulator import Emulator, Fault
from tests.jobs import answers, record
from tests.processes import Worker, wait_until
from tests.servers import LOOPBACK, in_thread

Start = Callable[..., Worker]

SIGNED = "http://stand.in/turns/5/1?X-Amz-Signature=CANARYSIGNATURE"


def hasty(start: Start, emulator: Emulator, **settings: Any) -> Worker:
    return start_bridge(start, emulator, arguments=("-A", "tests.hasty"), **{**HASTY, **settings})


def ended(job: Any) -> bool:
    try:
        return record(job).state.ended
    except QueueUnavailable:
        return False


def restart(server: EmbeddedValkey, redis: Redis) -> None:
    server.start()
    wait_until(lambda: answers(redis))


def test_redis_is_down_while_runpod_accepts_the_job(
    redis: Redis, server: EmbeddedValkey, start_worker: Start, tmp_path: Path
) -> None:
    with emulated(tmp_path) as emulator:
        emulator.script(Fault("run", "hold-after"))
        hasty(start_worker, emulator, QUEUE_LEASE_SECONDS=10)
        job = diarize_on_runpod.delay("http://stand.in/sleep/1")
        wait_until(lambda: emulator.submissions)
        server.kill()
        emulator.release()
        time.sleep(2)
        restart(server, redis)
        wait_until(lambda: ended(job), seconds=60)
        assert record(job).state is State.DONE
        assert len(emulator.submissions) == 1
        assert ledger(redis).today().in_flight == 0


def test_a_bridge_is_told_to_end_while_redis_is_down(
    redis: Redis, server: EmbeddedValkey, start_worker: Start, tmp_path: Path
) -> None:
    with emulated(tmp_path) as emulator:
        first = hasty(start_worker, emulator, QUEUE_GRACE_SECONDS=2, OVERFLOW_SECONDS_PER_AUDIO_HOUR=600)
        job = diarize_on_runpod.delay("http://stand.in/wait/go")
        wait_until(lambda: record(job).stage == "at runpod")
        server.kill()
        wait_until(lambda: "Trying again in" in first.log)
        assert first.stop() == 0
        restart(server, redis)
        second = hasty(start_worker, emulator)
        (tmp_path / "go").touch()
        wait_until(lambda: ended(job), seconds=60)
        assert (record(job).state, len(emulator.submissions)) == (State.DONE, 1)
        assert "is found again as run" in second.log


def test_redis_is_down_while_runpod_refuses_the_key(
    redis: Redis, server: EmbeddedValkey, start_worker: Start, tmp_path: Path
) -> None:
    with emulated(tmp_path) as emulator:
        hasty(start_worker, emulator, QUEUE_LEASE_SECONDS=10)
        job = diarize_on_runpod.delay("http://stand.in/wait/go")
        wait_until(lambda: record(job).stage == "at runpod")
        server.kill()
        emulator.script(Fault("status", "status", status=401, times=3))
        time.sleep(3)
        restart(server, redis)
        (tmp_path / "go").touch()
        wait_until(lambda: ended(job), seconds=60)
        assert record(job).state is State.DONE
        assert ledger(redis).today().in_flight == 0


@pytest.mark.parametrize("point", ["thought", "reserved"])
def test_a_gpu_worker_does_what_was_never_sent(redis: Redis, start_worker: Start, tmp_path: Path, point: str) -> None:
    """The bridge dies for good."""
    with emulated(tmp_path) as emulator:
        bridge = hasty(start_worker, emulator, DIES_AT=point)
        job = diarize.delay("http://stand.in/turns/5/1")
        assert bridge.process.wait(60) == -9
        start_worker(QUEUE_LEASE_SECONDS=3)
        result = job.get(timeout=60)
        assert result["provenance"]["provider"] == "local"
        assert emulator.submissions == []
        today = ledger(redis).today()
        assert (today.in_flight, today.spent_usd, result["provenance"]["cost_usd"]) == (0, 0, 0)


def test_a_job_that_is_cancelled_before_it_was_sent_is_never_sent(
    redis: Redis, start_worker: Start, tmp_path: Path
) -> None:
    with emulated(tmp_path) as emulator:
        bridge = hasty(start_worker, emulator, DIES_AT="thought")
        job = diarize_on_runpod.delay("http://stand.in/turns/5/1")
        assert bridge.process.wait(60) == -9
        job.revoke()
        hasty(start_worker, emulator)
        wait_until(lambda: ended(job))
        assert record(job).state is State.CANCELLED
        assert emulator.submissions == []


def test_celery_s_own_revoke_leaves_no_reservation_open(redis: Redis, start_worker: Start, tmp_path: Path) -> None:
    """It ends the job and says nothing to RunPod: what was reserved is booked."""
    with emulated(tmp_path) as emulator:
        first = hasty(start_worker, emulator)
        job = diarize_on_runpod.delay("http://stand.in/wait/go")
        wait_until(lambda: record(job).stage == "at runpod")
        hasty(start_worker, emulator)
        app.control.revoke(job.id)
        time.sleep(1)
        assert first.stop() == 0
        wait_until(lambda: ended(job), seconds=60)
        assert record(job).state is State.CANCELLED
        wait_until(lambda: ledger(redis).today().in_flight == 0)
        assert ledger(redis).today().spent_usd > 0


def test_a_shutdown_by_remote_control_ends_a_bridge(redis: Redis, start_worker: Start, tmp_path: Path) -> None:
    with emulated(tmp_path) as emulator:
        bridge = hasty(start_worker, emulator)
        job = diarize_on_runpod.delay("http://stand.in/wait/go")
        wait_until(lambda: record(job).stage == "at runpod")
        app.control.shutdown()
        assert bridge.process.wait(30) == 0
        assert record(job).state is not State.DEAD
        hasty(start_worker, emulator)
        (tmp_path / "go").touch()
        assert job.get(timeout=60)["provenance"]["attempts"] == 1
        assert len(emulator.submissions) == 1


@contextmanager
def echo(status: int) -> Iterator[str]:
    """An endpoint that repeats what it was sent in its error; with 200, of a run that failed."""

    class Echo(BaseHTTPRequestHandler):
        said = ""

        def do_POST(self) -> None:
            Echo.said = self.rfile.read(int(self.headers["Content-Length"])).decode() + str(self.headers)
            self.answer(status, {"id": "run1"} if status == 200 else {"error": Echo.said})

        def do_GET(self) -> None:
            self.answer(200, {"status": "FAILED", "error": Echo.said, "executionTime": 1000})

        def answer(self, code: int, body: dict[str, Any]) -> None:
            raw = json.dumps(body).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer((LOOPBACK, 0), Echo) as running, in_thread(running):
        yield f"http://{LOOPBACK}:{running.server_address[1]}/v2"


@pytest.mark.parametrize("status", [200, 400, 403, 429, 500])
def test_what_runpod_repeats_of_a_request_is_told_nobody(
    redis: Redis, start_worker: Start, tmp_path: Path, status: int
) -> None:
    with echo(status) as url, emulated(tmp_path) as emulator:
        bridge = hasty(start_worker, emulator, RUNPOD_ENDPOINT_BASE_URL=url, QUEUE_MAX_ATTEMPTS=1)
        headers = {"Authorization": "Bearer CANARYHEADER"}
        job = diarize_on_runpod.delay(SIGNED, headers=headers, deadline_seconds=2)
        wait_until(lambda: record(job).last_error or record(job).error)
        told = [bridge.log, str(record(job).last_error), str(record(job).error)]
        told += [str(redis.get(key)) for key in redis.scan_iter("diarize:fleet:*") if redis.type(key) == "string"]
        assert "CANARY" not in "".join(told)
        assert emulator.settings.api_key not in "".join(told)
