"""A compose project of its own, made from a clean checkout of this repository, which ends with its `with` block."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.processes import ROOT
from tests.servers import free_port

PORTS = ("REDIS_PORT", "REDIS_TLS_PORT", "FLOWER_PORT", "METRICS_PORT", "PROMETHEUS_PORT", "GRAFANA_PORT")
PROFILES = ("--profile", "cpu", "--profile", "demo")
POLL_SECONDS = 3.0
LAST_LOG_LINES = 40


class ComposeError(Exception):
    """The stack does not do what it should. The message says what."""


def run(command: Sequence[str], *, folder: Path = ROOT, timeout_seconds: float = 1800, **environment: str) -> str:
    """What a command prints on standard output.

    Raises:
        ComposeError: It failed, or is not there.
    """
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ComposeError(f"{command[0]}: {error}") from None
    if done.returncode:
        raise ComposeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}{done.stdout}")
    return done.stdout


@dataclass(frozen=True)
class Stack:
    """A project while it is up.

    Attributes:
        folder: The checkout.
        name: The project's name.
        password: Of its Redis.
    """

    folder: Path
    name: str
    password: str

    def compose(self, *arguments: str) -> str:
        """`docker compose …` in the checkout."""
        return run(["docker", "compose", "-p", self.name, *PROFILES, *arguments], folder=self.folder)

    def up(self, *arguments: str) -> None:
        """Start what does not run, and wait until all of it is healthy."""
        self.compose("up", "--detach", "--wait", *arguments)

    def scale(self, workers: int) -> None:
        """So many CPU workers from now on."""
        self.up("--no-recreate", "--scale", f"cpu-worker={workers}")

    def tasks(self, *arguments: str) -> str:
        """`python -m tasks …` in a container of its own."""
        return self.compose("run", "--rm", "tools", *arguments)

    def submit(self, url: str, copies: int) -> list[str]:
        """The ids of so many jobs."""
        return self.tasks("submit", *[url] * copies).split()

    def jobs(self) -> dict[str, dict[str, Any]]:
        """The job list, by id."""
        lines = self.tasks("list", "--json", "--limit", "1000").splitlines()
        return {job["id"]: job for job in map(json.loads, lines)}

    def result(self, job_id: str) -> Any:
        """The result of a job that is done."""
        return json.loads(self.tasks("result", job_id, "--format", "json"))

    def wait_until(self, what: str, condition: Callable[[], Any], seconds: float) -> Any:
        """What `condition` gives once it is true.

        Raises:
            ComposeError: It was not in time.
        """
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            if time.monotonic() > deadline:
                raise ComposeError(f"not within {seconds:g} s: {what}")
            time.sleep(POLL_SECONDS)
        return value


def _fill_in(example: str, values: dict[str, str]) -> str:
    """`.env.example` as an operator fills it in: the same lines, with values."""
    lines = []
    for line in example.splitlines():
        name = line.removeprefix("# ").partition("=")[0]
        lines.append(f"{name}={values.pop(name)}" if name in values else line)
    if values:
        raise ComposeError(f".env.example does not know {', '.join(values)}")
    return "\n".join(lines) + "\n"


@contextmanager
def stack(**settings: str) -> Iterator[Stack]:
    """Clone, fill in .env, build, start; and take everything away again.

    Args:
        settings: Lines of .env beside the password and free ports.
    """
    name, password = f"compose-test-{secrets.token_hex(3)}", secrets.token_hex(16)
    images = {"WORKER_IMAGE": f"{name}:full", "LIGHT_IMAGE": f"{name}:light"}
    values = {"REDIS_PASSWORD": password, **{port: str(free_port()) for port in PORTS}, **images, **settings}
    with tempfile.TemporaryDirectory(prefix=f"{name}-") as folder:
        checkout = Path(folder) / "checkout"
        run(["git", "clone", "--quiet", str(ROOT), str(checkout)])
        (checkout / ".env").write_text(_fill_in((checkout / ".env.example").read_text(), values))
        it = Stack(checkout, name, password)
        try:
            it.compose("--profile", "tools", "build", "--quiet")
            it.up()
            yield it
        except ComposeError as error:
            last = it.compose("logs", "--no-color", "--tail", str(LAST_LOG_LINES))
            raise ComposeError(f"{error}\nthe containers' last lines:\n{last}") from None
        finally:
            it.compose("--profile", "tools", "down", "--volumes", "--remove-orphans", "--timeout", "10")
            # Each service that builds an image makes one of its own, and the last has the name: the others have none.
            unnamed = run(["docker", "image", "ls", "--quiet", "--filter", f"label=com.docker.compose.project={name}"])
            run(["docker", "image", "rm", "--force", *images.values(), *unnamed.split()])
