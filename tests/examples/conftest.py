"""A queue behind TLS with the real model, the Flask example on it, and a browser."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from redis import Redis

from tasks.valkey import EmbeddedValkey
from tests.browser import Visit, chromium
from tests.flask_app import RunningApp, running_app
from tests.processes import ROOT, Worker
from tests.servers import LOOPBACK, Certificate, tls_in_front_of

PASSWORD = "CANARY-redis-password"
GUIDE = {"RUNPOD_API_KEY": "CANARY-runpod-key", "RUNPOD_ENDPOINT_ID": "abc123", "HF_TOKEN": "CANARY-hf-token"}
"""What the guide has a Flask app set, beside REDIS_URL. An app that submits jobs needs none of it, and may have it."""

EXAMPLES = ROOT / "examples"


def run_example(name: str, *arguments: str, code: int = 0, given: str = "", **settings: str) -> CompletedProcess[str]:
    """A script of examples/ in a process of its own, which must end with `code` and without a traceback."""
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    environment = {**os.environ, **settings}
    done = subprocess.run(
        command, env=environment, input=given, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == code, done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    return done


@dataclass(frozen=True)
class RealQueue:
    """A worker with the real model; producers reach its server by TLS.

    Attributes:
        url: Of the server, with its password and the CA that signed its certificate.
        recordings: The folder that the worker shares.
    """

    url: str
    worker: Worker
    recordings: Path


@pytest.fixture(scope="session")
def real_queue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealQueue]:
    folder = tmp_path_factory.mktemp("real")
    recordings = folder / "recordings"
    recordings.mkdir()
    authority, certificate = make_signed_certificate(folder)
    with EmbeddedValkey() as server, tls_in_front_of(server.url, certificate) as site:
        with Redis.from_url(server.url) as client:
            client.config_set("requirepass", PASSWORD)
        url = f"{site.url.replace('://', f'://:{PASSWORD}@')}/0?ssl_ca_certs={authority}"
        settings = {"DIARIZATION_DEVICE": "cpu", "DIARIZATION_RECORDINGS_DIR": str(recordings)}
        worker = Worker(folder / "worker.log", "real", {"REDIS_URL": url, **settings}, ("-A", "tasks"), ())
        try:
            worker.wait_until_ready()
            yield RealQueue(url, worker, recordings)
        finally:
            worker.kill()


def make_signed_certificate(folder: Path) -> tuple[Path, Certificate]:
    """A CA's certificate, and one for loopback that it has signed, made as docs/deploy.md says."""
    authority, made = folder / "ca.crt", Certificate(folder / "redis.crt", folder / "redis.key")
    new = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "1",
    ]
    ca = [*new, "-subj", "/CN=test CA", "-keyout", folder / "ca.key", "-out", authority]
    signed = [*new, "-CA", authority, "-CAkey", folder / "ca.key", "-subj", "/CN=redis"]
    signed += ["-addext", f"subjectAltName=IP:{LOOPBACK}", "-addext", "basicConstraints=CA:FALSE"]
    for command in (ca, [*signed, "-keyout", made.key, "-out", made.certificate]):
        subprocess.run(command, check=True, capture_output=True, timeout=30)
    return authority, made


@pytest.fixture(scope="session")
def real_app(real_queue: RealQueue, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    """The app, with the folder that it shares with the worker."""
    settings = {**GUIDE, "REDIS_URL": real_queue.url, "DIARIZATION_RECORDINGS_DIR": real_queue.recordings}
    with running_app(tmp_path_factory.mktemp("app") / "app.log", **settings) as app:
        yield app


@pytest.fixture
def visit(tmp_path: Path) -> Iterator[Visit]:
    """Opens a page in a browser of its own, and fails where a script of it does; `visit(url, color_scheme="dark")`."""
    errors: list[Any] = []
    with chromium(tmp_path, errors.append) as open_page:
        yield lambda url, **options: open_page(url, **{"viewport": {"width": 1200, "height": 900}, **options})
    assert errors == []
