"""Flower over HTTP: who is let in, what can be done, what is shown, and what Redis' absence does to it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flower.urls import handlers
from redis import Redis

from diarization.errors import RecordingNotFound
from tasks.diarize import diarize
from tasks.valkey import EmbeddedValkey
from tests.monitored import PASSWORD, RunningFlower, running_flower
from tests.processes import Worker, run_cli, wait_until
from tests.servers import free_port

URL = "http://user:CANARY-password@stand.in/{}?X-Signature=CANARY-query#CANARY-fragment"
HEADERS = {"Authorization": "Bearer CANARY-header"}
REDIS_PASSWORD = "CANARY-redis"
SECRETS = {"HF_TOKEN": "CANARY-hf", "RUNPOD_API_KEY": "CANARY-runpod"}


@pytest.fixture(scope="module")
def flower(
    server: EmbeddedValkey, module_redis: Redis, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningFlower]:
    # The server has a password for a second user alone, so that other tests' clients need none.
    module_redis.acl_setuser("flower", enabled=True, passwords=[f"+{REDIS_PASSWORD}"], keys=["*"], channels=["*"],
                             categories=["+@all"])  # fmt: skip
    log = tmp_path_factory.mktemp("flower") / "log"
    with running_flower(log, REDIS_URL=_with_password(server.url), **SECRETS) as running:
        yield running


def _with_password(url: str) -> str:
    return url.replace("redis://", f"redis://flower:{REDIS_PASSWORD}@")


def _paths() -> list[str]:
    """A path for each of Flower's own routes, so that one which a new version adds is asked, too."""
    patterns = [one.regex.pattern if hasattr(one, "regex") else one[0] for one in handlers]
    return sorted(
        {re.sub(r"\(\.[+*]\)", "x", one).rstrip("$").replace("/?", "").replace(".*", "/none") for one in patterns}
    )


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("", "does not start without a password"),
        ("ada", "is not understood"),
        (":CANARY-password", "is not understood"),
        ("ada:", "too easily guessed"),
        ("ada:CANARY", "too easily guessed"),
        ("adalovelace:adalovelace", "too easily guessed"),
        ("ada:xxxxxxxxxx", "too easily guessed"),
        ("ada:CANARY-password,", "is not understood"),
        ("ada:CANARY-pässword", "use ASCII"),
    ],
)
def test_it_does_not_start_without_a_password(given: str, says: str) -> None:
    done = run_cli("flower", code=2, FLOWER_BASIC_AUTH=given)
    assert says in done.stderr
    assert "CANARY" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_it_says_where_it_cannot_listen_or_write(flower: RunningFlower, tmp_path: Path) -> None:
    port = flower.url.rsplit(":", 1)[1]
    auth = "ada:correct-horse"
    assert f"127.0.0.1:{port}" in run_cli("flower", "--port", port, code=2, FLOWER_BASIC_AUTH=auth).stderr
    missing = str(tmp_path / "missing" / "flower.db")
    assert "FLOWER_DB" in run_cli("flower", code=2, FLOWER_BASIC_AUTH=auth, FLOWER_DB=missing).stderr


def test_every_route_asks_for_the_password(flower: RunningFlower) -> None:
    for path in _paths():
        expected = 200 if path == "/healthcheck" else 401
        for method in ("GET", "POST", "OPTIONS"):
            if path == "/healthcheck" and method != "GET":
                continue
            assert flower.ask(path, method=method, password=None).status == expected, path
            if expected == 401:
                assert flower.ask(path, method=method, password="wrong-password").status == 401, path
                assert flower.ask(path, method=method, user="eve").status == 401, path


def test_nothing_can_be_changed(flower: RunningFlower) -> None:
    for path in _paths():
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            if (method, path) == ("POST", "/tasks/datatable"):  # the table of jobs asks by it, and changes nothing
                continue
            answer = flower.ask(path, method=method)
            assert (answer.status, answer.text) == (403, "Flower is read-only here\n"), (method, path)


def test_control_must_be_allowed(server: EmbeddedValkey, tmp_path: Path) -> None:
    with running_flower(tmp_path / "log", FLOWER_ALLOW_CONTROL="true") as flower:
        assert flower.ask("/api/task/revoke/unknown", method="POST").status == 200
        assert flower.ask("/api/task/revoke/unknown", method="POST", password=None).status == 401


def test_jobs_are_shown_without_secrets(
    flower: RunningFlower, server: EmbeddedValkey, start_worker: Callable[..., Worker]
) -> None:
    worker = start_worker(REDIS_URL=_with_password(server.url), **SECRETS)
    wait_until(lambda: json.loads(flower.ask("/api/workers?status=1").text).get("w0@test"), what="the worker is online")
    done = diarize.delay(URL.format("turns/60/3"), headers=HEADERS)
    done.get(timeout=20)
    failed = diarize.delay(URL.format("fail/recording_not_found"), headers=HEADERS)
    with pytest.raises(RecordingNotFound):
        failed.get(timeout=20)
    wait_until(lambda: _job(flower, failed.id).get("state") == "FAILURE", what="the failure is shown")

    assert _job(flower, done.id)["state"] == "SUCCESS"
    assert "http://stand.in/turns/60/3" in _job(flower, done.id)["args"]
    assert _job(flower, failed.id)["exception"].startswith("RecordingNotFound(")
    assert json.loads(flower.ask(f"/api/task/result/{done.id}").text)["result"]["segments"]

    wait_until(lambda: flower.ask("/worker/w0@test").status == 200, what="the worker's page")
    paths = [path for path in _paths() if path != "/healthcheck" and "/static" not in path]
    paths += ["/api/workers?refresh=1", "/api/workers?refresh=1&workername=w0@test", "/worker/w0@test"]
    paths += ["/workers?json=1", "/tasks/datatable?draw=1&start=0&length=9&order[0][column]=0&columns[0][data]=state"]
    paths += [f"/{page}/{job.id}" for page in ("task", "api/task/info", "api/task/result") for job in (done, failed)]
    shown = {path: flower.ask(path).text for path in paths}
    assert "http://stand.in/fail" in shown[f"/task/{failed.id}"]
    assert "diarize" in shown["/broker"]
    assert not [path for path, text in shown.items() if "CANARY" in text]
    assert "CANARY" not in flower.log
    assert "CANARY" not in worker.log


def test_pages_load_nothing_from_elsewhere(flower: RunningFlower) -> None:
    answer = flower.ask("/tasks")
    assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["Cache-Control"] == "no-store"


def test_a_prefix_for_a_reverse_proxy(server: EmbeddedValkey, tmp_path: Path) -> None:
    with running_flower(tmp_path / "log", FLOWER_URL_PREFIX="/flower/") as flower:
        assert "/flower/static/" in flower.ask("/flower/tasks").text
        assert flower.ask("/flower/tasks", password=None).status == 401
        assert flower.ask("/flower/healthcheck", password=None).status == 200


def test_it_waits_for_redis_and_keeps_its_history(tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "log"
    settings = {"REDIS_URL": f"redis://127.0.0.1:{port}/0", "FLOWER_DB": tmp_path / "flower.db"}
    with running_flower(log, **settings) as flower:
        wait_until(lambda: "waits for Redis" in flower.log)
        assert flower.ask("/tasks").status == 200
        with EmbeddedValkey(tmp_path, port=port) as running, Redis.from_url(running.url) as client:
            wait_until(lambda: "hears from Redis again" in flower.log)
            wait_until(lambda: client.pubsub_numpat() > 0, what="it listens")
        wait_until(lambda: flower.log.count("waits for Redis") == 2)
        assert flower.ask("/broker").status == 200
        with EmbeddedValkey(tmp_path, port=port) as running, Redis.from_url(running.url) as client:
            wait_until(lambda: flower.log.count("hears from Redis again") == 2)
            wait_until(lambda: client.pubsub_numpat() > 0, what="it listens")
            _send_event(running.url)
            wait_until(lambda: "job-of-a-test" in flower.ask("/api/tasks").text)
    assert "Traceback" not in flower.log
    assert PASSWORD not in flower.log
    with running_flower(log, **settings) as flower:
        assert "job-of-a-test" in flower.ask("/api/tasks").text


def _send_event(url: str) -> None:
    """One event of a worker, by Celery's own dispatcher."""
    with diarize.app.connection_for_write(url) as connection:
        dispatcher = diarize.app.events.Dispatcher(connection, hostname="w9@test")
        dispatcher.send("task-received", uuid="job-of-a-test", name="tasks.diarize.diarize", args="()", kwargs="{}")


def _job(flower: RunningFlower, job_id: str) -> dict[str, str]:
    jobs: dict[str, dict[str, str]] = json.loads(flower.ask("/api/tasks").text)
    return jobs.get(job_id, {})
