"""A real Flower for tests, in a process of its own."""

from __future__ import annotations

import base64
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPMessage
from pathlib import Path
from typing import Any

from tests.processes import running_server
from tests.servers import LOOPBACK, free_port

USER, PASSWORD = "ada", "CANARY-flower-password"


@dataclass(frozen=True)
class Answer:
    """An HTTP answer."""

    status: int
    text: str
    headers: HTTPMessage


@dataclass(frozen=True)
class RunningFlower:
    """A started Flower: its URL without a trailing slash, its log."""

    url: str
    log_file: Path

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def ask(self, path: str, *, method: str = "GET", user: str = USER, password: str | None = PASSWORD) -> Answer:
        """What it answers, whatever the status; without a password where that is None."""
        request = urllib.request.Request(self.url + path, method=method, data=b"{}" if method == "POST" else None)
        if password is not None:
            pair = base64.b64encode(f"{user}:{password}".encode()).decode()
            request.add_header("Authorization", f"Basic {pair}")
        try:
            with urllib.request.urlopen(request, timeout=20) as got:
                return Answer(got.status, got.read().decode(), got.headers)
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.read().decode(), error.headers)


@contextmanager
def running_flower(log_file: Path, **settings: Any) -> Iterator[RunningFlower]:
    """Flower at a free port, until the block ends."""
    port = free_port()
    flower = RunningFlower(f"http://{LOOPBACK}:{port}", log_file)
    command = [sys.executable, "-m", "tasks", "flower", "--port", str(port)]
    settings = {"FLOWER_BASIC_AUTH": f"{USER}:{PASSWORD}", **settings}
    with running_server(command, log_file, lambda: flower.ask("/healthcheck"), **settings):
        yield flower
