"""Results go where they were asked to, and what cannot go together is refused before anything is done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from diarization.errors import InvalidJob
from diarization.turns import Diarization, Turn
from tasks.commands.output import Output, OutputError
from tasks.record import JobRecord, State

ANSWER = Diarization(segments=(Turn(start=0, end=1.5, speaker="SPEAKER_00"),), audio_seconds=2).to_json()
DONE = JobRecord("id-1", State.DONE, shown="https://h/meeting.mp3", result=ANSWER)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"format_name": "mp3"}, "format 'mp3' is not one of json, rttm, srt, vtt, csv, labels, table"),
        ({"format_name": "csv", "json_lines": True}, "leave --format and -o out"),
        ({"file": Path("x"), "json_lines": True}, "leave --format and -o out"),
        ({"format_name": "table", "file": Path("x")}, "the format table is for the screen"),
        ({"format_name": "srt", "jobs": 2}, "2 results in srt cannot share one stream"),
    ],
)
def test_what_does_not_go_together_is_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidJob, match=complaint):
        Output.choose(**{"format_name": None, "json_lines": False, **options})


def test_one_result_on_a_pipe_is_the_json_document(capsys: pytest.CaptureFixture[str]) -> None:
    Output.choose(None, json_lines=False).write(DONE)
    assert json.loads(capsys.readouterr().out) == ANSWER


def test_several_results_on_a_pipe_stand_on_lines_that_name_their_jobs(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output.choose(None, json_lines=False, jobs=2)
    output.write(DONE)
    output.write(JobRecord("id-2", State.DEAD, error={"code": "x", "message": "y", "advice": "z"}))
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["id"] for line in lines] == ["id-1", "id-2"]
    assert lines[0]["result"] == ANSWER
    assert lines[1]["error"]["code"] == "x"


def test_what_has_no_result_is_a_line_on_stderr_and_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    dead = JobRecord("id-2", State.DEAD, error={"code": "x", "message": "y\n", "advice": "Z."})
    output = Output.choose("rttm", json_lines=False)
    assert not output.deliver([DONE, dead, JobRecord("id-3", State.RUNNING, stage="decode", percent=7)])
    out, err = capsys.readouterr()
    assert out.startswith("SPEAKER meeting")
    assert err.splitlines() == [
        "error: x: job id-2: y. Z.",
        "error: not_ended: job id-3 goes on (running: decode 7 %). Ask again later.",
    ]
    assert output.deliver([DONE])


def test_a_folder_is_made_and_each_result_has_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "a" / "b"
    Output.choose("rttm", json_lines=False, jobs=3, folder=folder).write(DONE)
    assert (folder / "id-1.rttm").read_text().startswith("SPEAKER meeting 1 0.000 1.500 ")
    assert capsys.readouterr().out == f"{folder / 'id-1.rttm'}\n"


def test_a_file_keeps_the_line_ends_of_its_format(tmp_path: Path) -> None:
    Output.choose("csv", json_lines=False, file=tmp_path / "x.csv").write(DONE)
    assert (tmp_path / "x.csv").read_bytes() == b"start,end,speaker\r\n0.000,1.500,SPEAKER_00\r\n"


def test_what_cannot_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be made"):
        Output.choose(None, json_lines=False, folder=tmp_path / "file" / "below")
    output = Output.choose(None, json_lines=False, file=tmp_path / "nowhere" / "x.json")
    with pytest.raises(OutputError, match="cannot be written: No such file or directory"):
        output.write(DONE)


def test_the_table_names_the_recording_and_its_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    answer = {**ANSWER, "warnings": ["the file ends early"]}
    Output.choose("table", json_lines=False).write(JobRecord("id-1", State.DONE, shown="https://h/m", result=answer))
    shown = capsys.readouterr().out
    assert "https://h/m (id-1)" in shown
    assert "SPEAKER_00" in shown
    assert "warning: the file ends early" in shown
