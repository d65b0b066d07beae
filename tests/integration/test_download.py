from __future__ import annotations

import base64
import gzip
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from diarization import canary
from diarization.addresses import Network
from diarization.download import download, sweep_leftovers
from diarization.errors import (
    Cancelled,
    DiarizationError,
    DiskFull,
    RecordingFetchFailed,
    RecordingForbidden,
    RecordingNotFound,
    RecordingTooLarge,
    RecordingUndecodable,
    UrlNotAllowed,
)
from diarization.recording import Recording
from tests.processes import ROOT
from tests.servers import Certificate, Conversation, make_certificate, serve, serve_folder, talk

LOOPBACK: tuple[Network, ...] = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
OK = b"HTTP/1.1 200 OK\r\n"
BODY = os.urandom(100_000)

Fetch = Callable[..., AbstractContextManager[Path]]


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Path]:
    """Where temporary files are made; after each test, none is left."""
    folder = tmp_path / "spool"
    folder.mkdir()
    yield folder
    assert list(folder.iterdir()) == []


@pytest.fixture
def fetch(spool: Path) -> Fetch:
    def fetch(url: str, headers: dict[str, str] | None = None, **changes: Any) -> AbstractContextManager[Path]:
        options: dict[str, Any] = {
            "allowed_networks": LOOPBACK,
            "max_bytes": 1_000_000,
            "timeout_seconds": 20.0,
            "stall_timeout_seconds": 10.0,
            "report": lambda *_: None,
        }
        return download(Recording(url, headers or {}), spool, **(options | changes))

    return fetch


def _fails(
    context: AbstractContextManager[Path], error: type[DiarizationError], match: str | None = None
) -> DiarizationError:
    with pytest.raises(error, match=match) as failure, context:
        pytest.fail("it was delivered")
    assert type(failure.value) is error
    assert "\n" not in str(failure.value)
    return failure.value


def deliver(handler: BaseHTTPRequestHandler, body: bytes = BODY, status: int = 200, **headers: str) -> None:
    handler.send_response(status)
    for name, value in ({"Content-Length": str(len(body))} | headers).items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def redirect(handler: BaseHTTPRequestHandler, location: str, status: int = 302) -> None:
    deliver(handler, b"over there", status, Location=location)


# Delivered.


def test_a_recording_is_there_while_it_is_needed_and_only_then(fetch: Fetch, spool: Path) -> None:
    with serve(deliver) as site, fetch(f"{site.url}/meeting.wav?signature=s3cret#part") as path:
        assert path.read_bytes() == BODY
        assert path.parent == spool
        assert path.stat().st_mode & 0o777 == 0o600
    assert not path.exists()
    assert site.requests[0].path == "/meeting.wav?signature=s3cret"


def test_what_is_sent(fetch: Fetch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text("default login net password rc")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with serve(deliver) as site:
        with fetch(f"http://localhost:{site.port}/ü%2f/{{a}}?b=ä%20+", allowed_networks=LOOPBACK):
            pass
        assert site.requests[0].path == "/%C3%BC%2f/{a}?b=%C3%A4%20+"
        assert site.requests[0].headers == {
            "host": f"localhost:{site.port}",
            "user-agent": "diarize-queue",
            "accept": "*/*",
            "accept-encoding": "identity",
            "connection": "close",
        }


@pytest.mark.parametrize("host", ["127.1", "2130706433", "①②⑦.0.0.1", "LOCALHOST."])
def test_an_odd_spelling_of_an_allowed_address_works(fetch: Fetch, host: str) -> None:
    with serve(deliver) as site, fetch(f"http://{host}:{site.port}/a.wav") as path:
        assert path.read_bytes() == BODY


@pytest.mark.parametrize("body", [b"", b"<!doctype html>"])
def test_an_empty_body_and_a_page_are_left_to_decoding(fetch: Fetch, body: bytes) -> None:
    with serve(lambda handler: deliver(handler, body)) as site, fetch(site.url) as path:
        assert path.read_bytes() == body


@pytest.mark.parametrize("framing", [b"", b"Content-Length: nonsense\r\n", b"Content-Length: -5\r\n"])
def test_a_body_without_a_length_ends_with_the_connection(fetch: Fetch, framing: bytes) -> None:
    with talk(lambda peer: peer.send(OK + framing + b"\r\n" + BODY)) as site, fetch(site.url) as path:
        assert path.read_bytes() == BODY


def test_a_chunked_body(fetch: Fetch) -> None:
    chunks = b"".join(b"%x;extension\r\n%s\r\n" % (len(part), part) for part in (BODY[:7], BODY[7:]))
    head = OK + b"Transfer-Encoding: chunked\r\n\r\n"
    with talk(lambda peer: peer.send(head + chunks + b"0\r\nTrailer: x\r\n\r\n")) as site, fetch(site.url) as path:
        assert path.read_bytes() == BODY


def test_a_server_that_sends_more_than_it_said_is_read_no_further(fetch: Fetch) -> None:
    def script(peer: Conversation) -> None:
        peer.send(OK + b"Content-Length: 10\r\n\r\n" + BODY)
        peer.wait_for_peer_to_go()

    with talk(script) as site, fetch(site.url) as path:
        assert path.read_bytes() == BODY[:10]


def test_the_progress_that_is_reported(fetch: Fetch) -> None:
    heard: list[tuple[str, int, int]] = []
    with serve(deliver) as site, fetch(site.url, report=lambda *progress: heard.append(progress)):
        assert heard[0] == ("download", 0, 0)
        assert heard[-1] == ("download", len(BODY), len(BODY))
        assert len(heard) < 10


# Refused by the server.

STATUSES = (
    [(status, RecordingNotFound) for status in (404, 410)]
    + [(status, RecordingForbidden) for status in (400, 401, 403, 405, 416, 451)]
    + [(status, RecordingFetchFailed) for status in (408, 425, 429, 500, 502, 503, 504, 202, 206, 304)]
)


@pytest.mark.parametrize(("status", "error"), STATUSES)
def test_the_error_of_a_status(fetch: Fetch, status: int, error: type[DiarizationError]) -> None:
    with serve(lambda handler: deliver(handler, b"x", status)) as site:
        url = f"{site.url}/a.wav?signature=s3cret".replace("//", "//user:p4ssword@")
        failure = _fails(fetch(url), error, rf"HTTP {status} for {site.url}/a\.wav")
    assert "s3cret" not in str(failure)
    assert "p4ssword" not in str(failure)


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "deflate", "br", "identity, GZIP"])
def test_a_compressed_answer_is_refused_so_there_are_no_bombs(fetch: Fetch, encoding: str) -> None:
    bomb = gzip.compress(bytes(5_000_000))
    with serve(lambda handler: deliver(handler, bomb, Content_Encoding=encoding)) as site:
        _fails(fetch(site.url), RecordingUndecodable, "comes compressed")


def test_a_content_encoding_that_compresses_nothing_is_no_obstacle(fetch: Fetch) -> None:
    with serve(lambda handler: deliver(handler, Content_Encoding="aws-chunked")) as site, fetch(site.url) as path:
        assert path.read_bytes() == BODY


# Too much.


def test_a_length_above_the_cap_is_refused_before_the_body(fetch: Fetch) -> None:
    def script(peer: Conversation) -> None:
        peer.send(OK + b"Content-Length: 1001\r\n\r\n")
        peer.wait_for_peer_to_go()

    with talk(script) as site:
        _fails(fetch(site.url, max_bytes=1000), RecordingTooLarge, "has 1001 bytes; at most 1000")
        assert site.connections_are_gone()


@pytest.mark.parametrize("framing", [b"", b"Transfer-Encoding: chunked\r\n"])
def test_an_endless_body_is_cut_at_the_cap(fetch: Fetch, spool: Path, framing: bytes) -> None:
    sizes: list[int] = []

    def script(peer: Conversation) -> None:
        peer.send(OK + framing + b"\r\n")
        while True:
            peer.send(b"8000\r\n" + bytes(0x8000) + b"\r\n")

    def report(*_: object) -> None:
        sizes.extend(path.stat().st_size for path in spool.iterdir())

    with talk(script) as site:
        _fails(fetch(site.url, max_bytes=3_000_000, report=report), RecordingTooLarge, "more than the 3000000 bytes")
    assert max(sizes) <= 3_000_000


def test_exactly_the_cap_is_allowed(fetch: Fetch) -> None:
    with serve(deliver) as site, fetch(site.url, max_bytes=len(BODY)) as path:
        assert path.stat().st_size == len(BODY)


# Broken off, and not HTTP.


def _then_reset(peer: Conversation) -> None:
    peer.send(OK + b"Content-Length: 100000\r\n\r\n" + BODY[:500])
    peer.reset()


BROKEN = {
    "fewer bytes than promised": lambda peer: peer.send(OK + b"Content-Length: 100000\r\n\r\n" + BODY[:500]),
    "reset": _then_reset,
    "chunks cut": lambda peer: peer.send(OK + b"Transfer-Encoding: chunked\r\n\r\n10\r\nabc"),
    "chunks without an end": lambda peer: peer.send(OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"),
    "chunk sizes that are none": lambda peer: peer.send(OK + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\nabc\r\n"),
    "a negative chunk size": lambda peer: peer.send(OK + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nabc\r\n"),
    "an endless chunk size": lambda peer: peer.send(OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"1" * 200_000),
    "nothing": lambda peer: None,
    "reset at once": Conversation.reset,
    "another protocol": lambda peer: peer.send(b"220 mail.example ESMTP\r\n"),
    "HTTP/0.9": lambda peer: peer.send(b"RIFF....WAVE"),
    "a status that is none": lambda peer: peer.send(b"HTTP/1.1 OK\r\n\r\n"),
    "half a head": lambda peer: peer.send(OK + b"Content-Le"),
    "an endless header": lambda peer: peer.send(OK + b"X: " + b"x" * 200_000),
    "endless headers": lambda peer: peer.send(OK + b"X: x\r\n" * 2_000),
    "a redirect to nowhere": lambda peer: peer.send(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_the_server_breaks_is_transient(fetch: Fetch, name: str) -> None:
    with talk(BROKEN[name]) as site:
        _fails(fetch(site.url), RecordingFetchFailed)


def test_a_closed_port_is_transient(fetch: Fetch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    _fails(fetch(f"http://127.0.0.1:{port}/"), RecordingFetchFailed, "Connection refused")


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (socket.EAI_NONAME, RecordingNotFound),
        (socket.EAI_NODATA, RecordingNotFound),
        (socket.EAI_AGAIN, RecordingFetchFailed),
        (socket.EAI_FAIL, RecordingFetchFailed),
    ],
)
def test_the_error_of_a_name_that_cannot_be_resolved(
    fetch: Fetch, monkeypatch: pytest.MonkeyPatch, code: int, error: type[DiarizationError]
) -> None:
    def getaddrinfo(*_: object, **__: object) -> None:
        raise socket.gaierror(code, "the name server's answer")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    _fails(fetch("http://recordings.example/a.wav"), error, r"host recordings\.example cannot be resolved")


# Slow.


def _says_nothing(peer: Conversation) -> None:
    peer.wait_for_peer_to_go()


def _stalls_in_the_head(peer: Conversation) -> None:
    peer.send(OK + b"Content-")
    peer.wait_for_peer_to_go()


def _drips_the_head(peer: Conversation) -> None:
    try:
        peer.drip(OK + b"X: " + b"x" * 1000, 0.05)
    finally:
        peer.peer_gone.set()


def _stalls_in_the_body(peer: Conversation) -> None:
    peer.send(OK + b"Content-Length: 100\r\n\r\nabc")
    peer.wait_for_peer_to_go()


def _drips_the_body(peer: Conversation) -> None:
    peer.send(OK + b"Content-Length: 1000\r\n\r\n")
    try:
        peer.drip(BODY, 0.05)
    finally:
        peer.peer_gone.set()


@pytest.mark.parametrize(
    ("script", "says"),
    [
        (_says_nothing, "no answer within 0.5 s"),
        (_stalls_in_the_head, "no answer within 0.5 s"),
        (_drips_the_head, "no answer within 0.5 s"),
        (_stalls_in_the_body, "no byte within 0.5 s: 3 of 100 bytes came"),
    ],
)
def test_a_stall_is_transient(fetch: Fetch, script: Callable[[Conversation], None], says: str) -> None:
    began = time.monotonic()
    with talk(script) as site:
        _fails(fetch(site.url, stall_timeout_seconds=0.5), RecordingFetchFailed, says)
        assert time.monotonic() - began < 2
        assert site.connections_are_gone()


def test_the_whole_download_has_its_time_and_no_more(fetch: Fetch) -> None:
    began = time.monotonic()
    with talk(_drips_the_body) as site:
        _fails(
            fetch(site.url, timeout_seconds=0.8, stall_timeout_seconds=0.5),
            RecordingFetchFailed,
            r"not complete after 0\.8 s: \d+ of 1000 bytes came",
        )
        assert time.monotonic() - began < 2.5
        assert site.connections_are_gone()


def test_a_tls_server_that_says_nothing_stalls(fetch: Fetch) -> None:
    with talk(_says_nothing, reads_request=False) as site:
        url = site.url.replace("http:", "https:")
        _fails(fetch(url, stall_timeout_seconds=0.5), RecordingFetchFailed, "no connection within 0.5 s")
        assert site.connections_are_gone()


# Cancelled.


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (_says_nothing, Cancelled("no longer wanted")),
        (_stalls_in_the_body, KeyboardInterrupt()),
        (_drips_the_body, Cancelled("no longer wanted")),
    ],
)
def test_a_cancel_is_heard_while_the_server_is_slow(
    fetch: Fetch, script: Callable[[Conversation], None], reason: BaseException
) -> None:
    cancelled_at = 0.0

    def report(*_: object) -> None:
        nonlocal cancelled_at
        if site.conversations and not cancelled_at:
            cancelled_at = time.monotonic()
        elif cancelled_at:
            raise reason

    with talk(script) as site:
        with pytest.raises(type(reason)), fetch(site.url, report=report):
            pytest.fail("it was delivered")
        assert time.monotonic() - cancelled_at < 2.0
        assert site.connections_are_gone()


def test_a_cancel_before_the_start_connects_to_nothing(fetch: Fetch) -> None:
    def report(*_: object) -> None:
        raise Cancelled("no longer wanted")

    with serve(deliver) as site:
        _fails(fetch(site.url, report=report), Cancelled)
    assert site.requests == []


def test_an_error_while_the_file_is_used_removes_it(fetch: Fetch) -> None:
    with serve(deliver) as site, pytest.raises(ZeroDivisionError), fetch(site.url):
        raise ZeroDivisionError


# Redirects.


def _follow(handler: BaseHTTPRequestHandler) -> None:
    left = int(handler.path.strip("/"))
    redirect(handler, f"/{left - 1}") if left else deliver(handler)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(fetch: Fetch, status: int) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        redirect(handler, "b c/ü.wav?x=1", status) if handler.path == "/a/" else deliver(handler)

    with serve(answer) as site, fetch(f"{site.url}/a/") as path:
        assert path.read_bytes() == BODY
    assert [request.path for request in site.requests] == ["/a/", "/a/b%20c/%FC.wav?x=1"]


def test_five_redirects_are_followed_and_no_more(fetch: Fetch) -> None:
    with serve(_follow) as site:
        with fetch(f"{site.url}/5") as path:
            assert path.read_bytes() == BODY
        site.requests.clear()
        _fails(fetch(f"{site.url}/6"), UrlNotAllowed, "more than 5 times")
        assert len(site.requests) == 6


@pytest.mark.parametrize(
    ("location", "says"),
    [
        ("http://169.254.169.254/latest/meta-data/", "169.254.169.254 is not a public address"),
        ("http://0xa9fea9fe/", "resolves to 169.254.169.254"),
        ("//[::ffff:10.0.0.1]/a.wav", "is not a public address"),
        ("http://[fd00:ec2::254]/", "is not a public address"),
        ("file:///etc/passwd", "is not followed"),
        ("ftp://127.0.0.1/a.wav", "scheme 'ftp'"),
        ("javascript:alert(1)", "cannot be followed"),
        ("http://[::1", "malformed"),
        ("http://127.0.0.1:0/", "port 0"),
        ("http://127.0.0.1%2f.x/", "malformed"),
        ("http://user:p4ss@10.0.0.1/?signature=s3cret", "10.0.0.1 is not a public address"),
    ],
)
def test_a_redirect_is_checked_like_the_first_url(fetch: Fetch, location: str, says: str) -> None:
    with serve(lambda handler: redirect(handler, location)) as site:
        failure = _fails(fetch(site.url, recordings_dir=Path("/"), timeout_seconds=5), UrlNotAllowed, None)
    assert says in str(failure)
    assert "s3cret" not in str(failure)
    assert "p4ss" not in str(failure)


def test_secrets_stay_with_scheme_host_and_port(fetch: Fetch) -> None:
    with serve(deliver) as other:

        def answer(handler: BaseHTTPRequestHandler) -> None:
            redirect(handler, f"{other.url}/c.wav" if handler.path == "/b.wav" else "/b.wav")

        with serve(answer) as site:
            url = site.url.replace("//", "//us%40er:p%3Aw@") + "/a.wav"
            with fetch(url, {"X-Api-Key": "s3cret", "cookie": "c"}):
                pass
    login = "Basic " + base64.b64encode(b"us@er:p:w").decode()
    for request in site.requests:
        assert request.headers["authorization"] == login
        assert request.headers["x-api-key"] == "s3cret"
    assert len(site.requests) == 2
    assert set(other.requests[0].headers) == {"host", "user-agent", "accept", "accept-encoding", "connection"}


def test_secrets_do_not_come_back_by_a_detour(fetch: Fetch) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        redirect(handler, f"{other.url}/") if handler.path == "/a.wav" else deliver(handler)

    with (
        serve(answer) as site,
        serve(lambda handler: redirect(handler, f"{site.url}/private")) as other,
        fetch(f"{site.url}/a.wav", {"Authorization": "Bearer s3cret"}),
    ):
        pass
    assert "authorization" in site.requests[0].headers
    assert "authorization" not in site.requests[1].headers


def test_a_header_of_the_caller_goes_before_the_url_s_password(fetch: Fetch) -> None:
    with serve(deliver) as site, fetch(site.url.replace("//", "//u:p@"), {"authorization": "Bearer t"}):
        assert site.requests[0].headers["authorization"] == "Bearer t"


# TLS.

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="the openssl command makes the certificates")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@needs_openssl
def test_https(fetch: Fetch, certificate: Certificate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.certificate))
    with serve(deliver, certificate.context()) as site:
        for host in ("127.0.0.1", "localhost", "Localhost."):
            with fetch(f"https://{host}:{site.port}/a.wav") as path:
                assert path.read_bytes() == BODY
    assert [request.headers["host"].split(":")[0] for request in site.requests] == ["127.0.0.1"] + ["localhost"] * 2


@needs_openssl
def test_a_certificate_nobody_vouches_for_gets_no_request(fetch: Fetch, certificate: Certificate) -> None:
    with serve(deliver, certificate.context()) as site:
        _fails(fetch(site.url, {"X-Api-Key": "s3cret"}), RecordingFetchFailed, "certificate is not valid .self.signed")
    assert site.requests == []


@needs_openssl
def test_a_certificate_of_another_host_gets_no_request(
    fetch: Fetch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    certificate = make_certificate(tmp_path, names="DNS:recordings.example")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.certificate))
    with serve(deliver, certificate.context()) as site:
        _fails(fetch(f"https://localhost:{site.port}/"), RecordingFetchFailed, "Hostname mismatch")
    assert site.requests == []


@needs_openssl
def test_no_redirect_leads_from_https_to_http(
    fetch: Fetch, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.certificate))
    with serve(deliver) as plain, serve(lambda handler: redirect(handler, plain.url), certificate.context()) as site:
        _fails(fetch(site.url), UrlNotAllowed, "from https to http is not followed")
    assert plain.requests == []


@needs_openssl
def test_a_tls_connection_cut_without_a_goodbye_is_no_end(
    fetch: Fetch, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.certificate))

    def script(peer: Conversation) -> None:
        with certificate.context().wrap_socket(peer.sock, server_side=True) as wrapped:
            wrapped.recv(65536)
            wrapped.sendall(OK + b"\r\n" + BODY)

    with talk(script, reads_request=False) as site:
        _fails(fetch(site.url.replace("http:", "https:")), RecordingFetchFailed, "the connection broke")


def test_https_to_a_server_that_speaks_http(fetch: Fetch) -> None:
    with talk(lambda peer: peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n"), reads_request=False) as site:
        _fails(fetch(site.url.replace("http:", "https:")), RecordingFetchFailed, "TLS failed")


# The disk.


def _run(script: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(script), *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_a_file_that_may_not_grow_is_a_full_disk(spool: Path) -> None:
    script = """
        import resource, sys
        from ipaddress import ip_network
        from pathlib import Path
        from diarization.download import download
        from diarization.errors import DiskFull
        from diarization.recording import Recording
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
        try:
            with download(Recording(sys.argv[1]), Path(sys.argv[2]), allowed_networks=[ip_network("127.0.0.0/8")],
                          max_bytes=10**9, timeout_seconds=10, stall_timeout_seconds=10, report=lambda *_: None):
                print("delivered")
        except DiskFull as error:
            print(error)
    """
    with serve(deliver) as site, _run(script, site.url, str(spool)) as process:
        assert process.communicate(timeout=30)[0] == "no space for the recording's temporary file: File too large\n"


def test_a_full_disk(fetch: Fetch, spool: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(spool)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("no small file system can be mounted here")
    try:
        with serve(deliver) as site:
            _fails(fetch(site.url), DiskFull, "No space left on device")
        assert list(spool.iterdir()) == []
        assert shutil.disk_usage(spool).used == 0
    finally:
        subprocess.run(["umount", str(spool)], check=True)


def test_what_a_killed_download_leaves_is_swept_and_nothing_else(fetch: Fetch, spool: Path) -> None:
    script = """
        import signal, sys
        from ipaddress import ip_network
        from pathlib import Path
        from diarization.download import download
        from diarization.recording import Recording
        with download(Recording(sys.argv[1]), Path(sys.argv[2]), allowed_networks=[ip_network("127.0.0.0/8")],
                      max_bytes=10**9, timeout_seconds=60, stall_timeout_seconds=60, report=lambda *_: None):
            print("delivered", flush=True)
            signal.pause()
    """
    unrelated = spool / "somebody-elses"
    unrelated.write_bytes(b"")
    with serve(deliver) as site, _run(script, site.url, str(spool)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "delivered\n"
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        (leftover,) = set(spool.iterdir()) - {unrelated}
        with fetch(site.url) as path:
            assert sweep_leftovers(spool) == 1
            assert not leftover.exists()
            assert path.read_bytes() == BODY
    unrelated.unlink()
    assert sweep_leftovers(spool / "missing") == 0


def test_a_sweep_between_creation_and_lock_costs_no_recording(
    fetch: Fetch, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swept: list[int] = []
    mkstemp = tempfile.mkstemp

    def mkstemp_then_sweep(*arguments: Any, **options: Any) -> tuple[int, str]:
        made = mkstemp(*arguments, **options)
        if not swept:
            swept.append(sweep_leftovers(spool))
        return made

    monkeypatch.setattr(tempfile, "mkstemp", mkstemp_then_sweep)
    with serve(deliver) as site, fetch(site.url) as path:
        assert path.read_bytes() == BODY
    assert swept == [1]


# Files.


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """Recordings on a shared volume."""
    folder = tmp_path / "shelf"
    (folder / "räume").mkdir(parents=True)
    (folder / "a b.wav").write_bytes(BODY)
    (folder / "räume/c.wav").write_bytes(BODY)
    (folder / "link.wav").symlink_to("a b.wav")
    (folder / "out.wav").symlink_to("/etc/passwd")
    (folder / "outside").symlink_to("/etc")
    (folder / "loop.wav").symlink_to("loop.wav")
    os.mkfifo(folder / "fifo.wav")
    (tmp_path / "shelf-neighbour.wav").write_bytes(BODY)
    return folder


@pytest.mark.parametrize("name", ["a%20b.wav", "./r%C3%A4ume/../a%20b.wav", "räume/c.wav", "link.wav"])
def test_a_file_is_used_where_it_lies(fetch: Fetch, shelf: Path, name: str) -> None:
    heard: list[tuple[str, int, int]] = []
    with fetch(f"file://{shelf}/{name}", recordings_dir=shelf, report=lambda *progress: heard.append(progress)) as path:
        assert path.read_bytes() == BODY
        assert not path.is_symlink()
        assert path.is_relative_to(shelf)
    assert path.exists()
    assert heard == [("download", len(BODY), len(BODY))]


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("missing.wav", RecordingNotFound),
        ("a%20b.wav/x", RecordingNotFound),
        ("loop.wav", RecordingNotFound),
        ("x" * 300, RecordingNotFound),
        ("fifo.wav", UrlNotAllowed),
        ("r%C3%A4ume", UrlNotAllowed),
        ("", UrlNotAllowed),
        ("out.wav", UrlNotAllowed),
        ("outside/passwd", UrlNotAllowed),
        ("outside/missing", UrlNotAllowed),
        ("../shelf-neighbour.wav", UrlNotAllowed),
        ("..%2fshelf-neighbour.wav", UrlNotAllowed),
        ("%2e%2e/%2e%2e/etc/passwd", UrlNotAllowed),
        ("../../../../../../etc/passwd", UrlNotAllowed),
        ("a%00.wav", UrlNotAllowed),
    ],
)
def test_a_file_that_is_not_read(fetch: Fetch, shelf: Path, name: str, error: type[DiarizationError]) -> None:
    _fails(fetch(f"file://{shelf}/{name}", recordings_dir=shelf), error)


def test_no_file_is_read_unless_the_operator_says_where_from(fetch: Fetch, shelf: Path) -> None:
    _fails(fetch(f"file://{shelf}/a%20b.wav"), UrlNotAllowed, "DIARIZATION_RECORDINGS_DIR is not set")


def test_a_file_above_the_cap(fetch: Fetch, shelf: Path) -> None:
    _fails(
        fetch(f"file://{shelf}/a%20b.wav", recordings_dir=shelf, max_bytes=99_999), RecordingTooLarge, "100000 bytes"
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(fetch: Fetch, shelf: Path) -> None:
    (shelf / "a b.wav").chmod(0)
    _fails(fetch(f"file://{shelf}/a%20b.wav", recordings_dir=shelf), RecordingForbidden)


def test_a_folder_can_be_served(fetch: Fetch, shelf: Path) -> None:
    with serve_folder(shelf) as site, fetch(f"{site.url}/a%20b.wav") as path:
        assert path.read_bytes() == BODY


# What comes along.


def test_a_recording_that_comes_along(fetch: Fetch) -> None:
    heard: list[tuple[str, int, int]] = []
    with fetch(canary.URL, report=lambda *said: heard.append(said)) as path:
        assert path.read_bytes()[:4] == b"fLaC"
        size = path.stat().st_size
    assert path.exists()
    assert heard == [("download", size, size)]
    _fails(fetch("bundled:no-such"), RecordingNotFound, "none of that name comes along with this version")
