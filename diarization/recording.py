"""A recording, named by its URL, and what of that URL may be shown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit, urlunsplit

from diarization.errors import UrlNotAllowed

SCHEMES = ("http", "https", "file")
MAX_URL_CHARACTERS = 8192

_FORBIDDEN_CHARACTERS = re.compile(r"[\x00-\x20\x7f\\]")


@dataclass(frozen=True)
class Recording:
    """One audio file, named by its URL.

    Attributes:
        url: Where it is fetched from. A secret: its query may hold a signature.
        headers: Sent along with the fetch (to the URL's own host alone). Secrets, too.
    """

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        parse_url(self.url)

    def __str__(self) -> str:
        return redact_url(self.url)


def parse_url(url: str) -> SplitResult:
    """Split a URL that a recording may have.

    Whether its host may be fetched from is decided later, by the worker that resolves it.

    Raises:
        UrlNotAllowed: Not http, https or file; no host; malformed in any way.
    """
    if not isinstance(url, str) or not url:
        raise UrlNotAllowed("a recording's URL must be a non-empty string")
    if len(url) > MAX_URL_CHARACTERS:
        raise UrlNotAllowed(f"the URL has {len(url)} characters; at most {MAX_URL_CHARACTERS} are allowed")
    if _FORBIDDEN_CHARACTERS.search(url):
        raise UrlNotAllowed("the URL holds a space, a backslash or a control character; percent-encode it")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise UrlNotAllowed("the URL is malformed: its host or port cannot be read") from None
    if parts.scheme not in SCHEMES:
        raise UrlNotAllowed(f"scheme {parts.scheme or 'none'!r} is not one of {', '.join(SCHEMES)}")
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise UrlNotAllowed("a file URL must not name a host: write file:///folder/name.wav")
        if not parts.path or parts.query or parts.fragment:
            raise UrlNotAllowed("a file URL is a path and nothing else; percent-encode '?' and '#'")
    elif not parts.hostname:
        raise UrlNotAllowed("the URL names no host")
    elif port == 0:
        raise UrlNotAllowed("port 0 cannot be connected to")
    return parts


def redact_url(url: str) -> str:
    """The URL without user, password, query and fragment: what logs, events and errors may show."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "<malformed URL>"
    host = f"[{host}]" if ":" in host else host
    return urlunsplit((parts.scheme, host + port, parts.path, "", ""))


def scrub(text: str, recording: Recording) -> str:
    """`text` without what is secret about `recording`: what an error of a foreign library may say."""
    try:
        parts = urlsplit(recording.url)
        secrets = [parts.query, parts.fragment, parts.password, parts.username, *recording.headers.values()]
    except ValueError:
        secrets = []
    text = text.replace(recording.url, str(recording))
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, "…")
    return text
