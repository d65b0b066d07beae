"""Each command's exit codes, in one table: 0 done, 1 a check or a job failed, 2 wrong usage, 3 nothing to connect to.

What goes wrong is one line on stderr, and never a traceback.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import typer.main
from redis import Redis

from tasks.__main__ import app
from tasks.diarize import diarize
from tasks.orders import QUEUE, OrderBook
from tasks.settings import current_settings
from tests.busy_fleet import busy_fleet
from tests.jobs import die, record
from tests.processes import run_cli

URL = "http://stand.in/turns/5/1"
NOBODY = "00000000-0000-0000-0000-000000000000"

TABLE = [
    ("submit", [URL], 0),
    ("submit", ["ftp://h/a"], 2),
    ("submit", ["no such file.wav"], 2),
    ("submit", [URL, "--wait", "--timeout", "0"], 1),
    ("status", ["{waiting}"], 0),
    ("status", ["{dead}"], 0),
    ("status", ["{waiting}", NOBODY], 1),
    ("status", ["{dead}", "--watch"], 1),
    ("status", ["{waiting}", "--every", "1"], 2),
    ("result", ["{waiting}"], 1),
    ("result", ["{dead}"], 1),
    ("result", [NOBODY], 1),
    ("result", ["{dead}", "--format", "mp3"], 2),
    ("list", [], 0),
    ("list", ["--state", "asleep"], 2),
    ("cancel", ["{waiting}"], 0),
    ("cancel", [NOBODY], 1),
    ("delete", ["{dead}"], 0),
    ("delete", ["{waiting}"], 1),
    ("delete", [NOBODY], 1),
    ("dead list", [], 0),
    ("dead show", ["{dead}"], 0),
    ("dead show", [NOBODY], 2),
    ("dead replay", ["{dead}"], 0),
    ("dead replay", [], 2),
    ("dead discard", ["{dead}"], 0),
    ("dead discard", ["--all"], 1),
    ("webhooks secret", [], 0),
    ("webhooks list", [], 0),
    ("webhooks replay", ["--all"], 0),
    ("webhooks replay", [NOBODY], 1),
    ("queue", [], 0),
    ("queue", ["--every", "1"], 2),
    ("pause", ["--overflow"], 0),
    ("resume", [], 0),
    ("resume", ["nobody@host"], 2),
    ("drain", ["celery@gpu0"], 0),
    ("drain", ["celery@gpu0", "--wait", "--timeout", "0"], 1),
    ("drain", [], 2),
    ("budget", [], 0),
    ("budget reopen", [], 0),
    ("flower", [], 2),
    ("metrics", ["--host", "192.0.2.1"], 1),
    ("metrics", ["--port", "x"], 2),
    ("doctor", ["--role", "nobody"], 2),
    ("healthcheck", ["nobody@host"], 1),
    ("bench", ["no such file.wav"], 2),
    ("demo", ["x"], 2),
]
UNREACHABLE = [
    *("submit http://h/a", f"status {NOBODY}", f"result {NOBODY}", "list", f"cancel {NOBODY}", f"delete {NOBODY}"),
    *(
        "dead list",
        "webhooks list",
        "queue",
        "queue --watch",
        "pause",
        "resume",
        "drain x",
        "budget",
        "doctor --role producer",
    ),
]
SERVERS = {"flower", "metrics", "demo"}
"""What runs until it is ended, for people or Prometheus: it has nothing to print as JSON."""

Here = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def jobs(redis: Redis) -> dict[str, str]:
    """A job that waits, and one that was given up and told of."""
    busy_fleet(redis, workers=1, waiting=2)
    waiting, dead = diarize.delay(URL).id, diarize.delay("http://stand.in/turns/5/2").id
    die(dead)
    diarize.records.answered(dead, record(dead).taken_number or 0)
    return {"waiting": waiting, "dead": dead}


@pytest.mark.parametrize(("command", "arguments", "code"), TABLE)
def test_exit_codes(command: str, arguments: list[str], code: int, jobs: dict[str, str], here: Here) -> None:
    done = here(*command.split(), *(argument.format(**jobs) for argument in arguments), code=code)
    assert "Traceback" not in done.stderr
    if code == 2:
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: ")
        assert done.stdout == ""
    if code == 1:
        assert done.stderr or done.stdout, "it says why"


@pytest.mark.parametrize("command", UNREACHABLE)
def test_nothing_to_connect_to(command: str) -> None:
    done = run_cli(*command.split(), code=3, REDIS_URL="redis://127.0.0.1:1/0")
    assert "127.0.0.1:1" in done.stderr + done.stdout
    assert len(done.stderr.splitlines()) <= 1


def commands() -> Iterator[tuple[str, Any]]:
    """Each command that there is, by its whole name."""
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        below = getattr(command, "commands", {})
        if not below or command.invoke_without_command:
            yield name, command
        yield from ((f"{name} {one}", found) for one, found in below.items())


def test_every_command_has_its_row_and_speaks_to_programs() -> None:
    known = dict(commands())
    assert set(known) == {command for command, _, _ in TABLE}
    options = {name: {word for one in command.params for word in one.opts} for name, command in known.items()}
    assert {name for name, words in options.items() if "--json" not in words} == SERVERS


@pytest.mark.parametrize(
    ("command", "arguments", "told"),
    [
        ("pause", ["--overflow", "--reason", "why"], {"what": "overflow", "paused": True, "reason": "why"}),
        ("resume", [], {"what": "queue", "paused": False, "was_paused": True}),
        ("resume", ["--overflow"], {"what": "overflow", "paused": False, "was_paused": False}),
        ("drain", ["celery@gpu0"], {"worker": "celery@gpu0", "drain": "ordered"}),
        ("drain", ["celery@bridge", "--wait"], {"worker": "celery@bridge"}),
        ("webhooks secret", [], {}),
    ],
)
def test_what_programs_read_of_the_operators_commands(
    command: str, arguments: list[str], told: dict[str, Any], redis: Redis, jobs: dict[str, str], here: Here
) -> None:
    if arguments[-1:] == ["--wait"]:
        arguments, code = [*arguments, "--timeout", "0"], 1
    else:
        code = 0
    OrderBook(redis, current_settings()).pause(QUEUE, "", "ada@host")
    done = here(*command.split(), *arguments, "--json", code=code)
    (said,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert said.items() >= told.items()
