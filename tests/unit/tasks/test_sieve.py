"""Which messages Celery could make a task of, and what is said of the others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from tasks.sieve import Refusal, refusal

MESSAGE = {
    "headers": {"task": "tasks.diarize.diarize", "id": "job", "lang": "py", "timelimit": [None, 5], "expires": None},
    "properties": {
        "correlation_id": "job",
        "delivery_tag": "tag",
        "delivery_info": {"exchange": "", "routing_key": "diarize"},
        "body_encoding": "base64",
    },
    "body": "W1tdLCB7fSwge31d",
}


def decode(envelope: Mapping[str, Any]) -> Any:
    return json.loads(envelope["body"])


def test_a_message_of_celery_is_let_through() -> None:
    assert refusal(json.dumps(MESSAGE).encode(), lambda _: [[], {}, {"callbacks": None}]) is None


@pytest.mark.parametrize("expires", ["2026-11-25T22:00:00+00:00", "2026-11-25T22:00:00.123456"])
def test_times_as_celery_writes_them(expires: str) -> None:
    message = {**MESSAGE, "headers": {**MESSAGE["headers"], "expires": expires, "eta": expires}}
    assert refusal(json.dumps(message).encode(), lambda _: [[], {}, None]) is None


@pytest.mark.parametrize(
    "raw", [b"", b"hello", b"\xff\xfe", b"[1]", b"5", b"null", b'{"headers": 5}', b'{"headers": {"id": 5}}']
)
def test_who_says_no_id_is_told_nothing(raw: bytes) -> None:
    found = refusal(raw, decode)
    assert found is not None
    assert found.job_id is None


def test_the_reason_repeats_no_value() -> None:
    message = {**MESSAGE, "body": '[{"url": "https://example.com/?SECRET"}, {}, {}]'}
    assert refusal(json.dumps(message).encode(), decode) == Refusal("body: 0: Input should be a valid list", "job")
    message = {**MESSAGE, "body": "SECRET"}
    found = refusal(json.dumps(message).encode(), decode)
    assert found == Refusal("body: must be JSON, and the content-type application/json (JSONDecodeError)", "job")


def test_an_id_that_is_no_job_id_names_nobody() -> None:
    for job_id in ("", "x" * 201, None, ["job"]):
        message = {**MESSAGE, "headers": {"task": "t", "id": job_id}}
        found = refusal(json.dumps(message).encode(), decode)
        assert found is not None
        assert found.job_id is None
