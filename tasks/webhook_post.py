"""One POST of a webhook: to a checked address, within seconds, following nothing."""

from __future__ import annotations

import http.client
import socket
import string
import threading
import time
from collections.abc import Iterable, Mapping
from typing import cast
from urllib.parse import quote

from diarization.addresses import Network, canonical_host, connect
from diarization.errors import RecordingFetchFailed
from diarization.recording import parse_url
from diarization.wire import Wire, reason_of

WHOLE_SECONDS = 15.0
"""For connection, request and answer; Standard Webhooks recommends 15 to 30."""
_PORTS = {"http": 80, "https": 443}


class NotDelivered(Exception):
    """The receiver has not said that it has it. The message holds no secret."""


class BrokenOff(Exception):
    """The worker stops, and nobody knows whether the receiver has it."""


def post(
    url: str, body: bytes, headers: Mapping[str, str], allowed_networks: Iterable[Network], stopping: threading.Event
) -> None:
    """Deliver it: the receiver answers with 2xx.

    Raises:
        BrokenOff: `stopping` was set; within `SLICE_SECONDS`, whatever it waits for.
        NotDelivered: It does not; what it answers beyond its status is not read.
        UrlNotAllowed: The host resolves to an address that is not public, nor one of `allowed_networks`.
    """
    deadline = time.monotonic() + WHOLE_SECONDS

    def tick() -> None:
        if stopping.is_set():
            raise BrokenOff
        if time.monotonic() > deadline:
            raise NotDelivered(f"no answer within {WHOLE_SECONDS:.0f} s")

    parts = parse_url(url)
    host, tls = canonical_host(parts.hostname or ""), parts.scheme == "https"
    port = parts.port or _PORTS[parts.scheme]
    try:
        with connect(host, port, allowed_networks=allowed_networks, tick=tick, tls=tls) as sock:
            connection = http.client.HTTPConnection(host, port)
            connection.default_port = _PORTS[parts.scheme]  # only used to write the Host header
            connection.sock = cast(socket.socket, Wire(sock, tick))
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request("POST", quote(target, safe=string.punctuation), body, dict(headers))
            status = connection.getresponse().status
    except http.client.HTTPException as error:
        raise NotDelivered(f"no HTTP answer ({type(error).__name__})") from None
    except RecordingFetchFailed as error:  # what `Wire` makes of a connection that breaks
        raise NotDelivered(error.message) from None
    except OSError as error:
        raise NotDelivered(f"no connection: {reason_of(error)}") from None
    if not 200 <= status < 300:
        raise NotDelivered(f"HTTP {status}")
