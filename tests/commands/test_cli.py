"""The command line as a person or a script uses it: processes of its own, a real server, a real worker."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tasks.diarize import diarize
from tasks.record import State
from tests.processes import ROOT, Worker, wait_until
from tests.processes import run_cli as cli
from tests.terminal import Terminal

SECRETS = ("s1gnature", "pa55word", "t0ken")
UNKNOWN = "00000000-0000-0000-0000-000000000000"


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a file ends the job that waits for it."""
    return tmp_path_factory.mktemp("flags")


@pytest.fixture(scope="module", autouse=True)
def worker(module_redis: Redis, start_module_worker: Callable[..., Worker], flags: Path) -> Worker:
    return start_module_worker(STANDIN_DIR=flags, QUEUE_MAX_ATTEMPTS=2, QUEUE_RETRY_BASE_SECONDS=0.1)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tasks", *arguments]


Here = Callable[..., subprocess.CompletedProcess[str]]


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def complaint(done: subprocess.CompletedProcess[str]) -> str:
    """The one line on stderr."""
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


def is_running(job_id: str) -> bool:
    record = diarize.records.get(job_id)
    return bool(record and record.state is State.RUNNING and record.stage == "segmentation")


@contextmanager
def busy_worker(flags: Path, name: str) -> Iterator[str]:
    """A job that keeps the worker until the block ends."""
    job = diarize.delay(f"http://stand.in/wait/{name}")
    wait_until(lambda: is_running(job.id), what="the worker is busy")
    try:
        yield job.id
    finally:
        (flags / name).touch()


def test_a_job_from_submit_to_result(here: Here) -> None:
    url = "http://someone:pa55word@stand.in/turns/20/3/council.wav?sig=s1gnature"
    submitted = cli("submit", url, "--num-speakers", "3", "--header", "Authorization: Bearer t0ken")
    (job_id,) = submitted.stdout.split()
    diarize.AsyncResult(job_id).get(timeout=20)

    status = cli("status", job_id)
    assert re.search(rf"job +{job_id}\n", status.stdout)
    assert re.search(r"state +done\n", status.stdout)
    assert re.search(r"options +num_speakers=3\n", status.stdout)
    (view,) = objects(here("status", job_id, "--json").stdout)
    assert (view["id"], view["state"], view["attempts"]) == (job_id, "done", 1)
    assert view["recording"] == "http://stand.in/turns/20/3/council.wav"
    assert view["submitted_at"] <= view["started_at"] <= view["ended_at"]

    document = json.loads(cli("result", job_id).stdout)
    assert len(document["speakers"]) == 3
    rttm = here("result", job_id, "--format", "rttm").stdout
    assert rttm.startswith("SPEAKER council 1 ")
    assert job_id in here("list", "--state", "done", "--limit", "1").stdout
    everything = "".join([submitted.stdout, submitted.stderr, status.stdout, json.dumps(view), rttm])
    assert not [secret for secret in SECRETS if secret in everything]


def test_wait_on_a_pipe_gives_the_document_and_a_line_for_each_state() -> None:
    done = cli("submit", "http://stand.in/fail/transient/1/w.wav?sig=s1gnature", "--wait")
    assert json.loads(done.stdout)["provenance"]["attempts"] == 2
    states = [line.split()[2] for line in done.stderr.splitlines()]
    assert states[-1] == "done"
    assert set(states[:-1]) & {"queued", "running", "due"} == set(states[:-1]) != set(), "each state that was seen"
    assert "\x1b" not in done.stderr + done.stdout
    assert "s1gnature" not in done.stderr + done.stdout


def test_several_jobs_are_lines_for_programs_and_one_failure_is_the_exit_code(here: Here) -> None:
    urls = "http://stand.in/turns/5/1\n\nhttp://stand.in/fail/permanent/several?sig=s1gnature\n"
    done = cli("submit", "-", "--wait", "--json", given=urls, code=1)
    good, bad = objects(done.stdout)
    assert (good["state"], len(good["result"]["speakers"])) == ("done", 1)
    assert (bad["state"], bad["result"], bad["error"]["code"]) == ("dead", None, "recording_undecodable")
    error = done.stderr.splitlines()[-1]
    assert error.startswith(f"error: recording_undecodable: job {bad['id']}: attempt 1 was told to fail. Check that")
    again = here("result", bad["id"], code=1)
    assert complaint(again) == error
    assert "s1gnature" not in done.stdout + done.stderr


def priorities(ids: list[str]) -> set[int | None]:
    """As the tickets have them; None is the default, 6."""
    return {record.ticket["options"].get("priority") for record in diarize.records.get_many(ids) if record}


def test_a_list_is_a_batch_which_holds_nobody_up(flags: Path) -> None:
    with busy_worker(flags, "batch"):
        urls = "# of Monday\n\n" + "".join(f"http://stand.in/turns/5/1/{number}\n" for number in range(1000))
        batch = cli("submit", "-", given=urls).stdout.split()
        assert len(set(batch)) == 1000
        alone = cli("submit", "http://stand.in/turns/5/1/alone").stdout.split()
        several = cli("submit", "http://stand.in/turns/5/1/a", "http://stand.in/turns/5/1/b").stdout.split()
        urgent = cli("submit", "-", "--priority", "0", given="http://stand.in/turns/5/1/urgent").stdout.split()
        assert [priorities(ids) for ids in (batch, alone, several, urgent)] == [{9}, {None}, {9}, {0}]
        places = [diarize.position(ids[0]).place for ids in (urgent, alone, batch)]
        assert places == [1, 2, 3]
        cli("cancel", *batch)


def test_a_line_that_cannot_be_is_named_and_nothing_is_submitted(here: Here) -> None:
    before = len(diarize.records.newest(limit=10_000))
    urls = "http://stand.in/turns/5/1\n# a comment\n\nftp://h/a?sig=s1gnature\nhttp://stand.in/turns/5/1\n"
    done = cli("submit", "-", given=urls, code=2)
    assert complaint(done).startswith("error: url_not_allowed: line 4: scheme 'ftp' is not one of ")
    assert "nothing was submitted" in done.stderr
    assert "s1gnature" not in done.stderr
    assert len(diarize.records.newest(limit=10_000)) == before


def test_a_file_in_the_shared_folder_is_read_by_workers(tmp_path: Path) -> None:
    (tmp_path / "turns").mkdir()
    recording = tmp_path / "turns" / "a b.wav"
    recording.touch()
    (job_id,) = cli("submit", str(recording), DIARIZATION_RECORDINGS_DIR=str(tmp_path)).stdout.split()
    record = diarize.records.get(job_id)
    assert record is not None
    assert record.shown == f"file://{tmp_path}/turns/a%20b.wav"
    assert "set DIARIZATION_RECORDINGS_DIR" in complaint(cli("submit", str(recording), code=2))
    elsewhere = cli("submit", str(recording), code=2, DIARIZATION_RECORDINGS_DIR=str(tmp_path / "other"))
    assert f"lies outside {tmp_path / 'other'}" in complaint(elsewhere)


def test_results_go_into_a_folder(tmp_path: Path, here: Here) -> None:
    urls = ["http://stand.in/turns/5/1/a.wav", "http://stand.in/turns/5/2/b.wav"]
    done = here("submit", *urls, "--wait", "--format", "csv", "-o", str(tmp_path / "out"))
    files = [Path(line) for line in done.stdout.splitlines()]
    assert sorted(files) == sorted((tmp_path / "out").iterdir())
    assert all(file.suffix == ".csv" and file.read_text().startswith("start,end,speaker") for file in files)


def test_the_timeline_is_drawn_where_it_is_asked_for(tmp_path: Path, here: Here) -> None:
    job = diarize.delay("http://stand.in/turns/20/3/council.wav")
    job.get(timeout=20)
    svg, png = tmp_path / "x.svg", tmp_path / "x.PNG"
    assert here("result", job.id, "--picture", str(svg)).stdout == f"{svg}\n"
    assert "SPEAKER_02" in svg.read_text()
    assert "council" in svg.read_text()
    printed = here("result", job.id, "--picture", str(png), "-f", "rttm").stdout
    assert printed.startswith(f"{png}\nSPEAKER council 1 ")
    assert png.read_bytes().startswith(b"\x89PNG")
    missing = here("result", job.id, "--picture", str(tmp_path / "no" / "x.svg"), code=1)
    assert "cannot be written: No such file or directory" in complaint(missing)
    assert "x.gif is neither" in complaint(here("result", job.id, "--picture", "x.gif", code=2))
    dead = diarize.delay("http://stand.in/fail/permanent/picture")
    dead.get(timeout=20, propagate=False)
    assert "told to fail" in complaint(here("result", dead.id, "--picture", str(tmp_path / "dead.svg"), code=1))
    assert not (tmp_path / "dead.svg").exists()


def test_without_pillow_it_says_what_to_install(tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    job = diarize.delay("http://stand.in/turns/20/3/council.wav")
    job.get(timeout=20)
    monkeypatch.setitem(sys.modules, "PIL", None)
    line = complaint(here("result", job.id, "--picture", str(tmp_path / "x.png"), code=1))
    assert "pip install diarize-queue[png]" in line
    assert "or draw an .svg" in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["submit"], "error: usage: Missing argument"),
        (["submit", "-"], "error: invalid_job: there is no URL on standard input"),
        (["submit", "http://h/a", "--num-speakers", "x"], "error: usage: Invalid value for '--num-speakers'"),
        (["sumbit", "http://h/a"], "error: usage: No such command 'sumbit'"),
        (["submit", "ftp://h/a?sig=s1gnature"], "error: url_not_allowed: scheme 'ftp' is not one of http"),
        (
            ["submit", "http://h/a", "http:///b?sig=s1gnature"],
            "error: url_not_allowed: recording 2 of 2: the URL names no host",
        ),
        (["submit", "http://h/a", "--num-speakers", "0"], "error: invalid_job: num_speakers:"),
        (["submit", "http://h/a", "--header", "Bearer t0ken"], "error: invalid_job: --header takes 'Name: value'"),
        (["submit", "http://h/a", "--header", "A b: t0ken"], "error: invalid_job: the name of one of the headers"),
        (["submit", "http://h/a", "-f", "rttm"], "error: invalid_job: --timeout, --format and -o go with --wait"),
        (["submit", "http://h/a", "-w", "-f", "mp3"], "is not one of json, rttm, srt, vtt, csv, labels, table"),
        (["submit", "http://h/a", "http://h/b", "-w", "-f", "srt"], "cannot share one stream: give -o DIR, or --json"),
        (["submit", "http://h/a", "http://h/b", "--task-id", "x"], "--task-id names one job"),
        (["list", "--state", "asleep"], "error: usage: Invalid value for '--state'"),
    ],
)
def test_wrong_usage_is_one_line_and_submits_nothing(arguments: list[str], words: str, here: Here) -> None:
    before = len(diarize.records.newest(limit=1000))
    line = complaint(here(*arguments, code=2))
    assert words in line
    assert not [secret for secret in SECRETS if secret in line]
    assert len(diarize.records.newest(limit=1000)) == before


@pytest.mark.parametrize("arguments", [["list"], ["submit", "http://h/a?sig=s1gnature"]])
def test_without_redis_it_says_so_and_exits_with_3(arguments: list[str]) -> None:
    line = complaint(cli(*arguments, code=3, REDIS_URL="redis://:pa55word@127.0.0.1:1/0"))
    assert line.startswith("error: queue_unavailable: ")
    assert not [secret for secret in SECRETS if secret in line]


def test_a_setting_that_cannot_be_used_is_named() -> None:
    assert "error: settings: DIARIZATION_MODLE is not a setting" in complaint(
        cli("list", code=2, DIARIZATION_MODLE="x")
    )
    assert "REDIS_URL: must begin with redis://" in complaint(cli("list", code=2, REDIS_URL="http://:pa55word@h"))


@pytest.mark.parametrize("name", ["status", "result", "cancel"])
def test_a_job_that_nobody_knows(name: str, here: Here) -> None:
    assert complaint(here(name, UNKNOWN, code=1)).startswith(f"error: unknown_job: there is no job {UNKNOWN}. ")


def test_cancel_says_what_became_of_each_job(flags: Path, here: Here) -> None:
    ended = diarize.delay("http://stand.in/turns/5/1/ended")
    ended.get(timeout=20)
    with busy_worker(flags, "cancel") as running:
        waiting = diarize.delay("http://stand.in/turns/5/1/waiting")
        lines = here("cancel", waiting.id, running, ended.id).stdout.splitlines()
        assert lines == [
            f"{waiting.id} was waiting: will not start",
            f"{running} runs: asked to stop",
            f"{ended.id} had ended already: done",
        ]
        wait_until(lambda: not is_running(running), what="the running job heard of it")
    states = {view["id"]: view["state"] for view in objects(here("list", "--json").stdout)}
    assert (states[waiting.id], states[running], states[ended.id]) == ("cancelled", "cancelled", "done")
    assert objects(here("cancel", waiting.id, "--json").stdout) == [{"id": waiting.id, "state_before": "cancelled"}]


def test_a_wait_that_takes_too_long_fails_and_the_job_goes_on(flags: Path, here: Here) -> None:
    with busy_worker(flags, "timeout") as running:
        url = "http://stand.in/turns/5/1/late"
        done = here("submit", url, "--wait", "--timeout", "0.3", "--task-id", "late-1", code=1)
        assert done.stdout == ""
        assert done.stderr.splitlines()[-1] == "error: not_ended: job late-1 goes on (queued). Ask again later."
        assert "goes on (running: segmentation" in complaint(here("result", running, code=1))
    # The same id joins the job that stands, and does not run it twice.
    document = json.loads(here("submit", url, "--wait", "--task-id", "late-1").stdout)
    assert document["provenance"]["attempts"] == 1


def test_ctrl_c_ends_the_wait_and_not_the_job(flags: Path) -> None:
    waiting = subprocess.Popen(
        command("submit", "http://stand.in/wait/ctrl-c", "--wait", "--task-id", "ctrl-c"),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: is_running("ctrl-c"), what="the job runs")
    waiting.send_signal(signal.SIGINT)
    out, err = waiting.communicate(timeout=20)
    assert (waiting.returncode, out) == (130, "")
    assert err.splitlines()[-1] == "interrupted: the jobs go on; end them with: diarize-queue cancel ctrl-c"
    (flags / "ctrl-c").touch()
    assert diarize.AsyncResult("ctrl-c").get(timeout=20)["segments"]


def test_on_a_terminal_there_is_a_bar_and_the_result_stays_clean() -> None:
    screen, terminal = pty.openpty()
    submit = subprocess.Popen(
        command("submit", "http://stand.in/sleep/1.5/pty.wav?sig=s1gnature", "--wait", "-f", "rttm"),
        cwd=ROOT,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "80"},
        stdout=subprocess.PIPE,
        stderr=terminal,
    )
    os.close(terminal)
    shown = _read_all(screen)
    out, _ = submit.communicate(timeout=20)
    assert submit.returncode == 0
    assert out.decode().startswith("SPEAKER pty 1 ")
    assert "━" in shown
    assert re.search(r"running: segmentation \d+ %", shown)
    assert "s1gnature" not in shown


def test_a_person_at_a_terminal_sees_a_table() -> None:
    job = diarize.delay("http://stand.in/turns/60/3/table.wav")
    job.get(timeout=20)
    for environment in ({}, {"NO_COLOR": "1"}, {"TERM": "dumb"}):
        with Terminal("result", job.id, rows=60, **environment) as terminal:
            assert terminal.wait() == 0
            assert re.search(r"START +END +SPEAKER", terminal.text)
            assert ("█" in terminal.text) == ("TERM" not in environment), "a strip for each speaker"
            assert terminal.is_coloured == (not environment)
            assert all(len(line) <= 80 for line in terminal.lines)


def test_a_full_disk_is_said_and_a_reader_that_has_had_enough_is_not() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command("list", "--json"), cwd=ROOT, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    assert done.stderr == b"error: output: standard output cannot be written: No space left on device.\n"
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command("list", "--json"), cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


def test_help_costs_no_model_and_no_celery(python: Callable[..., str]) -> None:
    code = """
import sys
import tasks.__main__
print([name for name in ("celery", "torch", "numpy", "pyannote") if name in sys.modules])
"""
    assert python(code) == "[]\n"
    shown = cli("--help").stdout
    assert not [name for name in ("submit", "status", "result", "list", "cancel", "demo") if name not in shown]


def _read_all(screen: int) -> str:
    """All that is written to a terminal until its last writer has gone."""
    shown = b""
    while True:
        try:
            part = os.read(screen, 65536)
        except OSError:  # Linux says so when the other end is closed
            part = b""
        if not part:
            os.close(screen)
            return shown.decode()
        shown += part
