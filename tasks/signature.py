"""The signature of a webhook, and its check by whoever receives one: `verify`. It needs the standard library alone.

It is that of Standard Webhooks (https://www.standardwebhooks.com), for which other languages have libraries: the
header `webhook-signature` holds `v1,` and the base64 of the HMAC-SHA256 of `ID.TIMESTAMP.BODY`, once for each secret
that is in use, with a space between.

    from tasks.signature import verify

    event = verify(request.headers, request.get_data(), os.environ["WEBHOOK_SECRET"])
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Mapping
from typing import Any

PREFIX = "whsec_"
FEWEST_BYTES = 24
"""Of a secret, by the specification, which allows up to 64."""
TOLERANCE_SECONDS = 300.0


class WebhookForged(ValueError):
    """The request was not signed by who knows the secret, or not now."""


def new_secret() -> str:
    """A secret for WEBHOOK_SECRET."""
    return PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def secret_bytes(secret: str) -> bytes:
    """The key that a secret stands for.

    Raises:
        ValueError: It is none; the message does not say it.
    """
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if not secret.startswith(PREFIX) or len(key) < FEWEST_BYTES:
        raise ValueError(f"must be {PREFIX} and the base64 of {FEWEST_BYTES} bytes or more")
    return key


def sign(message_id: str, timestamp: int, body: bytes, *keys: bytes) -> str:
    """The value of `webhook-signature`, with a signature for each key."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return " ".join("v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode() for key in keys)


def verify(
    headers: Mapping[str, str], body: bytes, *known: str, tolerance_seconds: float = TOLERANCE_SECONDS
) -> dict[str, Any]:
    """What a webhook says, once it is certain who says so.

    A webhook comes at least once: do nothing for a `webhook-id` that was seen before.

    Args:
        headers: The request's, by their names in lower case or in a mapping that knows no case.
        body: As it came, byte for byte.
        known: The secrets that are in use; one must fit.
        tolerance_seconds: How far the clocks may be apart, and the request under way.

    Returns:
        The body's JSON object.

    Raises:
        WebhookForged: No signature fits, one of the headers is missing, or the time is another.
        ValueError: One of `known` is no secret.
    """
    keys = [secret_bytes(secret) for secret in known]
    message_id, sent_at, given = (headers.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature"))
    if not message_id or not sent_at.isascii() or not sent_at.isdigit() or len(sent_at) > 12:
        raise WebhookForged("webhook-id or webhook-timestamp is missing or malformed")
    if abs(time.time() - int(sent_at)) > tolerance_seconds:
        raise WebhookForged("webhook-timestamp is too far from now")
    offered = [one.encode() for one in given.split()]
    expected = [one.encode() for one in sign(message_id, int(sent_at), body, *keys).split()]
    if not any(hmac.compare_digest(one, other) for one in offered for other in expected):
        raise WebhookForged("no signature fits")
    event = json.loads(body)
    if not isinstance(event, dict):
        raise WebhookForged("the body is no JSON object")
    return event
