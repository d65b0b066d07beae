"""The Flask example for tests, in a process of its own, as `flask run` starts it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import Any

import requests

from tests.processes import running_server, wait_until
from tests.servers import LOOPBACK, free_port

TIMEOUT_SECONDS = 30


@dataclass(frozen=True)
class RunningApp:
    """A started app: its URL without a trailing slash, its process, its log."""

    url: str
    process: Popen[bytes]
    log_file: Path

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def get(self, path: str, **options: Any) -> requests.Response:
        return requests.get(self.url + path, timeout=TIMEOUT_SECONDS, **options)

    def post(self, path: str, **options: Any) -> requests.Response:
        return requests.post(self.url + path, timeout=TIMEOUT_SECONDS, **options)

    def upload(self, name: str, data: bytes, **form: Any) -> requests.Response:
        """The answer to the form's POST, not followed."""
        return self.post("/jobs", files={"recording": (name, data)}, data=form, allow_redirects=False)

    def submit(self, name: str, data: bytes, **form: Any) -> str:
        """The path of the new job's page."""
        answer = self.upload(name, data, **form)
        assert answer.status_code == 303, answer.text
        return answer.headers["Location"]

    def status(self, page: str) -> dict[str, Any]:
        answer = self.get(page + "/status")
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()
        return told

    def wait(self, page: str, seconds: float = 60) -> dict[str, Any]:
        """The job's status once it has ended."""
        wait_until(lambda: self.status(page)["ended"], seconds, f"{page} has ended")
        return self.status(page)


@contextmanager
def running_app(log_file: Path, *, port: int | None = None, **settings: Any) -> Iterator[RunningApp]:
    """The app at a free port, until the block ends."""
    port = port or free_port()
    url = f"http://{LOOPBACK}:{port}"
    command = [sys.executable, "-m", "flask", "--app", "examples/flask_app/app", "run", "--port", str(port)]
    with running_server(
        command, log_file, lambda: requests.get(url, timeout=TIMEOUT_SECONDS).ok, **settings
    ) as process:
        yield RunningApp(url, process, log_file)
