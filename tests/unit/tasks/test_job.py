"""Requests: when two of them ask for the same."""

from __future__ import annotations

from typing import Any

import pytest

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
