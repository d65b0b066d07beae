"""Each format is read back by a small reader of its own, and once by the program it is for."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diarization.errors import InvalidJob
from diarization.formats import FORMATS, find_format
from diarization.turns import Diarization, Provenance, Turn, total_seconds

GOLDEN = Path(__file__).parent / "golden"

# Written back as what a reader finds: start and end in milliseconds, speaker.
Cue = tuple[int, int, str]


def diarization_of(*turns: tuple[float, float, str], audio_seconds: float = 0.0) -> Diarization:
    segments = tuple(Turn(start=start, end=end, speaker=speaker) for start, end, speaker in turns)
    return Diarization(segments=segments, speakers=total_seconds(segments), audio_seconds=audio_seconds)


COUNCIL = Diarization(
    segments=(
        Turn(start=0.03096875, end=6.71534375, speaker="SPEAKER_00"),
        Turn(start=5.2, end=8.04, speaker="SPEAKER_01"),
        Turn(start=8.04, end=8.0401, speaker="SPEAKER_00"),
        Turn(start=3599.9996, end=3725.5, speaker="SPEAKER_00"),
        Turn(start=360_000.001, end=360_061.25, speaker="José <chair> & Co."),
    ),
    exclusive_segments=(Turn(start=0.03096875, end=5.2, speaker="SPEAKER_00"),),
    audio_seconds=360_061.5,
    warnings=("the file breaks off after 100:01:01",),
    provenance=Provenance(model="models", device="cpu", versions={"pyannote.audio": "4.0.7"}),
)


def milliseconds(seconds: str) -> int:
    whole, decimals = re.fullmatch(r"(\d+)\.(\d{3})", seconds).groups()  # type: ignore[union-attr]
    return int(whole) * 1000 + int(decimals)


def clock_milliseconds(clock: str, mark: str) -> int:
    hours, minutes, seconds, decimals = re.fullmatch(rf"(\d\d+):([0-5]\d):([0-5]\d){mark}(\d{{3}})", clock).groups()  # type: ignore[union-attr]
    return ((int(hours) * 60 + int(minutes)) * 60 + int(seconds)) * 1000 + int(decimals)


def read_rttm(text: str) -> list[Cue]:
    cues = []
    for line in text.splitlines():
        kind, _, channel, start, duration, *nothing, speaker, _, _ = line.split()
        assert (kind, channel, nothing) == ("SPEAKER", "1", ["<NA>", "<NA>"])
        name = "" if speaker == "<NA>" else unquote(speaker)
        cues.append((milliseconds(start), milliseconds(start) + milliseconds(duration), name))
    return cues


def read_csv(text: str) -> list[Cue]:
    header, *rows = csv.reader(io.StringIO(text, newline=""))
    assert header == ["start", "end", "speaker"]
    return [(milliseconds(start), milliseconds(end), speaker) for start, end, speaker in rows]


def read_labels(text: str) -> list[Cue]:
    rows = [line.split("\t") for line in text.split("\n")[:-1]]
    return [(milliseconds(start), milliseconds(end), label) for start, end, label in rows]


def read_cues(blocks: list[str], mark: str) -> list[Cue]:
    cues = []
    for block in blocks:
        times, text = block.split("\n")
        start, end = times.split(" --> ")
        cues.append((clock_milliseconds(start, mark), clock_milliseconds(end, mark), text))
    return cues


def read_srt(text: str) -> list[Cue]:
    blocks = text.removesuffix("\n").split("\n\n") if text else []
    numbers = [block.split("\n", 1)[0] for block in blocks]
    assert numbers == [str(number) for number in range(1, len(blocks) + 1)]
    cues = read_cues([block.split("\n", 1)[1] for block in blocks], ",")
    assert not any("-->" in line for _, _, line in cues)
    return [(start, end, line[1:-1]) for start, end, line in cues]


def read_vtt(text: str) -> list[Cue]:
    header, *blocks = text.removesuffix("\n").split("\n\n")
    assert header == "WEBVTT"
    cues = []
    for start, end, line in read_cues(blocks, r"\."):
        voice, shown = re.fullmatch(r"<v ([^<>]*)>\[([^<>]*)\]</v>", line).groups()  # type: ignore[union-attr]
        assert voice == shown
        cues.append((start, end, html.unescape(voice)))
    return cues


READERS: dict[str, Callable[[str], list[Cue]]] = {
    "rttm": read_rttm,
    "csv": read_csv,
    "labels": read_labels,
    "srt": read_srt,
    "vtt": read_vtt,
}
FAITHFUL = ("rttm", "csv")  # those that can say any name; the others keep a name to one line


def on_one_line(speaker: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", speaker)


odd_names = st.one_of(
    st.sampled_from(
        [
            "SPEAKER_00",
            "Jane Doe",
            "a\nb",
            "a\tb",
            "a\r\n\r\nb",
            "<b>",
            "&amp;",
            '"',
            ",",
            "%20",
            "",
            "NA",
            "-->",
            "--->",
        ]
    ),
    st.text(max_size=12),
)
turns_by_the_millisecond = st.lists(
    st.tuples(st.integers(0, 10**9), st.integers(1, 10**6), odd_names).map(
        lambda turn: (turn[0], turn[0] + turn[1], turn[2])
    ),
    max_size=8,
)


@pytest.mark.parametrize("key", READERS)
@settings(deadline=None)  # the first example pays for imports, on shared cores
@given(cues=turns_by_the_millisecond)
def test_what_is_written_reads_back_to_the_millisecond(key: str, cues: list[Cue]) -> None:
    diarization = diarization_of(*((start / 1000, end / 1000, speaker) for start, end, speaker in cues))
    wanted = sorted(cues)
    if key not in FAITHFUL:
        wanted = [(start, end, on_one_line(speaker)) for start, end, speaker in wanted]
    if key == "srt":
        wanted = [(start, end, speaker.replace("-->", "→")) for start, end, speaker in wanted]
    assert READERS[key](FORMATS[key].write(diarization, "a name")) == wanted


@settings(deadline=None)
@given(
    turns=st.lists(
        st.tuples(st.floats(0, 1e6), st.one_of(st.floats(0, 1e-2), st.floats(0, 100))).map(
            lambda turn: (turn[0], sum(turn))
        )
    )
)
def test_rounding_moves_no_time_by_more_than_half_a_millisecond(turns: list[tuple[float, float]]) -> None:
    diarization = diarization_of(*((start, end, str(index)) for index, (start, end) in enumerate(turns)))
    for key, read in READERS.items():
        cues = {int(speaker): (start, end) for start, end, speaker in read(FORMATS[key].write(diarization, "x"))}
        for index, (start, end) in enumerate(turns):
            if index in cues:
                assert cues[index][0] < cues[index][1]
                assert cues[index] == pytest.approx((start * 1000, end * 1000), rel=1e-12, abs=0.5 + 1e-6)
            else:
                assert end - start <= 0.001 + 1e-9


@pytest.mark.parametrize("key", READERS)
def test_turns_that_touch_still_touch(key: str) -> None:
    cues = READERS[key](FORMATS[key].write(diarization_of((0.1, 1.00049, "A"), (1.00049, 2.0, "B")), "x"))
    assert cues == [(100, 1000, "A"), (1000, 2000, "B")]


@pytest.mark.parametrize("key", READERS)
def test_overlapping_turns_are_all_kept(key: str) -> None:
    overlapping = diarization_of((0.0, 5.0, "A"), (1.0, 2.0, "B"), (1.0, 2.0, "C"))
    assert len(READERS[key](FORMATS[key].write(overlapping, "x"))) == 3


@pytest.mark.parametrize("key", READERS)
def test_turns_come_by_start_even_where_the_result_has_them_otherwise(key: str) -> None:
    unsorted = diarization_of((4.0, 5.0, "A"), (0.0, 1.0, "B"))
    assert [start for start, _, _ in READERS[key](FORMATS[key].write(unsorted, "x"))] == [0, 4000]


@pytest.mark.parametrize(
    ("key", "empty"), [("rttm", ""), ("srt", ""), ("vtt", "WEBVTT\n"), ("csv", "start,end,speaker\r\n"), ("labels", "")]
)
def test_silence_gives_a_valid_file(key: str, empty: str) -> None:
    assert FORMATS[key].write(diarization_of(audio_seconds=30.0), "silence") == empty


@pytest.mark.parametrize("key", FORMATS)
def test_golden(key: str) -> None:
    """A change of any output shows here. Where it is wanted, write the new output over the golden file."""
    with (GOLDEN / f"council{FORMATS[key].suffix}").open(encoding="utf-8", newline="") as golden:
        assert FORMATS[key].write(COUNCIL, "council meeting") == golden.read()


def test_json_is_the_whole_result() -> None:
    text = FORMATS["json"].write(COUNCIL, "x")
    assert Diarization.from_json(json.loads(text)) == COUNCIL
    assert "José" in text


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("council-2026.03", "council-2026.03"),
        ("council meeting\t 3", "council_meeting_3"),
        ("a\u00a0b\u2028c", "a_b_c"),
        ("", "recording"),
        ('"quoted"', "_quoted_"),
        ("NA", "NA_"),
        ("null", "null_"),
        ("会議", "会議"),
    ],
)
def test_pyannote_reads_the_rttm(name: str, file: str, tmp_path: Path) -> None:
    load_rttm = pytest.importorskip("pyannote.database.util").load_rttm
    speakers = ["SPEAKER_00", "Jane Doe", "Jane_Doe", "NA", '"', "a\nb"]
    turns = [(index + 0.25, index + 1.5, speaker) for index, speaker in enumerate(speakers)]
    rttm = tmp_path / "x.rttm"
    rttm.write_text(FORMATS["rttm"].write(diarization_of(*turns), name), encoding="utf-8")
    annotations = load_rttm(rttm)
    assert list(annotations) == [file]
    read = [
        (segment.start, segment.end, unquote(label))
        for segment, _, label in annotations[file].itertracks(yield_label=True)
    ]
    assert read == turns


def test_an_unknown_format_is_refused_with_the_names_of_the_known_ones() -> None:
    with pytest.raises(InvalidJob, match=r"^format 'xml' is not one of json, rttm, srt, vtt, csv, labels$"):
        find_format("xml")


def test_a_known_format_is_found() -> None:
    assert find_format("vtt") is FORMATS["vtt"]


def test_the_table_tells_formats_apart() -> None:
    assert len({format_.suffix for format_ in FORMATS.values()}) == len(FORMATS)
    assert len({format_.write for format_ in FORMATS.values()}) == len(FORMATS)
