"""Signed URLs of AWS, Google, CloudFront and Azure: what signs them, and until when they are good.

By their documentation: Amazon S3 "Authenticating requests: using query parameters" (X-Amz-…) and, before it, signature
version 2; Cloud Storage "Signed URLs" (X-Goog-…); CloudFront "Use signed URLs"; Azure "Create a service SAS" (se, sig).
"""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import parse_qsl, urlencode, urlunsplit

from diarization.recording import parse_url


def unsigned_url(url: str) -> str:
    """The URL without what signs it: the same for two signed URLs of one recording. Not for showing.

    Left out are the user and password, the fragment, and the query parameters of AWS's, Google's, CloudFront's and
    Azure's signed URLs, by their documentation.
    """
    parts = parse_url(url)
    query = parse_qsl(parts.query, keep_blank_values=True)
    names = {name.lower() for name, _ in query}
    signing: set[str] = set()
    if "signature" in names:
        signing |= {"signature", "expires", "policy", "key-pair-id", "awsaccesskeyid", "googleaccessid"}
    if {"sig", "sv"} <= names:
        signing |= {"sig", "sv", "ss", "srt", "sr", "sp", "st", "se", "sip", "spr"}
        signing |= {"skoid", "sktid", "skt", "ske", "sks", "skv"}
    kept = [
        (name, value)
        for name, value in query
        if name.lower() not in signing and not name.lower().startswith(("x-amz-", "x-goog-"))
    ]
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, urlencode(kept), ""))


def signed_until(url: str) -> float | None:
    """Until when a signed URL is good, in seconds since 1970, as far as it says so itself; None of any other.

    What it is signed with may run out sooner: the session of temporary credentials, or CloudFront's own policy.
    """
    query = {name.lower(): value for name, value in parse_qsl(parse_url(url).query)}
    try:
        for kind in ("x-amz-", "x-goog-"):
            if kind + "signature" in query:
                signed_at = datetime.strptime(query[kind + "date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
                return signed_at.timestamp() + int(query[kind + "expires"])
        if "signature" in query:
            return float(int(query["expires"]))
        if {"sig", "sv"} <= query.keys():
            until = datetime.fromisoformat(query["se"])
            return (until if until.tzinfo else until.replace(tzinfo=UTC)).timestamp()
    except (KeyError, ValueError, OverflowError):
        pass  # signed in a way that we do not know
    return None
