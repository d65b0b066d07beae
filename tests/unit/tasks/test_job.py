"""Requests: when two of them ask for the same."""

from __future__ import annotations

from typing import Any

import pytest

from diarization.errors import InvalidJob
from tasks.job import JobRequest

URL = "https://example.com/a.wav"


def fingerprint(url: str = URL, **options: Any) -> str:
    return JobRequest.check({"url": url, **options}).fingerprint


@pytest.mark.parametrize(
    ("url", "options"),
    [
        (URL, {"headers": {"Authorization": "Bearer x"}}),
        (URL, {"idempotency_key": "k"}),
        (URL, {"num_speakers": None}),
        (URL, {"expected_audio_seconds": 3600, "deadline_seconds": 60.5}),
        (URL + "#t=10", {}),
        ("https://user:word@example.com/a.wav", {}),
        (URL + "?X-Amz-Signature=1&X-Amz-Expires=60", {}),
    ],
)
def test_what_asks_for_the_same(url: str, options: dict[str, Any]) -> None:
    assert fingerprint(url, **options) == fingerprint()


@pytest.mark.parametrize(
    ("url", "options"),
    [
        (URL + "?id=5", {}),
        ("https://example.com/b.wav", {}),
        ("http://example.com/a.wav", {}),
        ("https://example.com:8443/a.wav", {}),
        (URL, {"num_speakers": 2}),
        (URL, {"min_speakers": 2}),
        (URL, {"provider": "local"}),
    ],
)
def test_what_asks_for_something_else(url: str, options: dict[str, Any]) -> None:
    assert fingerprint(url, **options) != fingerprint()


@pytest.mark.parametrize("name", ["expected_audio_seconds", "deadline_seconds"])
@pytest.mark.parametrize("value", [0, -1, 1e9, float("nan"), float("inf"), "60", True])
def test_hints_out_of_bounds(name: str, value: Any) -> None:
    with pytest.raises(InvalidJob, match=name):
        JobRequest.check({"url": URL, name: value})


def test_hints_are_no_part_of_the_request_that_older_workers_read() -> None:
    request = JobRequest.check({"url": URL, "expected_audio_seconds": 3600, "deadline_seconds": 60, "num_speakers": 2})
    assert request.arguments() == {"url": URL, "num_speakers": 2}
    assert request.shown_options() == {"num_speakers": 2}
