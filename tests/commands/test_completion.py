"""The Tab key in real shells: commands, options, formats, states and the newest jobs; never an error, never a wait."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from redis import Redis

from tasks.commands.completion import ANSWER_SECONDS
from tasks.diarize import diarize
from tests.processes import ROOT, wait_until
from tests.terminal import Terminal

URL = "http://stand.in/turns/5/1/council.wav"
BIN = Path(sys.executable).parent
SHELLS = {
    "bash": ("bash", "--norc", "--noprofile", "-i"),
    "zsh": ("zsh", "-f", "-i"),
    "fish": ("fish", "--no-config", "--interactive"),
}


def tab(arguments: str, **settings: str) -> list[str]:
    """What bash is offered for the last word."""
    words = f"diarize-queue {arguments}"
    place = str(words.count(" "))
    return ask(_DIARIZE_QUEUE_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=place, **settings).split()


def offers(arguments: str, jobs: list[str]) -> None:
    """These jobs are offered; on a busy machine it may take more than one key press to hear of them in time."""
    wait_until(lambda: sorted(tab(arguments)) == sorted(jobs), what=f"{jobs} for {arguments!r}")


def ask(*options: str, **environment: str) -> str:
    """What `diarize-queue` prints where it is asked by a shell, without a word of complaint."""
    done = subprocess.run(
        [BIN / "diarize-queue", *options],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_commands_options_and_values(redis: Redis) -> None:
    assert tab("st") == ["status"]
    assert tab("dead re") == ["replay"]
    assert tab("queue --w") == ["--watch"]
    assert tab("list --state d") == ["due", "done", "dead"]
    assert tab("result x --format ") == ["json", "rttm", "srt", "vtt", "csv", "labels", "table"]
    assert tab("submit --provider l") == ["local"]


def test_jobs_by_what_can_be_done_with_them(redis: Redis) -> None:
    waiting = [diarize.delay(URL).id for _ in range(3)]
    diarize.cancel(waiting[0])
    offers("status ", waiting)
    offers("cancel ", waiting[1:])
    offers("delete ", waiting[:1])
    offers(f"status {waiting[1][:12]}", waiting[1:2])
    assert tab("result ") == tab("dead replay ") == []


def test_what_a_shell_would_obey_is_not_offered(redis: Redis) -> None:
    hostile = "$(touch${IFS}/tmp/x)"
    diarize.apply_async((URL,), task_id=hostile)
    diarize.apply_async((URL + "/a%5C%24(reboot)%60b%60%22.wav",), task_id="good:no")
    diarize.apply_async(("http://stand.in/a%5C%24(reboot)%60b%60%22.wav",), task_id="good")
    offers("status ", ["good"])
    # What zsh evaluates says what the jobs are as well.
    asked = {"_DIARIZE_QUEUE_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "diarize-queue status "}
    offered = wait_until(lambda: "good" in (said := ask(**asked)) and said)
    assert '"good":"a__(reboot)_b__"' in offered


@contextmanager
def deaf_server() -> Iterator[str]:
    """A Redis that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"redis://127.0.0.1:{listening.getsockname()[1]}/0"


def test_where_redis_is_away_or_hung_nothing_is_offered_and_nothing_said() -> None:
    assert ANSWER_SECONDS <= 1
    assert tab("status ", REDIS_URL="redis://127.0.0.1:1/0") == []
    assert tab("status ", DIARIZATION_MODLE="x") == []
    with deaf_server() as url:
        assert tab("status ", REDIS_URL=url) == []


def press_tab(terminal: Terminal, expected: str) -> bool:
    """Whether that is on the screen soon afterwards."""
    terminal.type("\t")
    with suppress(AssertionError):
        terminal.wait_for(expected, seconds=5)
    return expected in terminal.text


@pytest.mark.parametrize("shell", SHELLS)
def test_a_person_presses_tab(shell: str, redis: Redis) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    job = diarize.delay(URL).id
    path = f"{BIN}:{os.environ['PATH']}"
    command = [shutil.which(shell) or shell, *SHELLS[shell][1:]]
    load = {
        "bash": "source <(diarize-queue --show-completion bash)",
        "zsh": "autoload -Uz compinit && compinit -u -D; source <(diarize-queue --show-completion zsh)",
        "fish": "diarize-queue --show-completion fish | source",
    }[shell]
    with Terminal(command=command, columns=120, rows=24, PATH=path, PS1="> ", HOME="/nonexistent") as terminal:
        terminal.wait_for(lambda text: bool(text.strip()))
        terminal.type(f"{load}; echo read''y\r")
        terminal.wait_for("ready")
        terminal.type("diarize-queue stat\t")
        terminal.wait_for("diarize-queue status")
        wait_until(lambda: press_tab(terminal, job))
        terminal.type("--js\t")
        terminal.wait_for("--json")
        terminal.type("\r")
        terminal.wait_for('"state": "queued"')


def test_it_installs_itself_into_a_home(tmp_path: Path) -> None:
    assert "bash completion installed in" in ask("--install-completion", "bash", HOME=str(tmp_path))
    installed = "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    assert "complete -o default -F _diarize_queue_completion diarize-queue" in installed
