"""The doctor before a RunPod that is set up wrongly, or unwell: the emulator, and a ledger in a real Redis."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests
from pydantic import SecretStr
from redis import Redis

from tasks.checks import overflow, runpod
from tasks.checks.finding import Fault, Mark, Role, Subject
from tasks.doctor import examine
from tasks.overflow.breaker import Breaker
from tasks.overflow.budget import Ledger
from tasks.overflow.outcomes import Outcomes
from tasks.registry import WorkerFacts
from tasks.runpod.api import max_workers
from tasks.settings import Settings
from tasks.valkey import EmbeddedValkey
from tasks.version import code_version
from tests.emulator import Emulator
from tests.emulator import Fault as Scripted
from tests.servers import LOOPBACK, free_port, serve


@pytest.fixture
def emulator(tmp_path: Path) -> Iterator[Emulator]:
    """An endpoint none of whose workers is started."""
    with Emulator(tmp_path) as running:
        yield running


@pytest.fixture
def at(emulator: Emulator, server: EmbeddedValkey, redis: Redis) -> Subject:
    """A host that is set up for that endpoint."""
    settings = Settings(
        redis_url=SecretStr(server.url),
        runpod_api_key=SecretStr(emulator.settings.api_key),
        runpod_endpoint_id=emulator.settings.endpoint_id,
        runpod_endpoint_base_url=emulator.url,
        runpod_management_base_url=emulator.url,
        overflow_max_in_flight=1,
        overflow_usd_per_second=0.0002,
    )
    return Subject(settings, Role.BRIDGE)


def having(at: Subject, **settings: Any) -> Subject:
    return replace(at, settings=at.settings.model_copy(update=settings))


def test_all_is_well_but_that_no_bridge_is_alive(at: Subject) -> None:
    found = {told.check.name: told.finding for told in examine(at) if told.check.group == "runpod"}
    assert found.pop("bridge").fault is overflow.NO_BRIDGE
    assert found.pop("image").mark is Mark.SKIPPED, "no job was done there yet"
    assert {finding.mark for finding in found.values()} == {Mark.OK}, found
    assert found["max workers"].says == "1"


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"runpod_api_key": SecretStr("wrong-key")}, runpod.BAD_KEY),
        ({"runpod_endpoint_id": "another"}, runpod.NO_ENDPOINT),
        ({"runpod_endpoint_id": None}, runpod.HALF_SET),
        ({"runpod_endpoint_base_url": "https://rest.runpod.io/v1"}, runpod.WRONG_API),
        ({"runpod_endpoint_base_url": "http://api.runpod.ai/v2"}, runpod.IN_THE_CLEAR),
        ({"runpod_endpoint_base_url": f"http://{LOOPBACK}:{free_port()}/v2"}, runpod.UNREACHABLE),
    ],
)
def test_what_is_set_wrongly(at: Subject, settings: dict[str, Any], fault: Fault) -> None:
    told = [one for one in examine(having(at, **settings)) if one.check.group == "runpod"]
    assert told[0].finding.fault is fault
    assert {one.finding.mark for one in told[1:3]} == {Mark.SKIPPED}
    assert "wrong-key" not in told[0].finding.says


@pytest.mark.parametrize(
    ("scripted", "fault"),
    [
        (Scripted("health", "status", status=403), runpod.NO_RIGHT),
        (Scripted("health", "status", status=500), runpod.TROUBLE),
        (Scripted("health", "html", status=404), runpod.WRONG_API),
        (Scripted("health", "reset-before"), runpod.UNREACHABLE),
    ],
)
def test_what_runpod_answers(at: Subject, emulator: Emulator, scripted: Scripted, fault: Fault) -> None:
    emulator.script(scripted)
    assert runpod.endpoint(at).fault is fault


def test_an_endpoint_for_which_runpod_has_no_gpu(at: Subject, emulator: Emulator) -> None:
    emulator.change(throttled=True)
    requests.post(f"{emulator.endpoint_url}/run", json={"input": {}}, headers=emulator.headers, timeout=10)
    assert runpod.workers(at).fault is runpod.THROTTLED
    assert "1 job in its queue" in runpod.endpoint(at).says


@pytest.mark.parametrize(
    ("workers", "fault", "says"),
    [
        ({"unhealthy": 2, "throttled": 1}, runpod.UNHEALTHY, "2 unhealthy, 1 throttled"),
        ({"idle": 1, "running": 2}, None, "1 idle, 2 running"),
        ({"throttled": "many"}, None, "none runs"),
        (["odd"], None, "none runs"),
    ],
)
def test_what_the_health_says_of_workers(at: Subject, workers: Any, fault: Fault | None, says: str) -> None:
    with serve(lambda request: answer(request, {"workers": workers})) as site:
        found = runpod.workers(having(at, runpod_endpoint_base_url=site.url))
    assert (found.fault, says in found.says) == (fault, True)


@pytest.mark.parametrize(("most", "fault"), [(0, runpod.NO_WORKERS), (2, runpod.FEW_WORKERS), (3, None)])
def test_max_workers(at: Subject, emulator: Emulator, most: int, fault: Fault | None) -> None:
    emulator.change(max_workers=most)
    assert runpod.max_workers(having(at, overflow_max_in_flight=3)).fault is fault


@pytest.mark.parametrize(
    "body",
    ["not an object", [], {}, {"workers": 3}, {"workers": {}}, {"workers": {"max": "3"}}, {"workers": {"max": -1}}],
)
def test_a_management_api_that_answers_in_another_way_is_a_warning(at: Subject, body: Any) -> None:
    with serve(lambda request: answer(request, body)) as site:
        elsewhere = having(at, runpod_management_base_url=site.url)
        assert max_workers(elsewhere.settings) is None
        assert runpod.max_workers(elsewhere).fault is runpod.UNKNOWN_WORKERS


def answer(request: Any, body: Any) -> None:
    written = json.dumps(body).encode()
    request.send_response(200)
    request.send_header("Content-Type", "application/json")
    request.send_header("Content-Length", str(len(written)))
    request.end_headers()
    request.wfile.write(written)


def done_by_runpod(redis: Redis, job_id: str, at: float, **provenance: Any) -> None:
    """A job that is done, as its record says."""
    result = {"segments": [], "provenance": {"provider": "runpod", **provenance}}
    fields = {"state": "done", "cost_usd": "0.01", "result": json.dumps(result)}
    redis.hset(f"diarize:job:{job_id}", mapping=fields)
    redis.zadd("diarize:state:done", {job_id: at})


def test_the_image_by_its_last_job(at: Subject, redis: Redis) -> None:
    assert runpod.image(at).mark is Mark.SKIPPED
    number = code_version().split()[0]
    done_by_runpod(redis, "a", 1, model="community-1", versions={"diarize-queue": number})
    done_by_runpod(redis, "b", 2, model="community-1", provider="local", versions={"diarize-queue": "0.0"})
    assert runpod.image(at).mark is Mark.OK
    redis.hset("diarize:fleet:workers", "gpu", WorkerFacts(model="community-1", precision="fast").to_json())
    redis.zadd("diarize:fleet:workers_seen", {"gpu": redis.time()[0]})
    finding = runpod.image(at)
    assert (finding.fault, "here community-1 fast" in finding.says) == (runpod.OTHER_IMAGE, True)
    redis.delete("diarize:fleet:workers")
    done_by_runpod(redis, "c", 3, model="community-1", versions={"diarize-queue": "0.0"})
    assert runpod.image(at).fault is runpod.OTHER_IMAGE


def test_the_money(at: Subject, redis: Redis) -> None:
    assert overflow.budget(having(at, overflow_budget_usd_per_day=0.0)).fault is overflow.NO_BUDGET
    assert overflow.budget(having(at, overflow_budget_usd_per_day=0.01)).fault is overflow.SMALL_BUDGET
    unpriced = at.settings.model_dump(exclude={"overflow_usd_per_second"}, exclude_unset=True)
    assert overflow.budget(replace(at, settings=Settings(**unpriced))).fault is overflow.DEFAULT_PRICE
    ledger = Ledger(redis, at.settings)
    assert ledger.reserve("attempt", 9.9, 1) == "reserved"
    finding = overflow.budget(at)
    assert (finding.fault, "9.90 of 10 USD today" in finding.says) == (overflow.SPENT, True)
    ledger.shut("Redis lost data")
    assert overflow.budget(at).fault is overflow.SHUT


def test_what_the_last_runs_say(at: Subject, redis: Redis) -> None:
    outcomes = Outcomes(redis, at.settings)
    for _ in range(4):
        outcomes.add(worked=True, delay_seconds=1, execution_seconds=60, audio_seconds=3600)
    assert overflow.runs(at).mark is Mark.OK
    assert overflow.runs(having(at, overflow_seconds_per_audio_hour=70)).fault is overflow.TIGHT_BOUNDS
    assert overflow.runs(having(at, overflow_dry_run=True)).fault is overflow.DRY_RUN
    for _ in range(4):
        outcomes.add(worked=False, delay_seconds=None, execution_seconds=None, audio_seconds=None)
    assert overflow.runs(at).fault is overflow.FAILING
    Breaker(redis, at.settings).trip("RunPod refuses the key: check RUNPOD_API_KEY (HTTP 401)")
    finding = overflow.runs(at)
    assert (finding.fault, "refuses the key" in finding.says) == (overflow.BREAKER_OPEN, True)


def test_a_host_that_has_nothing_to_do_with_overflow(server: EmbeddedValkey, redis: Redis) -> None:
    at = Subject(Settings(redis_url=SecretStr(server.url)), Role.PRODUCER)
    assert {told.finding.mark for told in examine(at) if told.check.group == "runpod"} == {Mark.SKIPPED}
