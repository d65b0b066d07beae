"""A signed URL that will have run out before its job starts is told of as it is submitted."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytest
from redis import Redis

from tasks.diarize import diarize
from tasks.registry import WorkerFacts
from tests.jobs import record

FIVE_HOURS = 5 * 3600.0
"""Of audio: ten minutes for a GPU of which nothing is known but that it is one."""


def signed(seconds: float) -> str:
    """A URL that is good for so long from now; the signature is a secret."""
    return f"https://example.com/m.mp3?Expires={time.time() + seconds:.0f}&Signature=CANARY"


@pytest.fixture(autouse=True)
def fleet(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> Redis:
    """One worker, which takes ten minutes for five hours of audio, and half an hour for what waits."""
    facts = WorkerFacts("gpu", device="cuda:0")
    diarize.records.renew("gpu0@test (1)", facts.to_json(), [], idle=False)
    monkeypatch.delattr(diarize, "_foresight", raising=False)
    for _ in range(3):
        diarize.delay("http://example.com/before.mp3", expected_audio_seconds=FIVE_HOURS)
    return redis


def test_of_one_that_runs_out_while_it_waits(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="tasks"):
        job = diarize.delay(signed(600))
    assert job.warning is not None
    assert "runs out at" in job.warning
    assert "20 min before the job's predicted start" in job.warning
    assert caplog.messages == [f"job {job.id}: {job.warning}"]
    assert "CANARY" not in caplog.text
    assert record(job).state == "queued", "it is a warning, and no refusal"


@pytest.mark.parametrize(
    ("seconds", "options", "says"),
    [
        (3600, {}, None),
        (600, {"priority": 0}, None),
        (-60, {"priority": 0}, "has run out"),
        (3600, {"countdown": 7200}, "60 min before"),
        (7200, {"countdown": 3600}, None),
    ],
)
def test_when_there_is_something_to_say(seconds: float, options: dict[str, Any], says: str | None) -> None:
    warning = diarize.apply_async((signed(seconds),), **options).warning
    assert says in (warning or "") if says else warning is None


def test_of_many_each_by_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line moves by ten minutes a job from half an hour on; only the first of it is looked at one by one."""
    monkeypatch.setattr("tasks.fleet.FIRST_IN_LINE_JOBS", 5)
    recordings = [{"url": signed(5380), "expected_audio_seconds": FIVE_HOURS} for _ in range(10)]
    warned = [job.warning is not None for job in diarize.submit_many(recordings)]
    assert warned == [False] * 6 + [True] * 4


def test_of_urls_that_outlast_the_line_the_fleet_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    diarize.delay(signed(36000))
    looks: list[float] = []
    snapshot = diarize._fleet.snapshot
    monkeypatch.setattr(diarize._fleet, "snapshot", lambda: looks.append(1) or snapshot())
    diarize.delay(signed(36000))
    diarize.delay("https://example.com/unsigned.mp3")
    assert not looks
    diarize.delay(signed(60))
    assert looks
