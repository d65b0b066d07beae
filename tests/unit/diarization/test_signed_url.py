from __future__ import annotations

import pytest

from diarization.signed_url import signed_until, unsigned_url

AT = 1767225600.0
"""2026-01-01 00:00:00 UTC"""


@pytest.mark.parametrize(
    ("url", "unsigned"),
    [
        ("https://b.s3.amazonaws.com/m.mp3?X-Amz-Signature=s&X-Amz-Date=d&versionId=7", "?versionId=7"),
        ("https://storage.googleapis.com/m.mp3?X-Goog-Credential=c&X-Goog-Signature=s", ""),
        ("https://d1.cloudfront.net/m.mp3?Expires=1&Signature=s&Key-Pair-Id=k&lang=de", "?lang=de"),
        ("https://b.s3.amazonaws.com/m.mp3?AWSAccessKeyId=a&Expires=1&Signature=s", ""),
        ("https://a.blob.core.windows.net/m.mp3?sv=2022&sr=b&se=e&sp=r&sig=s", ""),
        ("https://example.com/m.mp3?expires=1&sr=44100&policy=x", "?expires=1&sr=44100&policy=x"),
        ("https://example.com/m.mp3?id=1&id=2&empty=", "?id=1&id=2&empty="),
    ],
)
def test_a_url_without_what_signs_it(url: str, unsigned: str) -> None:
    assert unsigned_url(url) == url.partition("?")[0] + unsigned


@pytest.mark.parametrize(
    ("query", "until"),
    [
        ("X-Amz-Date=20260101T000000Z&X-Amz-Expires=900&X-Amz-Signature=s", AT + 900),
        ("X-Goog-Date=20260101T000000Z&X-Goog-Expires=60&X-Goog-Signature=s", AT + 60),
        ("Expires=1767225600&Signature=s&Key-Pair-Id=k", AT),
        ("AWSAccessKeyId=a&Expires=1767225600&Signature=s", AT),
        ("sv=2022-11-02&sr=b&se=2026-01-01T00:00:00Z&sp=r&sig=s", AT),
        ("sv=2022-11-02&sr=b&se=2026-01-01T01%3A00%2B01%3A00&sp=r&sig=s", AT),
        ("sv=2022-11-02&sr=b&se=2026-01-01&sp=r&sig=s", AT),
        ("Policy=p&Signature=s&Key-Pair-Id=k", None),
        ("X-Amz-Date=today&X-Amz-Expires=900&X-Amz-Signature=s", None),
        ("X-Amz-Expires=900", None),
        ("Expires=soon&Signature=s", None),
        ("Expires=99999999999999999999999999999&Signature=s", 1e29),
        ("sv=2022&sig=s&se=99999-01-01", None),
        ("expires=1767225600", None),
        ("", None),
    ],
)
def test_until_when_it_is_good(query: str, until: float | None) -> None:
    assert signed_until(f"https://example.com/m.mp3?{query}") == until
