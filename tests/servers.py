"""Real, tiny servers on free loopback ports; each ends with its `with` block, and nothing it started stays behind."""

from __future__ import annotations

import contextlib
import functools
import socket
import socketserver
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

LOOPBACK = "127.0.0.1"
DEADLINE_SECONDS = 10.0


def free_port() -> int:
    """A port of loopback at which nobody listens."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def in_thread(server: socketserver.BaseServer) -> Iterator[None]:
    """In this block the server serves."""
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()


@dataclass(frozen=True)
class Request:
    """What a server was asked; the names of the headers are in lower case."""

    path: str
    headers: dict[str, str]


@dataclass
class Site:
    """A running server: its URL without a trailing slash, and what it was asked so far."""

    url: str
    requests: list[Request] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])


Answer = Callable[[BaseHTTPRequestHandler], None]


@contextlib.contextmanager
def serve(answer: Answer, tls: ssl.SSLContext | None = None) -> Iterator[Site]:
    """An HTTP server that has every GET answered by `answer`, which writes status, headers and body itself."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.requests.append(Request(self.path, {name.lower(): value for name, value in self.headers.items()}))
            answer(self)

        def log_message(self, *_: Any) -> None:
            pass

    with _running(Handler, tls) as site:
        yield site


@contextlib.contextmanager
def serve_folder(folder: Path) -> Iterator[Site]:
    """An HTTP server of the files of a folder."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    with _running(functools.partial(Handler, directory=str(folder)), None) as site:
        yield site


class _Server(ThreadingHTTPServer):
    daemon_threads = False

    def handle_error(self, *_: Any) -> None:
        """A peer that hangs up, or that does not trust the certificate, is what many tests are about."""


@contextlib.contextmanager
def _running(handler: Callable[..., BaseHTTPRequestHandler], tls: ssl.SSLContext | None) -> Iterator[Site]:
    with _Server((LOOPBACK, 0), handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        with in_thread(server):
            yield Site(f"{'https' if tls else 'http'}://{LOOPBACK}:{server.server_address[1]}")


class Conversation:
    """One connection to a `talk` server, after the request's head was read."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.peer_gone = threading.Event()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def wait_for_peer_to_go(self) -> None:
        """Says nothing more, for as long as the peer keeps the connection open."""
        with contextlib.suppress(OSError):
            while self.sock.recv(65536):
                pass
        self.peer_gone.set()

    def drip(self, data: bytes, every_seconds: float) -> None:
        """Sends byte by byte, until the peer goes away."""
        for byte in data:
            self.send(bytes([byte]))
            time.sleep(every_seconds)  # the slowness is what is tested; nothing waits for it

    def reset(self) -> None:
        """Ends the connection by RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.sock.close()


@dataclass
class Talk(Site):
    """A running `talk` server."""

    conversations: list[Conversation] = field(default_factory=list)

    def connections_are_gone(self) -> bool:
        """Whether the peer closed every connection, waiting for it for a while."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        return bool(self.conversations) and all(
            conversation.peer_gone.wait(max(0.0, deadline - time.monotonic())) for conversation in self.conversations
        )


@contextlib.contextmanager
def talk(script: Callable[[Conversation], None], *, reads_request: bool = True) -> Iterator[Talk]:
    """A TCP server that has every connection handled by `script`, for what no proper HTTP server does."""
    listener = socket.create_server((LOOPBACK, 0))
    site = Talk(f"http://{LOOPBACK}:{listener.getsockname()[1]}")
    threads: list[threading.Thread] = []

    def converse(conversation: Conversation) -> None:
        with conversation.sock, contextlib.suppress(OSError):
            if reads_request:
                _read_head(conversation.sock)
            script(conversation)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                conversation = Conversation(listener.accept()[0])
                site.conversations.append(conversation)
                threads.append(threading.Thread(target=converse, args=(conversation,)))
                threads[-1].start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield site
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join()
        for conversation in site.conversations:
            with contextlib.suppress(OSError):
                conversation.sock.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()


def _read_head(sock: socket.socket) -> None:
    head = b""
    while b"\r\n\r\n" not in head:
        received = sock.recv(65536)
        if not received:
            return
        head += received


@dataclass(frozen=True)
class Certificate:
    """A certificate that signed itself, with its key, both PEM files."""

    certificate: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        """What a server needs to show it."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context


def make_certificate(folder: Path, *, names: str = f"IP:{LOOPBACK},DNS:localhost", days: int = 1) -> Certificate:
    """A certificate for `names`, made by the openssl command."""
    made = Certificate(folder / "certificate.pem", folder / "key.pem")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", "/CN=loopback", "-addext", f"subjectAltName={names}", "-days", str(days)]
    command += ["-keyout", str(made.key), "-out", str(made.certificate)]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    return made


@contextlib.contextmanager
def tls_in_front_of(url: str, certificate: Certificate, *, asks_for_one: bool = False) -> Iterator[Site]:
    """A TLS port of loopback whose connections go on, decrypted, to the server at `url`.

    With `asks_for_one` the client must show a certificate as well.
    """
    context = certificate.context()
    if asks_for_one:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(certificate.certificate)
    backend = urlsplit(url)

    class Relay(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with (
                contextlib.suppress(OSError),  # a handshake that fails is what some tests are about
                context.wrap_socket(self.request, server_side=True) as outer,
                socket.create_connection((backend.hostname or LOOPBACK, backend.port or 6379)) as inner,
            ):
                back = threading.Thread(target=_pass_on, args=(inner, outer))
                back.start()
                _pass_on(outer, inner)
                back.join()

    with socketserver.ThreadingTCPServer((LOOPBACK, 0), Relay) as server, in_thread(server):
        yield Site(f"rediss://{LOOPBACK}:{server.server_address[1]}")


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while received := source.recv(65536):
            sink.sendall(received)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_RDWR)
