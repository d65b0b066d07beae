"""The views at a terminal: `queue --watch` and `status --watch`, as a person sees them and as a pipe gets them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from redis import Redis

from tasks.diarize import diarize
from tasks.orders import QUEUE, OrderBook
from tasks.record import State
from tasks.records import worker_name
from tasks.settings import current_settings
from tasks.valkey import EmbeddedValkey
from tests.busy_fleet import L4, announce, busy_fleet, recordings, start
from tests.jobs import record
from tests.processes import ROOT, Worker, run_cli, wait_until
from tests.servers import free_port
from tests.terminal import ALTERNATE, NORMAL, Terminal


@pytest.fixture
def fleet(redis: Redis) -> list[str]:
    """Three GPU workers, a bridge, six running jobs and forty that wait."""
    return busy_fleet(redis)


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (200, 60)])
def test_the_queue_at_a_terminal_is_one_screen(fleet: list[str], columns: int, rows: int) -> None:
    with Terminal("queue", "--watch", "--every", "0.2", columns=columns, rows=rows) as terminal:
        shown = terminal.wait_for(" more")  # the last line, of those for which there is no room
        assert "BUSY  diarize-queue" in shown
        assert "40 jobs, 50:00:00 h of audio" in shown
        assert "open: 11 jobs would be late here" in shown
        assert "3.1000 of 10 USD spent today" in shown
        assert "NVIDIA L4  2 of 2  1:02 min" in shown
        assert "all done" in shown
        stage = next(line for line in terminal.lines if "01-council" in line)
        assert "━" in stage
        assert "62 %" in stage
        assert ("embedding" in stage, fleet[0] in stage) == (True, columns == 200)
        assert terminal.is_coloured
        assert not terminal.scrolled
        assert ALTERNATE in terminal.written
        terminal.type("\x03")
        assert terminal.wait() == 0, "Ctrl-C is how it ends"
        assert NORMAL in terminal.written


def test_a_large_fleet_and_a_long_line_fit_a_small_screen_and_a_new_size_is_drawn_at_once(redis: Redis) -> None:
    busy_fleet(redis, workers=60, waiting=1200)
    with Terminal("queue", "-w", "--every", "3600", columns=80, rows=24) as terminal:
        terminal.wait_for("… 1,197 more")
        assert "60 workers" in terminal.text
        assert "120 of 120" in terminal.text
        assert "… 117 more" in terminal.text
        assert not terminal.scrolled
        terminal.resize(160, 50)
        terminal.wait_for(lambda text: max(map(len, text.splitlines())) > 120)
        assert not terminal.scrolled


def test_what_the_operator_should_see_first(redis: Redis) -> None:
    with Terminal("queue", "--watch", "--every", "0.2") as terminal:
        terminal.wait_for("NO WORKERS")
        OrderBook(redis, current_settings()).pause(QUEUE, "the disk is full", "ada@host")
        shown = terminal.wait_for("PAUSED  diarize-queue")
        assert "by ada@host: the disk is full; `resume` ends it" in shown


@pytest.fixture
def other_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], EmbeddedValkey]]:
    """Starts a server that may go away, at the same port each time."""
    port = free_port()
    monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:{port}/0")
    running: list[EmbeddedValkey] = []

    def start() -> EmbeddedValkey:
        running.append(EmbeddedValkey(tmp_path, port=port).__enter__())
        return running[-1]

    yield start
    for server in running:
        server.__exit__(None, None, None)


def test_a_redis_that_goes_away_is_told_of_and_the_view_goes_on(other_server: Callable[[], EmbeddedValkey]) -> None:
    server = other_server()
    with Terminal("queue", "--watch", "--every", "0.2") as terminal:
        terminal.wait_for("NO WORKERS")
        server.__exit__(None, None, None)
        shown = terminal.wait_for("no answer since")
        assert "waiting    nothing" in shown, "what was known before"
        other_server()
        terminal.wait_for(lambda text: "no answer since" not in text)
        terminal.type("\x03")
        assert terminal.wait() == 0


def test_without_redis_at_the_first_look_it_is_an_error_like_any_other() -> None:
    done = run_cli("queue", "--watch", code=3, REDIS_URL="redis://127.0.0.1:1/0")
    assert done.stderr.startswith("error: queue_unavailable: ")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_view_that_is_ended_leaves_the_terminal_as_it_was(fleet: list[str], number: int) -> None:
    with Terminal("queue", "--watch") as terminal:
        terminal.wait_for("DEADLINE")
        terminal.process.send_signal(number)
        assert terminal.wait() == (0 if number == signal.SIGINT else 143)
        assert terminal.written.rindex(NORMAL) > terminal.written.rindex(ALTERNATE)
        assert b"Traceback" not in terminal.written


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_colour_where_none_is_wanted(fleet: list[str], environment: dict[str, str]) -> None:
    with Terminal("queue", columns=120, rows=60, **environment) as terminal:
        assert terminal.wait() == 0
        assert "01-council" in terminal.text or fleet[0] in terminal.text
        assert not terminal.is_coloured
        assert ("━" in terminal.text) == ("NO_COLOR" in environment), "a dumb terminal draws no bars"
        assert ALTERNATE not in terminal.written


def test_on_a_pipe_it_is_one_block_after_another_or_an_object_a_line(fleet: list[str]) -> None:
    for options in ((), ("--json",)):
        with subprocess.Popen(
            [sys.executable, "-m", "tasks", "queue", "--watch", "--every", "0.2", *options],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as watching:
            assert watching.stdout is not None
            lines: list[str] = []
            while sum("BUSY" in line or line.startswith("{") for line in lines) < 3:
                lines.append(watching.stdout.readline())
            watching.send_signal(signal.SIGINT)
            rest, errors = watching.communicate(timeout=20)
            assert (watching.returncode, errors) == (0, "")
        text = "".join(lines) + rest
        assert not {"\x1b", "━", "…"} & set(text)
        if options:
            looks = [json.loads(line) for line in text.splitlines()]
            assert all(earlier["at"] < later["at"] for earlier, later in pairwise(looks))
            assert {job["id"] for job in looks[0]["running"]} == set(fleet)
        else:
            assert all(job in text for job in fleet)


def test_a_job_is_followed_through_its_stages_to_its_end(
    redis: Redis, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    start_worker()
    job = diarize.delay("http://stand.in/wait/go/council.wav?sig=CANARY").id
    with Terminal("status", job, "--watch", "--every", "0.2") as terminal:
        shown = terminal.wait_for(lambda text: "running: segmentation" in text and "clustering" in text)
        rows = {line.split()[0]: line.split()[2:] for line in shown.splitlines() if "━" in line}
        assert list(rows) == ["download", "decode", "segmentation", "embedding", "clustering"]
        assert rows["decode"][0] == "100%"
        assert rows["segmentation"][0] == "0%"
        assert rows["embedding"] == [], "not begun: neither percent nor seconds"
        (tmp_path / "go").touch()
        assert terminal.wait() == 0
        assert "done" in terminal.text, "what stays on the screen is its end"
        assert "CANARY" not in terminal.written.decode()
    done = record(job)
    assert done.state is State.DONE
    assert set(done.stage_seconds) == {"download", "decode", "segmentation", "embedding"}
    assert done.stage_seconds["segmentation"] > 0


def test_a_job_that_fails_is_followed_to_its_error_and_on_a_pipe_each_change_is_a_line(
    redis: Redis, start_worker: Callable[..., Worker]
) -> None:
    start_worker()
    failing = diarize.delay("http://stand.in/fail/permanent").id
    shown = run_cli("status", failing, "--watch", code=1).stdout.splitlines()
    assert shown[-1].endswith(" dead")
    assert len(set(shown)) == len(shown)
    assert "stages     download" in run_cli("status", failing).stdout, "how far it came"
    told = [json.loads(line) for line in run_cli("status", failing, "--watch", "--json", code=1).stdout.splitlines()]
    assert (told[-1]["state"], list(told[-1]["stage_seconds"])) == ("dead", ["download"])
    assert "--watch follows one job" in run_cli("status", failing, failing, "-w", code=2).stderr


def test_a_job_whose_worker_has_died_is_not_said_to_run_as_if_nothing_were(redis: Redis) -> None:
    lives, dead = announce(redis, "celery@gpu0", L4), worker_name("celery@gpu1", 4711)
    runs, stopped = (
        start(redis, url, worker, "embedding", 43.0) for url, worker in zip(recordings(2), (lives, dead), strict=True)
    )
    first, second = run_cli("status", runs, stopped).stdout.split("\n\n")
    assert "its worker is silent" not in first
    assert second.startswith("its worker is silent: any other one takes the job over\n")
    with Terminal("status", stopped, "--watch", "--every", "0.2") as terminal:
        terminal.wait_for("its worker is silent")
        announce(redis, "celery@gpu1", L4)
        terminal.wait_for(lambda text: "its worker is silent" not in text)


def test_each_attempt_begins_its_stages_anew(redis: Redis, start_worker: Callable[..., Worker], tmp_path: Path) -> None:
    start_worker(QUEUE_RETRY_BASE_SECONDS=0.1, STANDIN_DIR=tmp_path)
    job = diarize.delay("http://stand.in/fail/transient/1").id
    wait_until(lambda: record(job).state is State.DONE)
    assert record(job).attempts == 2
    assert set(record(job).stage_seconds) == {"download", "decode", "segmentation", "embedding"}
    assert "stages     segmentation" in run_cli("status", job).stdout


def test_many_jobs_are_waited_for_in_few_lines(redis: Redis, start_worker: Callable[..., Worker]) -> None:
    start_worker(options=("-c", "2"))
    with Terminal("submit", "-", "--wait", "--json", rows=12) as terminal:
        terminal.wait_for("one a line; Ctrl-D ends the list")
        terminal.type("".join(f"http://stand.in/work/60/0.3/{number}\n" for number in range(30)))
        terminal.type("\x04")
        terminal.wait_for(lambda text: "30 jobs" in text and " queued" in text and " running" in text)
        assert sum("━" in line for line in terminal.lines) <= 3, "those that run, and all together"
        assert terminal.wait(60) == 0
        assert terminal.written.count(b'"state": "done"') == 30
        assert "30 done" in terminal.written.decode()
