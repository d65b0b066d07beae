"""DER by pyannote.metrics, and the references it is measured against."""

from __future__ import annotations

from pathlib import Path

import pytest

from diarization.scoring import der, read_rttm, read_uem
from diarization.turns import Turn
from tests.processes import ROOT

RECORDINGS = ROOT / "recordings"


def turn(start: float, end: float, speaker: str) -> Turn:
    return Turn(start=start, end=end, speaker=speaker)


REFERENCE = (turn(0, 10, "ann"), turn(10, 20, "bob"))


def test_the_right_answer_under_other_names_scores_zero() -> None:
    score = der(REFERENCE, (turn(0, 10, "SPEAKER_01"), turn(10, 20, "SPEAKER_00")))

    assert (score.der, score.total, score.collar, score.skip_overlap) == (0.0, 20.0, 0.0, False)


def test_each_kind_of_error_is_counted_in_seconds() -> None:
    answer = (turn(2, 10, "a"), turn(10, 15, "b"), turn(15, 20, "a"), turn(20, 24, "b"))

    score = der(REFERENCE, answer)

    assert (score.missed, score.confusion, score.false_alarm) == (2.0, 5.0, 4.0)
    assert score.der == pytest.approx(11 / 20)


def test_a_collar_forgives_half_of_itself_on_each_side_of_a_boundary() -> None:
    late = (turn(0.5, 10, "a"), turn(10, 20, "b"))

    assert der(REFERENCE, late, collar=1.0).der == 0.0
    assert der(REFERENCE, late, collar=0.8).missed == pytest.approx(0.1)


def test_overlaps_are_scored_for_each_speaker_unless_left_out() -> None:
    both = (turn(0, 10, "ann"), turn(5, 10, "bob"))
    one = (turn(0, 10, "a"),)

    assert der(both, one).missed == 5.0
    assert der(both, one).total == 15.0
    assert der(both, one, skip_overlap=True).der == 0.0


def test_only_what_the_uem_names_is_scored() -> None:
    assert der(REFERENCE, (turn(5, 10, "a"),), uem=[(5, 10)]).der == 0.0
    assert der(REFERENCE, (turn(5, 10, "a"),)).missed == 15.0


@pytest.mark.parametrize(("answer", "expected"), [((), 0.0), ((turn(0, 1, "a"),), 1.0)])
def test_a_reference_without_speech_gives_zero_or_one(answer: tuple[Turn, ...], expected: float) -> None:
    assert der((), answer).der == expected


def test_one_speaker_in_two_places_at_once_is_counted_twice() -> None:
    twice = (turn(0, 10, "ann"), turn(0, 10, "bob"))

    assert der(twice, twice).total == 20.0


def test_the_references_that_come_along_can_be_read() -> None:
    sample = read_rttm(RECORDINGS / "sample" / "sample.rttm")

    assert len(sample) == 10
    assert sample[0] == turn(6.69, 7.12, "speaker90")
    for clip in ("dev00", "trn00", "tst00"):
        turns = read_rttm(RECORDINGS / "ami" / f"{clip}.rttm")
        assert len({turn.speaker for turn in turns}) > 1
        assert read_uem(RECORDINGS / "ami" / f"{clip}.uem") == ((0.0, 30.0),)


def test_an_rttm_of_several_recordings_wants_a_name(tmp_path: Path) -> None:
    path = tmp_path / "two.rttm"
    path.write_text(
        ";; a comment\nSPKR-INFO b 1 <NA> <NA> <NA> unknown ann <NA> <NA>\n\n"
        "SPEAKER b 1 3.0 1.5 <NA> <NA> ann <NA> <NA>\nSPEAKER a 1 2 1 <NA> <NA> bob <NA>\n"
        "SPEAKER b 1 1.0 1.5 <NA> <NA> cat <NA> <NA>\n"
    )

    assert read_rttm(path, "b") == (turn(1.0, 2.5, "cat"), turn(3.0, 4.5, "ann"))
    assert read_rttm(path, "c") == ()
    with pytest.raises(ValueError, match="holds 2 recordings; name one of a, b"):
        read_rttm(path)


@pytest.mark.parametrize(
    "line", ["SPEAKER a 1 x 1 <NA> <NA> ann <NA> <NA>", "SPEAKER a 1 1", "SPEAKER a 1 3 -1 <NA> <NA> ann <NA> <NA>"]
)
def test_a_line_that_cannot_be_read_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "bad.rttm"
    path.write_text(f"SPEAKER a 1 1 1 <NA> <NA> ann <NA> <NA>\n{line}\n")

    with pytest.raises(ValueError, match=r"line 2 of bad\.rttm"):
        read_rttm(path)


def test_a_uem_holds_spans_of_one_or_more_recordings(tmp_path: Path) -> None:
    path = tmp_path / "spans.uem"
    path.write_text(";; a comment\na NA 0 10\nb 1 2.5 3\n")

    assert read_uem(path) == ((0.0, 10.0), (2.5, 3.0))
    assert read_uem(path, "b") == ((2.5, 3.0),)
    path.write_text("a NA zero 10\n")
    with pytest.raises(ValueError, match=r"line 1 of spans\.uem"):
        read_uem(path)
