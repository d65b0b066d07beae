"""A webhook is believed only where who knows a secret has signed it, now, as it came."""

from __future__ import annotations

import json
import time

import pytest

from tasks.signature import WebhookForged, new_secret, secret_bytes, sign, verify

OURS, THEIRS = new_secret(), new_secret()
BODY = json.dumps({"job_id": "j", "state": "done"}).encode()


def headers(body: bytes = BODY, *, secrets: tuple[str, ...] = (OURS,), at: float | None = None) -> dict[str, str]:
    sent_at = int(time.time() if at is None else at)
    signature = sign("j.0", sent_at, body, *map(secret_bytes, secrets))
    return {"webhook-id": "j.0", "webhook-timestamp": str(sent_at), "webhook-signature": signature}


def test_it_is_the_signature_of_the_specification() -> None:
    """The example in the tests of the reference libraries, https://github.com/standard-webhooks/standard-webhooks."""
    key = secret_bytes("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signature = sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}', key)
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_webhook_that_was_signed_is_read() -> None:
    assert verify(headers(), BODY, OURS) == {"job_id": "j", "state": "done"}


def test_while_secrets_rotate_either_side_may_be_first() -> None:
    assert verify(headers(secrets=(OURS, THEIRS)), BODY, THEIRS)
    assert verify(headers(secrets=(OURS,)), BODY, THEIRS, OURS)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"webhook-id": "j.1"}, "no signature fits"),
        ({"webhook-id": ""}, "missing"),
        ({"webhook-timestamp": "now"}, "malformed"),
        ({"webhook-timestamp": "9" * 20}, "malformed"),
        ({"webhook-signature": ""}, "no signature fits"),
        ({"webhook-signature": "v1,AAAA v2,é"}, "no signature fits"),
    ],
)
def test_whatever_was_changed_on_the_way_is_not_believed(change: dict[str, str], says: str) -> None:
    with pytest.raises(WebhookForged, match=says):
        verify({**headers(), **change}, BODY, OURS)


def test_another_body_secret_or_time_is_not_believed() -> None:
    moved = {**headers(), "webhook-timestamp": str(int(time.time()) - 1)}
    with pytest.raises(WebhookForged, match="no signature fits"):
        verify(moved, BODY, OURS)
    for given, body, secret in (
        (headers(), BODY + b" ", OURS),
        (headers(), BODY, THEIRS),
        (headers(at=time.time() - 600), BODY, OURS),
        (headers(at=time.time() + 600), BODY, OURS),
        (headers(b"[]"), b"[]", OURS),
    ):
        with pytest.raises(WebhookForged):
            verify(given, body, secret)


@pytest.mark.parametrize("secret", ["", "hunter2", "whsec_", "whsec_c2hvcnQ=", "whsec_%%%", "Mf" * 20])
def test_what_is_no_secret_is_refused_and_not_repeated(secret: str) -> None:
    with pytest.raises(ValueError, match="must be whsec_") as refused:
        secret_bytes(secret)
    assert len(secret) < 7 or secret not in str(refused.value)
