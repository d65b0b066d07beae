"""What the command line shows: no markup, no control characters, nothing wider than the screen."""

from __future__ import annotations

import io
import json
import time
from datetime import datetime
from typing import Any

import pytest
from rich.console import Console, RenderableType

from diarization.turns import Diarization, Speaker, Turn
from tasks.commands.console import (
    as_json,
    clock,
    describe_state,
    duration,
    error_text,
    job_details,
    jobs_table,
    json_line,
    local_time,
    printable,
    recording_name,
    speakers_table,
    turns_table,
)
from tasks.commands.waiting import JobsDisplay
from tasks.record import JobRecord, State

JOB_ID = "4f3c2a9e-5b1d-4c56-9a57-0d4f5e6a7b8c"
LONG_URL = "https://recordings.example.org/archive/2026/11/23/council/chamber/meeting-of-the-town-council.mp3"


def job(state: State = State.QUEUED, **facts: Any) -> JobRecord:
    return JobRecord(JOB_ID, state, **{"shown": LONG_URL, "submitted_at": time.time(), **facts})


def rendered(*renderables: RenderableType, width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width, markup=False, emoji=False, highlight=False)
    console.print(*renderables)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.00 s"),
        (8.254, "8.25 s"),
        (9.996, "10.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1:00 min"),
        (83, "1:23 min"),
        (3599.7, "1:00:00 h"),
        (7509, "2:05:09 h"),
    ],
)
def test_durations_read_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00.00"), (62.345, "1:02.34"), (59.999, "1:00.00"), (3723.4, "1:02:03.40")]
)
def test_places_in_a_recording(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_times_are_local_and_name_the_day_only_where_it_is_not_today() -> None:
    moment = datetime(2026, 11, 23, 14, 3, 22).astimezone()
    assert local_time(moment.timestamp(), now=moment) == "14:03:22"
    assert local_time(moment.timestamp(), now=datetime(2026, 11, 24, 1)) == "23 Nov 14:03"


def test_what_a_terminal_would_obey_is_not_printed() -> None:
    hostile = "a\x1b[31mred\x07\r\n\x9b2J\u202eb\u2028c"
    assert printable(hostile) == "a [31mred    2J b c"
    assert error_text({"code": "x", "message": "one\ntwo.", "advice": "Three."}) == "x: one two. Three."
    for renderable in (job_details(job(shown=hostile)), jobs_table([job(shown=hostile)], 80)):
        assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set("".join(rendered(renderable)))


def test_brackets_are_no_markup() -> None:
    assert "[bold]x[/bold]" in "".join(rendered(job_details(job(shown="https://h/[bold]x[/bold]"))))


@pytest.mark.parametrize("width", [80, 120])
def test_a_list_of_jobs_fits_the_screen_and_shows_whole_ids_and_the_end_of_a_url(width: int) -> None:
    running = job(State.RUNNING, stage="segmentation", percent=100.0, started_at=time.time())
    lines = rendered(jobs_table([job(), running], width), width=width)
    assert len(lines) == 3, "one line a job, and the head"
    assert all(len(line) <= width for line in lines)
    assert all(line.startswith(JOB_ID) and line.rstrip().endswith("uncil.mp3") for line in lines[1:])
    assert "  segmentation 100 %  " in lines[2]


def test_the_details_of_a_job_are_a_fact_a_line_and_lose_nothing() -> None:
    error = {"code": "recording_not_found", "message": "HTTP 404", "advice": "Check the URL."}
    dead = job(State.DEAD, error=error, attempts=2, options={"num_speakers": 3}, ended_at=time.time())
    facts = dict(line.split(maxsplit=1) for line in job_details(dead).plain.splitlines())
    assert (facts["job"], facts["state"], facts["recording"]) == (JOB_ID, "dead", LONG_URL)
    assert facts["options"] == "num_speakers=3"
    assert facts["error"] == "recording_not_found: HTTP 404. Check the URL."
    assert "worker" not in facts, "what is not known has no line"


def test_words_for_states() -> None:
    assert describe_state(job()) == "queued"
    assert describe_state(job(State.RUNNING)) == "running"
    assert describe_state(job(State.RUNNING, stage="embedding", percent=41.7)) == "running: embedding 42 %"
    assert describe_state(job(State.DUE, due_at=time.time())).startswith("due at ")


def test_a_job_for_programs_has_the_same_keys_in_every_state_and_no_secret() -> None:
    secret = {"url": "https://u:p@h/a?sig=s", "headers": {"A": "b"}}
    jobs = [as_json(job(state, request=secret, ticket={"options": {"link": "s"}})) for state in State]
    assert len({tuple(view) for view in jobs}) == 1
    for view in jobs:
        assert not {"request", "ticket", "token", "result"} & set(view)
        assert json.loads(json_line(view)) == view
        assert "\n" not in json_line(view)
    assert as_json(job(State.DONE, result={"segments": []}), with_result=True)["result"] == {"segments": []}


@pytest.mark.parametrize(
    ("shown", "name"),
    [
        ("https://h/a/meeting%20one.tar.mp3", "meeting one.tar"),
        ("https://h/", "recording"),
        ("", "recording"),
        ("file:///r/x.wav", "x"),
    ],
)
def test_a_recording_is_named_by_its_file(shown: str, name: str) -> None:
    assert recording_name(shown) == name


def test_turns_and_speakers_are_tables() -> None:
    answer = Diarization(
        segments=(Turn(start=0.5, end=62.25, speaker="SPEAKER_00"), Turn(start=60, end=70, speaker="[red]\x1b")),
        speakers=(Speaker(speaker="SPEAKER_00", total_seconds=61.75),),
        audio_seconds=80,
    )
    assert [line.split() for line in rendered(turns_table(answer))] == [
        ["START", "END", "SPEAKER"],
        ["0:00.50", "1:02.25", "SPEAKER_00"],
        ["1:00.00", "1:10.00", "[red]"],
    ]
    assert rendered(speakers_table(answer))[1].split() == ["SPEAKER_00", "1:02", "min", "77%"]


def test_on_a_pipe_each_change_of_a_state_is_one_line() -> None:
    console = Console(file=io.StringIO(), width=100_000, markup=False)
    error = {"code": "recording_fetch_failed", "message": "the server broke off", "advice": ""}
    story = [
        job(),
        job(),
        job(State.RUNNING, attempts=1, stage="download", percent=1.0),
        job(State.RUNNING, attempts=1, stage="embedding", percent=50.0),
        job(State.DUE, attempts=1, due_at=time.time(), last_error=error),
        job(State.RUNNING, attempts=2),
        job(State.DONE, attempts=2),
    ]
    with JobsDisplay(console) as display:
        for record in story:
            display.show([record])
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert [line.split()[2] for line in lines] == ["queued", "running", "due", "running", "done"]
    assert all(line.split()[1] == JOB_ID for line in lines)
    assert "recording_fetch_failed: the server broke off" in lines[2]
    assert "(attempt 2)" in lines[3]
