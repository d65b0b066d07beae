"""The strips of a result at a terminal: who speaks when, at a glance."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from diarization.turns import Diarization, Turn, total_seconds
from tasks.commands.strips import shares, strips


def turn(start: float, end: float, speaker: str = "A") -> Turn:
    return Turn(start=start, end=end, speaker=speaker)


def rendered(diarization: Diarization, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, markup=False)
    console.print(strips(diarization, width))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_each_slice_says_how_much_of_it_is_talk() -> None:
    assert shares([turn(0, 5), turn(12.5, 20)], 40, 4) == [0.5, 0.75, 0, 0]
    assert shares([turn(0, 40)], 40, 4) == [1, 1, 1, 1]
    assert shares([], 40, 4) == [0, 0, 0, 0]
    assert shares([turn(39.99, 40)], 40, 4)[3] == 1 / 8, "what is short is seen all the same"


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_strip_for_each_speaker_fits_the_screen(width: int) -> None:
    turns = (turn(0, 30, "A"), turn(30, 60, "\x1b[31mB" + "b" * 50))
    lines = rendered(Diarization(segments=turns, speakers=total_seconds(turns), audio_seconds=60), width)
    assert len(lines) == 3
    assert all(len(line) <= width for line in lines)
    assert "\x1b" not in "".join(lines)
    first, second = (next(line for line in lines if line.lstrip().startswith(name)) for name in ("A", "[31mB"))
    assert first.index("█") < second.index("█")
    assert "50%" in first
    assert lines[-1].split() == ["0", "1:00", "min"]


def test_a_recording_without_length_is_no_error() -> None:
    turns = (turn(0, 0),)
    assert rendered(Diarization(segments=turns, speakers=total_seconds(turns), audio_seconds=0), 80)
