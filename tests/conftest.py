"""What the tests share: a clean environment, a real server, real workers. None of them outlives the test run."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tasks.valkey import EmbeddedValkey
from tests.processes import ROOT, Worker, forget_settings, wait_until
from tests.servers import free_port


def pytest_configure() -> None:
    """A developer's shell must not change a test, and the app, configured once, must find the tests' server."""
    forget_settings()
    os.environ["REDIS_URL"] = f"redis://127.0.0.1:{free_port()}/0"
    # Tests run side by side; torch's threads of two models on the same cores would slow each other down tenfold.
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    # Hundreds of processes are started: without bytecode each of them compiles the source anew.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["DIARIZATION_ALLOWED_NETWORKS"] = "127.0.0.0/8"
    os.environ["OVERFLOW_CANARY_HOURS"] = "0"  # tests of other things count what a bridge submits


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    """The server at REDIS_URL, for the whole run."""
    port = int(os.environ["REDIS_URL"].rsplit(":", 1)[1].partition("/")[0])
    # It keeps what a killed process has written, as a Redis with an append-only file does; fsync is for power failures.
    keeping = ("--appendonly", "yes", "--appendfsync", "no")
    with EmbeddedValkey(tmp_path_factory.mktemp("valkey"), port=port, arguments=keeping) as running:
        yield running


@pytest.fixture
def redis(server: EmbeddedValkey) -> Iterator[Redis]:
    """A client of an empty database."""
    with Redis.from_url(server.url, decode_responses=True) as client:
        client.flushall()
        yield client


@pytest.fixture(scope="module")
def module_redis(server: EmbeddedValkey) -> Iterator[Redis]:
    """A client of a database that was empty when the module's tests began."""
    with Redis.from_url(server.url, decode_responses=True) as client:
        client.flushall()
        yield client


@pytest.fixture
def outage(server: EmbeddedValkey, redis: Redis) -> Iterator[EmbeddedValkey]:
    """The server, which a test may stop in its way, or fill; it answers again afterwards."""
    yield server
    if server.running:
        server.process.send_signal(signal.SIGCONT)
    else:
        server.start()
    wait_until(redis.ping)
    redis.config_set("maxmemory", 0)


@pytest.fixture
def start_worker(server: EmbeddedValkey, tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """Starts workers with the stand-in diarizer; `start_worker(QUEUE_LEASE_SECONDS=4)` sets their environment."""
    yield from _worker_factory(server, tmp_path)


@pytest.fixture(scope="module")
def start_module_worker(
    server: EmbeddedValkey, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Worker]]:
    """The same for workers that serve a whole module."""
    yield from _worker_factory(server, tmp_path_factory.mktemp("workers"))


def _worker_factory(server: EmbeddedValkey, folder: Path) -> Iterator[Callable[..., Worker]]:
    workers: list[Worker] = []

    def start(
        *,
        ready: bool = True,
        arguments: tuple[str, ...] = ("-A", "tasks"),
        options: tuple[str, ...] = (),
        **settings: Any,
    ) -> Worker:
        environment = {
            "REDIS_URL": server.url,
            "DIARIZATION_DIARIZER": "tests.standin:load",
            "DIARIZATION_ALLOWED_NETWORKS": "127.0.0.0/8",
            "STANDIN_DIR": str(folder),
            **{name: str(value) for name, value in settings.items()},
        }
        worker = Worker(folder / f"worker{len(workers)}.log", f"w{len(workers)}", environment, arguments, options)
        workers.append(worker)
        if ready:
            worker.wait_until_ready()
        return worker

    yield start
    for worker in workers:
        worker.kill()


@pytest.fixture
def python(server: EmbeddedValkey) -> Callable[..., str]:
    """Runs a piece of Python in a process of its own, and gives what it printed."""
    import subprocess

    def run(code: str, *, cwd: Path | None = None, timeout: float = 60, **settings: Any) -> str:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **{k: str(v) for k, v in settings.items()}}
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=cwd or ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
