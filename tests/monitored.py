"""A real Flower for tests, in a process of its own."""

from __future__ import annotations

import base64
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPMessage
from pathlib import Path
from subprocess import Popen
from typing import Any

from tasks.tether import end, spawn_tethered
from tests.processes import ROOT, wait_until
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
    """A started Flower: its URL without a trailing slash, its process, its log."""

    url: str
    process: Popen[bytes]
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
    environment = {**os.environ, "FLOWER_BASIC_AUTH": f"{USER}:{PASSWORD}", **{k: str(v) for k, v in settings.items()}}
    command = [sys.executable, "-m", "tasks", "flower", "--port", str(port)]
    with log_file.open("ab") as sink:
        process = spawn_tethered(command, stdout=sink, environment=environment, folder=ROOT)
    flower = RunningFlower(f"http://{LOOPBACK}:{port}", process, log_file)
    try:
        wait_until(lambda: process.poll() is not None or _answers(flower), what="Flower answers")
        assert process.poll() is None, flower.log
        yield flower
    finally:
        end(process, 20)


def _answers(flower: RunningFlower) -> bool:
    try:
        return flower.ask("/healthcheck").status > 0
    except urllib.error.URLError:
        return False
