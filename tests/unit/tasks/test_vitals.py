"""What the health check makes of what a worker has written, and of a file that cannot be written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from tasks.vitals import BROKEN, FILE, LOADING, READY, STOPPING, Vitals, VitalSigns, examine, process_state, read

NOW = 5000.0
WELL = Vitals(
    *("w0@host (7)", "gpu", 7, 1234, 1e9, 90.0, READY),
    turned_at=NOW - 5,
    asked_at=NOW - 5,
    answered_at=NOW - 5,
    answering_since=NOW - 1000,
)


@pytest.mark.parametrize(
    ("vitals", "process", "says"),
    [
        (WELL, None, "gone: "),
        (WELL, "Z", "gone: "),
        (WELL, "T", "frozen: "),
        (replace(WELL, phase=LOADING), "S", "loading: w0@host (7): the model is not loaded yet"),
        (replace(WELL, phase=LOADING, why="its GPU failed"), "S", "loading: w0@host (7): its GPU failed"),
        (replace(WELL, phase=STOPPING), "S", "stopping: w0@host (7): it is about to end"),
        (replace(WELL, phase=BROKEN, why="device_lost: gone"), "S", "broken: w0@host (7): device_lost: gone"),
        (
            replace(WELL, turned_at=NOW - 91),
            "S",
            "hung: w0@host (7): its heartbeat was 91 s ago, at most 90 s are well",
        ),
        (replace(WELL, asked_at=NOW - 91), "S", "stuck: w0@host (7): it has not asked for a job for 91 s"),
    ],
)
def test_what_is_not_well(vitals: Vitals, process: str | None, says: str) -> None:
    well, line = vitals.verdict(NOW, process)
    assert not well
    assert line.startswith(says)


@pytest.mark.parametrize(
    ("vitals", "says"),
    [
        (WELL, "its heartbeat was 5 s ago"),
        (replace(WELL, turned_at=NOW - 90), "its heartbeat was 90 s ago"),
        (replace(WELL, refuses="drained by ann"), "its heartbeat was 5 s ago, it takes no jobs: drained by ann"),
        (
            replace(WELL, asked_at=NOW - 500, answered_at=NOW - 500, answering_since=None),
            "its heartbeat was 5 s ago, Redis has not answered for 500 s, which no restart mends",
        ),
        (replace(WELL, asked_at=NOW - 500, answering_since=NOW - 80), "its heartbeat was 5 s ago"),
        (replace(WELL, answered_at=None, answering_since=None), "its heartbeat was 5 s ago, Redis has never answered"),
    ],
)
def test_what_is_well(vitals: Vitals, says: str) -> None:
    assert vitals.verdict(NOW, "S") == (True, f"ok: w0@host (7): its gate is open, {says}")


def test_the_file_says_what_the_writer_was_told(tmp_path: Path) -> None:
    folder = tmp_path / "7"
    folder.mkdir()
    signs = VitalSigns(folder, "w0@host (7)", "gpu", 90)
    signs.enter(READY)
    signs.turn(asked_at=3.0, refuses="paused")
    (first,) = read(tmp_path)
    assert (first.phase, first.asked_at, first.refuses, first.answered_at) == (READY, 3.0, "paused", None)
    signs.answered()
    signs.turn()
    (second,) = read(tmp_path)
    assert second.answering_since == second.answered_at
    signs.turn()
    (third,) = read(tmp_path)
    assert (third.answering_since, third.answered_at) == (None, second.answered_at), "it was not answered in between"
    signs.enter(STOPPING)
    signs.enter(READY)
    signs.enter(BROKEN, "lost")
    signs.enter(STOPPING)
    (last,) = read(tmp_path)
    assert (last.phase, last.why) == (BROKEN, "lost")


def test_on_a_full_disk_the_file_is_written_over(tmp_path: Path) -> None:
    folder = tmp_path / "7"
    folder.mkdir()
    signs = VitalSigns(folder, "w0@host (7)", "gpu", 90)
    signs.turn()
    (folder / f"{FILE}.part").mkdir()  # no new file can be made
    signs.turn(refuses="paused")
    (vitals,) = read(tmp_path)
    assert vitals.refuses == "paused"


def test_what_is_no_workers_file_is_passed_over(tmp_path: Path) -> None:
    for name, text in (("1", "{}"), ("2", "not json"), ("3", json.dumps({**asdict(WELL), "newer": 1}))):
        (tmp_path / name).mkdir()
        (tmp_path / name / FILE).write_text(text)
    assert list(read(tmp_path)) == [WELL]


def test_a_process_is_known_by_when_it_began() -> None:
    found = process_state(os.getpid())
    assert found is not None
    mine = replace(WELL, pid=os.getpid(), born=found[1], phase=LOADING)
    assert examine(mine)[1].startswith("loading: ")
    assert examine(replace(mine, born=found[1] + 1))[1].startswith("gone: "), "another process has its pid by now"
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    assert process_state(int(gone.stdout)) is None
