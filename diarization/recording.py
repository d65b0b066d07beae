"""A recording, named by its URL, and what of that URL may be shown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from string import punctuation
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit, urlunsplit

from diarization.errors import InvalidJob, UrlNotAllowed

BUNDLED_SCHEME = "bundled"
"""Of recordings that come along with the software, such as `bundled:canary`; a worker that lacks one says so."""
SCHEMES = ("http", "https", "file", BUNDLED_SCHEME)
MAX_URL_CHARACTERS = 8192

_AFTER_BRACKET = re.compile(r"\](:\d*)?\Z")  # urlsplit passes [::1]x
# They end a line of a log, cannot be encoded, or are read as something else by one parser or another.
_FORBIDDEN_CHARACTERS = re.compile(r"[\x00-\x20\x7f-\xa0\u2028\u2029\ud800-\udfff\\]")
_FEWEST_CHARACTERS = 4
_SHORT_CHARACTERS = 8
_MALFORMED = "<malformed URL>"

_BUNDLED_NAME = re.compile(r"[a-z0-9-]{1,32}")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
# They frame the message, name the host or change which bytes come: not the caller's to set.
_RESERVED_HEADERS = frozenset(
    {"accept-encoding", "connection", "content-length", "expect", "host", "range", "te", "transfer-encoding", "upgrade"}
)


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
        _check_headers(self.headers)

    def __str__(self) -> str:
        return redact_url(self.url)


def parse_url(url: str) -> SplitResult:
    """Split a URL that a recording may have.

    Whether its host may be fetched from is decided later, by the worker that resolves it.

    Raises:
        UrlNotAllowed: Not http, https, file or bundled; no host; malformed in any way.
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
        if "]" in parts.netloc and not _AFTER_BRACKET.search(parts.netloc):
            raise ValueError("something follows the address in brackets")
    except ValueError:
        raise UrlNotAllowed("the URL is malformed: its host or port cannot be read") from None
    if parts.scheme not in SCHEMES:
        # Without "//" it is no scheme but, in user:password@host, the user.
        shown = repr(parts.scheme) if parts.scheme and parts.netloc else "of this URL"
        raise UrlNotAllowed(f"scheme {shown} is not one of {', '.join(SCHEMES)}")
    if parts.scheme == "file":
        _check_file(parts)
    elif parts.scheme == BUNDLED_SCHEME:
        if not _names_a_bundled(url):
            raise UrlNotAllowed(f"a recording that comes along is {BUNDLED_SCHEME}: and its name, and nothing else")
    elif not parts.hostname:
        raise UrlNotAllowed("the URL names no host")
    elif port == 0:
        raise UrlNotAllowed("port 0 cannot be connected to")
    return parts


def _check_file(parts: SplitResult) -> None:
    if parts.netloc not in ("", "localhost"):
        raise UrlNotAllowed("a file URL must not name a host: write file:///folder/name.wav")
    if not parts.path.startswith("/") or parts.query or parts.fragment:
        raise UrlNotAllowed("a file URL is an absolute path and nothing else; percent-encode '?' and '#'")


def redact_url(url: str) -> str:
    """The URL without user, password, query and fragment: what logs, events and errors may show.

    Any text may be given. Of one that names no host, any part could be the password: nothing is shown.
    """
    if _FORBIDDEN_CHARACTERS.search(url):
        return _MALFORMED
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return _MALFORMED
    if not host and (parts.scheme != "file" or parts.netloc):
        return url if _names_a_bundled(url) else _MALFORMED
    host = f"[{host}]" if ":" in host else host
    return urlunsplit((parts.scheme, host + port, parts.path, "", ""))


def _names_a_bundled(url: str) -> bool:
    scheme, _, name = url.partition(":")
    return scheme.lower() == BUNDLED_SCHEME and bool(_BUNDLED_NAME.fullmatch(name))


def scrub(text: str, recording: Recording) -> str:
    """`text` without what is secret about `recording`: what an error of a foreign library may say.

    Libraries decode, or encode once more, what they quote, or take a header's token or a query's value alone; so each
    of these is looked for. What is so short that it would blot out letters and figures everywhere is not: a `page=1`, a
    user called u.
    """
    parts = urlsplit(recording.url)
    headers = recording.headers.values()
    secrets = {parts.query, parts.fragment, parts.username, parts.password, *headers}
    secrets |= {header.rpartition(" ")[2] for header in headers}
    secrets |= {value for _, value in parse_qsl(parts.query) if len(value) >= _SHORT_CHARACTERS}
    known = {secret for secret in secrets if secret and len(secret) >= _FEWEST_CHARACTERS}
    forms: set[str] = set().union(*(_forms(secret) for secret in known))
    text = text.replace(recording.url, str(recording))
    for form in sorted(forms, key=lambda form: (-len(form), form)):
        text = text.replace(form, "…")
    return text


def _forms(secret: str) -> set[str]:
    return {secret, unquote(secret), quote(secret, safe=punctuation, errors="replace")}


def _check_headers(headers: Mapping[str, str]) -> None:
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise InvalidJob("the name of one of the headers is malformed")
        if not _HEADER_VALUE.fullmatch(value):
            raise InvalidJob(f"the value of header {name} holds a character that cannot be sent")
        if name.lower() in _RESERVED_HEADERS:
            raise InvalidJob(f"header {name} may not be set")
