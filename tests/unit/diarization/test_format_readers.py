"""Each format for other programs is read by a parser that these programs' users use. RTTM: `test_formats.py`."""

from __future__ import annotations

import csv
import io
import re
from datetime import timedelta

import pytest
import srt
import webvtt

from diarization.formats import FORMATS
from diarization.turns import Diarization, Turn

SPEAKERS = ("SPEAKER_00", "José <chair> & Co.", "a --> b", "tab\there", "两人", "{i}x{/i}")
TURNS = tuple(
    Turn(start=place * 3599.5, end=place * 3599.5 + 2.125, speaker=speaker) for place, speaker in enumerate(SPEAKERS)
)
ANSWER = Diarization(segments=(*TURNS, Turn(start=1.0, end=1.5, speaker="talks over")), audio_seconds=6 * 3600.0)
EXPECTED = sorted((turn.start, turn.end) for turn in ANSWER.segments)
SILENCE = Diarization(segments=(), audio_seconds=10)


def written(key: str, diarization: Diarization = ANSWER) -> str:
    return FORMATS[key].write(diarization, "council")


def test_srt_by_the_package_srt() -> None:
    cues = list(srt.parse(written("srt"), ignore_errors=False))
    assert [(cue.start.total_seconds(), cue.end.total_seconds()) for cue in cues] == EXPECTED
    assert [cue.index for cue in cues] == list(range(1, len(EXPECTED) + 1))
    assert [cue.content for cue in cues[2:4]] == ["[José <chair> & Co.]", "[a → b]"]
    assert cues[0].end - cues[0].start == timedelta(seconds=2, milliseconds=125)
    assert list(srt.parse(written("srt", SILENCE), ignore_errors=False)) == []


def test_vtt_by_the_package_webvtt() -> None:
    cues = list(webvtt.from_string(written("vtt")))
    assert [(cue.start_in_seconds, cue.end_in_seconds) for cue in cues] == [
        (int(start), int(end)) for start, end in EXPECTED
    ]
    assert [cue.start for cue in cues[:3]] == ["00:00:00.000", "00:00:01.000", "00:59:59.500"]
    assert cues[0].voice == "SPEAKER_00"
    assert cues[0].text == "[SPEAKER_00]"
    assert list(webvtt.from_string(written("vtt", SILENCE))) == []


def test_csv_by_pythons_own_reader() -> None:
    rows = list(csv.DictReader(io.StringIO(written("csv"))))
    assert sorted((float(row["start"]), float(row["end"])) for row in rows) == EXPECTED
    assert {row["speaker"] for row in rows} >= {"José <chair> & Co.", "tab\there"}


@pytest.mark.parametrize("diarization", [ANSWER, SILENCE])
def test_labels_by_the_rules_of_audacitys_manual(diarization: Diarization) -> None:
    # "Importing and Exporting Labels": start, a tab, end, a tab, the label; seconds with a point; a line a label.
    # A line that begins with a backslash would be the frequencies of the one before.
    lines = written("labels", diarization).splitlines()
    read = [re.fullmatch(r"(\d+\.\d+)\t(\d+\.\d+)\t([^\t\r\n]*)", line) for line in lines]
    assert all(read)
    assert [(float(one[1]), float(one[2])) for one in read if one] == sorted(
        (turn.start, turn.end) for turn in diarization.segments
    )
