"""One recording over http or https: where its bytes may come from, how many, and how long they may take.

Built on `http.client`, over a socket that `addresses.connect` checked: so there are no proxies, no netrc, no cookies
and no redirects but those followed here, and every wait for the server is cut into slices, in which the clock is looked
at and a cancel is heard.

Whatever the server does wrong may be right next time, hence is transient: 5xx, silence, a reset, an answer that is not
HTTP, a certificate that is not valid. A host that does not exist, a refusal, redirects without end would be the same
again, hence are permanent.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import re
import socket
import string
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import cast
from urllib.parse import SplitResult, quote, unquote, urljoin

from diarization.addresses import Network, canonical_host, connect
from diarization.errors import (
    RecordingFetchFailed,
    RecordingForbidden,
    RecordingNotFound,
    RecordingTooLarge,
    RecordingUndecodable,
    UrlNotAllowed,
)
from diarization.recording import Recording, parse_url, redact_url
from diarization.wire import Wire, reason_of

Report = Callable[[str, int, int], None]

STAGE = "download"
MAX_REDIRECTS = 5
REPORT_SECONDS = 0.5

_CHUNK_BYTES = 256 * 1024
_PORTS = {"http": 80, "https": 443}
_COMPLETE = frozenset({200, 203, 204})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_NOT_YET = frozenset({408, 425, 429})
_COMPRESSIONS = re.compile(r"gzip|x-gzip|deflate|compress|x-compress|br|zstd", re.IGNORECASE)
_NO_SUCH_HOST = frozenset({socket.EAI_NONAME, socket.EAI_NODATA, socket.EAI_ADDRFAMILY})


class Clock:
    """The deadlines of one download, and its voice; what the arguments mean, `download.download` says."""

    def __init__(self, timeout_seconds: float, stall_timeout_seconds: float, report: Report) -> None:
        self.done_bytes = 0
        self.total_bytes = 0
        self._report = report
        self._timeout_seconds = timeout_seconds
        self._stall_timeout_seconds = stall_timeout_seconds
        self._deadline = time.monotonic() + timeout_seconds
        self._next_report = 0.0
        self.expect("connection")

    def expect(self, what: str) -> None:
        """From now on `what` is waited for."""
        self._expected = what
        self._stall_deadline = time.monotonic() + self._stall_timeout_seconds

    def received(self, count: int) -> None:
        """So many bytes of the recording came in, and are saved."""
        self.done_bytes += count
        self.expect("byte")

    def finish(self) -> None:
        """Report that all bytes are there."""
        self._report(STAGE, self.done_bytes, self.done_bytes)

    def tick(self) -> None:
        """Look at the clock, and report when it is time to.

        Raises:
            RecordingFetchFailed: It takes too long.
            Cancelled: Raised by the report.
        """
        now = time.monotonic()
        if now > self._deadline:
            raise RecordingFetchFailed(f"not complete after {self._timeout_seconds:g} s: {self.progress()}")
        if now > self._stall_deadline:
            raise RecordingFetchFailed(
                f"no {self._expected} within {self._stall_timeout_seconds:g} s: {self.progress()}"
            )
        if now >= self._next_report:
            self._next_report = now + REPORT_SECONDS
            self._report(STAGE, self.done_bytes, self.total_bytes)

    def progress(self) -> str:
        """How far the download is, in words."""
        return f"{self.done_bytes} of {self.total_bytes or 'unknown'} bytes came"


def fetch(
    recording: Recording,
    save: Callable[[bytes], object],
    *,
    allowed_networks: Iterable[Network],
    max_bytes: int,
    clock: Clock,
) -> None:
    """Hand the recording's bytes to `save`, chunk by chunk.

    At most `MAX_REDIRECTS` redirects are followed, each target checked like the first URL, never from https to http.
    `recording.headers`, and the URL's user and password, are not sent on once a redirect left scheme, host and port.

    Raises:
        DiarizationError: As `download.download` says; `clock` and `save` add their own.
    """
    networks = tuple(allowed_networks)
    parts = parse_url(recording.url)
    headers = _headers(parts, recording.headers)
    for _ in range(MAX_REDIRECTS + 1):
        with _answer(parts, headers, networks, clock) as response:
            if response.status not in _REDIRECTS:
                _check_answer(response, redact_url(parts.geturl()))
                _receive(response, save, max_bytes, clock)
                return
            target = _redirect_target(parts, response)
        if _origin(target) != _origin(parts):
            headers = _headers(target, {})
        parts = target
    raise UrlNotAllowed(f"{recording} redirects more than {MAX_REDIRECTS} times")


def _headers(parts: SplitResult, own: Mapping[str, str]) -> dict[str, str]:
    """What is sent to the origin of `parts`: the URL's user and password as basic auth, unless `own` has another."""
    headers = {"User-Agent": "diarize-queue", "Accept": "*/*"}
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = "Basic " + base64.b64encode(login.encode()).decode()
    taken = {name.lower() for name in own}
    kept = {name: value for name, value in headers.items() if name.lower() not in taken}
    return {**kept, **own, "Accept-Encoding": "identity", "Connection": "close"}


def _origin(parts: SplitResult) -> tuple[str, str, int]:
    return parts.scheme, canonical_host(parts.hostname or ""), parts.port or _PORTS[parts.scheme]


def _redirect_target(parts: SplitResult, response: http.client.HTTPResponse) -> SplitResult:
    shown = redact_url(parts.geturl())
    location = response.getheader("Location")
    if location is None:
        raise RecordingFetchFailed(f"HTTP {response.status} without a Location from {shown}")
    # Servers write UTF-8, spaces and worse into it; `http.client` read it as Latin-1.
    location = quote(location.encode("latin-1"), safe=string.punctuation)
    try:
        target = parse_url(urljoin(parts.geturl(), location))
    except (UrlNotAllowed, ValueError) as error:
        reason = error if isinstance(error, UrlNotAllowed) else "it is malformed"
        raise UrlNotAllowed(f"a redirect of {shown} cannot be followed: {reason}") from None
    if target.scheme not in _PORTS or (parts.scheme == "https" and target.scheme == "http"):
        raise UrlNotAllowed(f"a redirect of {shown} from {parts.scheme} to {target.scheme} is not followed")
    return target


@contextlib.contextmanager
def _answer(
    parts: SplitResult, headers: Mapping[str, str], allowed_networks: tuple[Network, ...], clock: Clock
) -> Iterator[http.client.HTTPResponse]:
    """The head of the answer to a GET; the body can be read as long as the context lasts."""
    scheme, host, port = _origin(parts)
    clock.expect("connection")
    with _connect(scheme, host, port, allowed_networks, clock) as sock:
        clock.expect("answer")
        connection = http.client.HTTPConnection(host, port)
        # Only used to write the Host header, which leaves out the scheme's own port.
        connection.default_port = _PORTS[scheme]
        wire = Wire(sock, clock.tick)
        connection.sock = cast(socket.socket, wire)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        try:
            connection.request("GET", quote(target, safe=string.punctuation), headers=dict(headers))
            response = connection.getresponse()
        except http.client.HTTPException as error:
            raise RecordingFetchFailed(f"no HTTP answer from {host} port {port}: {type(error).__name__}") from None
        wire.may_end = True
        clock.expect("byte")
        with response:
            yield response


def _connect(scheme: str, host: str, port: int, allowed_networks: tuple[Network, ...], clock: Clock) -> socket.socket:
    try:
        return connect(host, port, allowed_networks=allowed_networks, tick=clock.tick, tls=scheme == "https")
    except socket.gaierror as error:
        failure = RecordingNotFound if error.errno in _NO_SUCH_HOST else RecordingFetchFailed
        raise failure(f"host {host} cannot be resolved: {reason_of(error)}") from None
    except OSError as error:
        raise RecordingFetchFailed(f"no connection to {host} port {port}: {reason_of(error)}") from None


def _check_answer(response: http.client.HTTPResponse, shown: str) -> None:
    status = response.status
    if status in (404, 410):
        raise RecordingNotFound(f"HTTP {status} for {shown}")
    if 400 <= status < 500 and status not in _NOT_YET:
        hint = "; a signed URL may have run out" if status in (401, 403) else ""
        raise RecordingForbidden(f"HTTP {status} for {shown}{hint}")
    if status not in _COMPLETE:
        raise RecordingFetchFailed(f"HTTP {status} for {shown}")
    # Nothing is ever decompressed, hence there are no compressed bombs.
    if found := _COMPRESSIONS.search(response.getheader("Content-Encoding", "")):
        raise RecordingUndecodable(f"{shown} comes compressed ({found[0].lower()}) though asked for as it is")


def _receive(response: http.client.HTTPResponse, save: Callable[[bytes], object], max_bytes: int, clock: Clock) -> None:
    clock.total_bytes = response.length or 0
    if clock.total_bytes > max_bytes:
        raise RecordingTooLarge(f"the recording has {clock.total_bytes} bytes; at most {max_bytes} are allowed")
    try:
        while chunk := response.read1(_CHUNK_BYTES):
            if clock.done_bytes + len(chunk) > max_bytes:
                raise RecordingTooLarge(f"the recording has more than the {max_bytes} bytes that are allowed")
            save(chunk)
            clock.received(len(chunk))
            clock.tick()
    except http.client.HTTPException:
        raise RecordingFetchFailed(f"the connection broke off: {clock.progress()}") from None
    if clock.done_bytes < clock.total_bytes:
        raise RecordingFetchFailed(f"the connection broke off: {clock.progress()}")
    clock.finish()
