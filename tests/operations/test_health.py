"""The health check of containers: what it says of real workers, without Redis and without asking them."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from redis import Redis

from tasks import vitals
from tasks.celery import app
from tasks.diarize import diarize
from tasks.record import State
from tasks.valkey import EmbeddedValkey
from tests.jobs import answers, record
from tests.processes import Worker, run_cli, wait_until


class Check:
    """`healthcheck` of the workers whose runtime folder is `folder`, with a Redis that nobody can reach."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / f"diarize-queue-{os.getuid()}"
        self.settings = {"QUEUE_RUNTIME_DIR": str(folder), "REDIS_URL": "redis://127.0.0.1:1/0"}

    def sees(self) -> list[bool]:
        """Of each worker whether it is well, without a process for the question."""
        return [vitals.examine(one)[0] for one in vitals.read(self.folder)]

    def ok(self, *arguments: str) -> str:
        return run_cli("healthcheck", *arguments, **self.settings).stdout

    def fails(self, *arguments: str) -> str:
        done = run_cli("healthcheck", *arguments, code=1, **self.settings)
        return done.stdout + done.stderr


def start(start_worker: Callable[..., Worker], folder: Path, **settings: Any) -> Worker:
    return start_worker(QUEUE_RUNTIME_DIR=folder, **settings)


def test_it_follows_a_worker_from_its_start_to_its_end(
    redis: Redis, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    check = Check(tmp_path)
    assert "no worker of this user runs here" in check.fails()
    worker = start(start_worker, tmp_path, DIARIZATION_MODEL="wait/loaded", ready=False)
    wait_until(lambda: worker.children)
    assert check.fails() == f"loading: w0@test ({worker.process.pid}): the model is not loaded yet\n"
    (tmp_path / "loaded").touch()
    worker.wait_until_ready()
    assert check.ok().startswith(f"ok: w0@test ({worker.process.pid}): its gate is open, its heartbeat was ")
    job = diarize.delay("http://stand.in/wait/go")
    wait_until(lambda: record(job).state is State.RUNNING)
    worker.process.terminate()
    wait_until(lambda: "worker: Warm shutdown" in worker.log)
    assert check.fails() == f"stopping: w0@test ({worker.process.pid}): it is about to end\n"
    (tmp_path / "go").touch()
    assert worker.process.wait(30) == 0
    assert "no worker" in check.fails()


def test_it_sees_a_worker_that_was_killed_or_frozen(
    redis: Redis, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    """Of two on one machine it says which."""
    check = Check(tmp_path)
    killed, frozen = start(start_worker, tmp_path), start(start_worker, tmp_path)
    assert check.ok().count("ok: w") == 2
    os.kill(frozen.process.pid, signal.SIGSTOP)
    said = check.fails()
    assert f"frozen: w1@test ({frozen.process.pid})" in said
    assert f"ok: w0@test ({killed.process.pid})" in said
    assert check.ok("w0@test").startswith("ok: w0@test")
    killed.kill()
    assert f"gone: w0@test ({killed.process.pid})" in check.fails()
    os.kill(frozen.process.pid, signal.SIGCONT)
    assert check.ok("w1@test").startswith("ok: w1@test")


def test_an_outage_of_redis_is_no_illness_of_the_worker(
    redis: Redis, server: EmbeddedValkey, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    check = Check(tmp_path)
    start(start_worker, tmp_path, arguments=("-A", "tests.stuck"), QUEUE_LEASE_SECONDS=2)
    server.kill()
    try:
        wait_until(lambda: "Redis has not answered for" in check.ok(), seconds=60)
    finally:
        server.start()
        wait_until(lambda: answers(redis))
    wait_until(lambda: "Redis has not answered" not in check.ok(), seconds=60)


def test_a_folder_that_others_could_write_to_is_not_believed(tmp_path: Path) -> None:
    check, ours = Check(tmp_path), tmp_path / f"diarize-queue-{os.getuid()}"
    ours.mkdir(mode=0o700)
    ours.chmod(0o777)
    assert "is not this user's alone" in check.fails()
    ours.rmdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    ours.symlink_to(tmp_path / "elsewhere")
    assert "is not this user's alone" in check.fails()


def test_what_a_worker_writes_is_for_its_user_alone(
    redis: Redis, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    worker = start(start_worker, tmp_path)
    folder = tmp_path / f"diarize-queue-{os.getuid()}" / str(worker.process.pid)
    assert [stat.S_IMODE(one.stat().st_mode) for one in (folder, folder.parent)] == [0o700] * 2


def test_it_sees_a_main_loop_that_hangs_while_the_heartbeat_goes_on(
    redis: Redis, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    check = Check(tmp_path)
    start(start_worker, tmp_path, arguments=("-A", "tests.stuck"), QUEUE_LEASE_SECONDS=2)
    wait_until(lambda: "Redis has never" not in check.ok())
    app.control.broadcast("hang")
    wait_until(lambda: not any(check.sees()), seconds=60, what="it is not well")
    assert "stuck: w0@test" in check.fails()
