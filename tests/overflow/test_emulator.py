"""The emulator's endpoint API and its scripted faults, as a plain client sees them; no worker runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.emulator import Emulator, Fault, Settings
from tests.processes import wait_until
from tests.remote import get, post, status, submit

JOB = {"input": {"task": "diarization", "audio_url": "https://stand.in/a.wav"}}


@pytest.fixture
def emulator(tmp_path: Path) -> Iterator[Emulator]:
    with Emulator(tmp_path, Settings(max_workers=0)) as running:
        yield running


def test_without_the_key_nothing_is_accepted(emulator: Emulator) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        assert requests.post(f"{emulator.endpoint_url}/run", json=JOB, headers=headers, timeout=5).status_code == 401
    raw = {"Authorization": emulator.settings.api_key}
    assert requests.post(f"{emulator.endpoint_url}/run", json=JOB, headers=raw, timeout=5).status_code == 200
    assert len(emulator.submissions) == 1


def test_what_does_not_exist_is_404(emulator: Emulator) -> None:
    assert get(emulator, "status/no-such-job").status_code == 404
    assert post(emulator, "cancel/no-such-job").status_code == 404
    other = f"{emulator.url}/other/run"
    assert requests.post(other, json=JOB, headers=emulator.headers, timeout=5).status_code == 404
    assert get(emulator, "run").status_code == 405


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b"{}",
        b'{"input": {}, "policy": 7}',
        b'{"input": {}, "policy": {"ttl": 9999}}',
        b'{"input": {}, "policy": {"executionTimeout": 604800001}}',
    ],
)
def test_a_body_that_makes_no_sense_is_400(emulator: Emulator, body: bytes) -> None:
    answer = requests.post(f"{emulator.endpoint_url}/run", data=body, headers=emulator.headers, timeout=5)
    assert answer.status_code == 400
    assert emulator.submissions == []


def test_a_body_that_is_too_large_is_413(emulator: Emulator) -> None:
    answer = post(emulator, "run", {"input": "x" * 10_000_000})
    assert answer.status_code == 413
    assert emulator.submissions == []


@pytest.mark.parametrize("retry_after", [None, "7", "Fri, 31 Dec 2027 23:59:59 GMT"])
@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_refusal(emulator: Emulator, code: int, retry_after: str | None) -> None:
    emulator.script(Fault("run", "status", status=code, retry_after=retry_after))
    answer = post(emulator, "run", JOB)
    assert answer.status_code == code
    assert answer.headers.get("Retry-After") == retry_after
    assert emulator.submissions == []
    assert post(emulator, "run", JOB).status_code == 200
    assert emulator.requests["run"] == 2


def test_a_proxy_s_page(emulator: Emulator) -> None:
    emulator.script(Fault("health", "html"))
    answer = get(emulator, "health")
    assert (answer.status_code, answer.headers["Content-Type"].partition(";")[0]) == (502, "text/html")
    with pytest.raises(ValueError, match="Expecting value"):
        answer.json()


@pytest.mark.parametrize(("what", "accepted"), [("reset-before", 0), ("reset-after", 1), ("truncate", 1)])
def test_a_connection_that_breaks(emulator: Emulator, what: Any, accepted: int) -> None:
    emulator.script(Fault("run", what))
    with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        post(emulator, "run", JOB)
    assert len(emulator.submissions) == accepted


@pytest.mark.parametrize(("what", "accepted"), [("hold-before", 0), ("hold-after", 1)])
def test_an_answer_that_does_not_come(emulator: Emulator, what: Any, accepted: int) -> None:
    emulator.script(Fault("run", what))
    with pytest.raises(requests.ReadTimeout):
        requests.post(f"{emulator.endpoint_url}/run", json=JOB, headers=emulator.headers, timeout=0.3)
    assert len(emulator.submissions) == accepted
    emulator.release()
    wait_until(lambda: len(emulator.submissions) == 1, what="accepted after its client has gone")


def test_a_held_answer_comes_once_it_is_released(emulator: Emulator) -> None:
    emulator.script(Fault("run", "hold-after"))
    answers: list[requests.Response] = []
    client = threading.Thread(target=lambda: answers.append(post(emulator, "run", JOB)))
    client.start()
    wait_until(lambda: emulator.submissions)
    assert answers == []
    emulator.release()
    client.join()
    assert answers[0].json()["id"] == emulator.submissions[0].id


def test_a_dripping_answer_is_whole_in_the_end(emulator: Emulator) -> None:
    job_id = submit(emulator, "a")
    emulator.script(Fault("status", "drip", seconds=0.001))
    with requests.get(
        f"{emulator.endpoint_url}/status/{job_id}", headers=emulator.headers, timeout=5, stream=True
    ) as answer:
        pieces = list(answer.raw.stream(1))
    assert len(pieces) > 20
    assert job_id.encode() in b"".join(pieces)


def test_faults_strike_what_they_fit_as_often_as_they_say(emulator: Emulator) -> None:
    first, second = submit(emulator, "first"), submit(emulator, "second")
    emulator.script(Fault("status", "status", times=2, match=first, status=500), Fault("cancel", "status", times=None))
    codes = [get(emulator, f"status/{job_id}").status_code for job_id in (second, first, second, first, first)]
    assert codes == [200, 500, 200, 500, 200]
    assert {post(emulator, f"cancel/{first}").status_code for _ in range(3)} == {502}
    emulator.clear_faults()
    assert post(emulator, f"cancel/{first}").json() == {"id": first, "status": "CANCELLED"}
    assert len(emulator.struck) == 5
    emulator.script(Fault("run", "status", status=503, match="/c?"))
    assert post(emulator, "run", {"input": {"audio_url": "https://stand.in/b?"}}).status_code == 200
    assert post(emulator, "run", {"input": {"audio_url": "https://stand.in/c?"}}).status_code == 503


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (lambda emulator: emulator.script(Fault("job", "lost")), lambda _: None),
        (lambda _: None, lambda emulator: emulator.forget()),
        (lambda _: None, lambda emulator: emulator.advance(3601)),
    ],
    ids=["lost", "store lost", "ttl over"],
)
def test_a_job_that_is_gone_is_404(
    emulator: Emulator, before: Callable[[Emulator], None], after: Callable[[Emulator], None]
) -> None:
    before(emulator)
    job_id = submit(emulator, "a", policy={"ttl": 3_600_000})
    after(emulator)
    assert get(emulator, f"status/{job_id}").status_code == 404
    assert [submission.id for submission in emulator.submissions] == [job_id]


def test_a_job_can_expire_before_a_worker_takes_it(emulator: Emulator) -> None:
    emulator.script(Fault("job", "timed-out", match="/late"))
    assert status(emulator, submit(emulator, "in-time"))["status"] == "IN_QUEUE"
    assert status(emulator, submit(emulator, "late"))["status"] == "TIMED_OUT"


def test_a_cancelled_job_stays_cancelled_and_is_forgotten_in_the_end(emulator: Emulator) -> None:
    job_id = submit(emulator, "a")
    for _ in range(2):
        assert post(emulator, f"cancel/{job_id}").json() == {"id": job_id, "status": "CANCELLED"}
    assert status(emulator, job_id)["status"] == "CANCELLED"
    emulator.advance(emulator.settings.retention_seconds + 1)
    assert get(emulator, f"status/{job_id}").status_code == 404


@pytest.mark.parametrize(("settings", "throttled"), [({}, 0), ({"max_workers": 3, "throttled": True}, 1)])
def test_a_queue_that_no_worker_serves(emulator: Emulator, settings: dict[str, Any], throttled: int) -> None:
    emulator.change(**settings)
    job_id = submit(emulator, "a")
    emulator.advance(600)
    told = get(emulator, "health").json()
    assert told["jobs"] == {"completed": 0, "failed": 0, "inProgress": 0, "inQueue": 1, "retried": 0}
    assert told["workers"].pop("throttled") == throttled
    assert set(told["workers"].values()) == {0}
    assert status(emulator, job_id)["status"] == "IN_QUEUE"
    assert emulator.bill_usd == 0


def test_an_outage_leaves_the_jobs(emulator: Emulator) -> None:
    job_id = submit(emulator, "a")
    with requests.Session() as session:
        url = f"{emulator.endpoint_url}/status/{job_id}"
        assert session.get(url, headers=emulator.headers, timeout=5).status_code == 200
        with emulator.outage(), pytest.raises(requests.ConnectionError):
            session.get(url, headers=emulator.headers, timeout=5)
        assert session.get(url, headers=emulator.headers, timeout=5).json()["status"] == "IN_QUEUE"


def test_runsync_waits_no_longer_than_it_is_told_to(emulator: Emulator) -> None:
    told = post(emulator, "runsync", JOB, wait=1000).json()
    assert told["status"] == "IN_QUEUE"
    assert told["id"].startswith("sync-")


def test_an_endpoint_that_nobody_uses_loses_its_workers(emulator: Emulator) -> None:
    emulator.change(max_workers=5, throttled=True)
    most = []
    for days in (2, 2, 4):
        emulator.advance(days * 86400)
        most.append(emulator.settings.max_workers)
    assert most == [5, 2, 0]
    emulator.change(max_workers=5)
    submit(emulator, "a")
    emulator.advance(2 * 86400)
    assert emulator.settings.max_workers == 5
