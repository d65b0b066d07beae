"""The picture, read back from its SVG, and its PNG looked at dot by dot."""

from __future__ import annotations

import io
import random
import re
import sys
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diarization.errors import InvalidJob
from diarization.timeline import (
    GROUND_COLOUR,
    MAX_WIDTH_PX,
    MIN_WIDTH_PX,
    REFERENCE_COLOUR,
    SPEAKER_COLOURS,
    timeline_png,
    timeline_svg,
)
from diarization.turns import Diarization, Turn

SVG = "{http://www.w3.org/2000/svg}"
GOLDEN = Path(__file__).parent / "golden" / "timeline.svg"


def turns_of(*turns: tuple[float, float, str]) -> tuple[Turn, ...]:
    return tuple(Turn(start=start, end=end, speaker=speaker) for start, end, speaker in turns)


def diarization_of(*turns: tuple[float, float, str], audio_seconds: float = 30.0) -> Diarization:
    return Diarization(segments=turns_of(*turns), audio_seconds=audio_seconds)


DIALOGUE = diarization_of((1.0, 4.0, "SPEAKER_00"), (3.5, 9.0, "SPEAKER_01"), (12.0, 29.0, "SPEAKER_00"))
REFERENCE = turns_of((1.1, 4.0, "Anna"), (3.6, 9.1, "Ben"), (12.0, 28.9, "Anna"), (20.0, 21.0, "Cem"))


class Picture:
    """An SVG, taken apart."""

    def __init__(self, svg: str) -> None:
        root = ET.fromstring(svg)
        self.width, self.height = float(root.attrib["width"]), float(root.attrib["height"])
        self.title, self.description = root.findtext(f"{SVG}title"), root.findtext(f"{SVG}desc")
        self.rects = [(group.attrib["fill"], rect) for group in root.iter(f"{SVG}g") for rect in group]
        self.texts = list(root.iter(f"{SVG}text"))

    def bars(self) -> list[tuple[str, str, float, float, float]]:
        """Tooltip, colour, x, width and y of each bar of turns."""
        return [
            (tooltip, colour, *(float(rect.attrib[key]) for key in ("x", "width", "y")))  # type: ignore[misc]
            for colour, rect in self.rects
            if (tooltip := rect.findtext(f"{SVG}title")) is not None
        ]

    def words(self) -> list[str]:
        return [text.text or "" for text in self.texts]

    def ticks(self) -> list[tuple[float, str]]:
        return [
            (float(text.attrib["x"]), text.text or "") for text in self.texts if text.attrib["text-anchor"] == "middle"
        ]


def contrast(one: str, other: str) -> float:
    """WCAG 2.2's contrast ratio of two colours."""

    def luminance(colour: str) -> float:
        channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted([luminance(one), luminance(other)])
    return (light + 0.05) / (dark + 0.05)


def test_golden() -> None:
    """A change of the picture shows here. Where it is wanted, write the new one over the golden file."""
    svg = timeline_svg(DIALOGUE, title="A dialogue", reference=REFERENCE, width=800)
    assert svg == GOLDEN.read_text(encoding="utf-8")


def test_every_turn_stands_where_the_axis_says() -> None:
    picture = Picture(timeline_svg(DIALOGUE))
    (left, first), (right, last) = picture.ticks()[0], picture.ticks()[-1]
    assert (first, last) == ("0:00", "0:30")
    pixels_per_second = (right - left) / 30
    tooltips = [
        "SPEAKER_00, 0:01.0 to 0:04.0",
        "SPEAKER_00, 0:12.0 to 0:29.0",
        "SPEAKER_01, 0:03.5 to 0:09.0",
    ]
    for (tooltip, _, x, width, _), wanted, (start, end) in zip(
        picture.bars(), tooltips, [(1, 4), (12, 29), (3.5, 9)], strict=True
    ):
        assert tooltip == wanted
        assert x == pytest.approx(left + start * pixels_per_second, abs=1)
        assert width == pytest.approx((end - start) * pixels_per_second, abs=1)


def test_each_speaker_has_a_row_a_colour_and_a_total() -> None:
    picture = Picture(timeline_svg(DIALOGUE))
    rows = {tooltip.split(",")[0]: (y, colour) for tooltip, colour, _, _, y in picture.bars()}
    assert rows["SPEAKER_00"][0] < rows["SPEAKER_01"][0]
    assert rows["SPEAKER_00"][1] != rows["SPEAKER_01"][1]
    assert {"SPEAKER_00", "20.0 s", "SPEAKER_01", "5.5 s", "2 speakers · 3 turns · 30.0 s"} <= set(picture.words())


def test_those_who_cannot_see_it_are_told() -> None:
    picture = Picture(timeline_svg(DIALOGUE, title="A dialogue"))
    assert picture.title == "A dialogue"
    assert picture.description == "2 speakers · 3 turns · 30.0 s. Talking time: SPEAKER_00 20.0 s, SPEAKER_01 5.5 s."
    assert Picture(timeline_svg(DIALOGUE)).title == "Who spoke when"


def test_speakers_of_the_reference_stand_below_those_they_talk_with() -> None:
    bars = Picture(timeline_svg(DIALOGUE, reference=REFERENCE)).bars()
    rows: dict[str, float] = {tooltip.split(",")[0]: y for tooltip, _, _, _, y in bars}
    assert sorted(rows, key=rows.__getitem__) == ["SPEAKER_00", "Anna", "SPEAKER_01", "Ben", "Cem"]
    assert rows["Anna"] - rows["SPEAKER_00"] == rows["Ben"] - rows["SPEAKER_01"]
    assert {colour for tooltip, colour, *_ in bars if not tooltip.startswith("SPEAKER")} == {REFERENCE_COLOUR}


def test_same_names_do_not_make_a_pair() -> None:
    found = diarization_of((0, 10, "SPEAKER_00"), (10, 15, "SPEAKER_01"))
    swapped = turns_of((0, 10, "SPEAKER_01"), (10, 15, "SPEAKER_00"))
    bars = Picture(timeline_svg(found, reference=swapped)).bars()
    by_row = [tooltip.split(",")[0] for tooltip, *_ in sorted(bars, key=lambda bar: bar[4])]
    assert by_row == ["SPEAKER_00", "SPEAKER_01", "SPEAKER_01", "SPEAKER_00"]


def test_those_who_talk_together_longest_are_paired_first() -> None:
    found = diarization_of((0, 1, "A"), (2, 6, "A"), (8, 9, "A"), (10, 11, "B"))
    true = turns_of((0, 1, "first"), (10, 30, "first"), (3, 5, "second"), (8, 9, "second"))
    bars = Picture(timeline_svg(found, reference=true)).bars()
    by_row = list(dict.fromkeys(tooltip.split(",")[0] for tooltip, *_ in sorted(bars, key=lambda bar: bar[4])))
    assert by_row == ["A", "second", "B", "first"]


@pytest.mark.parametrize(
    ("audio_seconds", "labels"),
    [
        (0.4, ["0:00"]),
        (10, ["0:00", "0:01", "0:02"]),
        (30, ["0:00", "0:02", "0:04"]),
        (60, ["0:00", "0:05", "0:10"]),
        (600, ["0:00", "1:00", "2:00"]),
        (3599, ["0:00", "5:00", "10:00"]),
        (3600, ["0:00:00", "0:05:00", "0:10:00"]),
        (3 * 3600, ["0:00:00", "0:15:00", "0:30:00"]),
        (12 * 3600, ["0:00:00", "1:00:00", "2:00:00"]),
        (1000 * 3600, ["0:00:00", "96:00:00", "192:00:00"]),
    ],
)
def test_the_axis_has_round_steps_that_people_read(audio_seconds: float, labels: list[str]) -> None:
    assert [label for _, label in Picture(timeline_svg(diarization_of(audio_seconds=audio_seconds))).ticks()][
        :3
    ] == labels


@settings(deadline=None)
@given(audio_seconds=st.floats(0, 1e6), width=st.integers(MIN_WIDTH_PX, 4000), name=st.text(max_size=60))
def test_nothing_leaves_the_picture_and_no_labels_collide(audio_seconds: float, width: int, name: str) -> None:
    diarization = diarization_of(
        (0, audio_seconds, name), (audio_seconds / 2, audio_seconds, "B"), audio_seconds=audio_seconds
    )
    picture = Picture(timeline_svg(diarization, title=name * 5, reference=diarization.segments, width=width))
    assert picture.width == width
    for _, rect in picture.rects:
        x, y, w, h = (float(rect.attrib[key]) for key in ("x", "y", "width", "height"))
        assert min(x, y, w, h) >= 0
        assert x + w <= width
        assert y + h <= picture.height
    for (x, label), (following, _) in pairwise(picture.ticks()):
        assert following - x > 0.66 * 11 * len(label)
    assert all(0 < float(text.attrib["y"]) < picture.height for text in picture.texts)


@pytest.mark.parametrize("reference", [None, ()])
def test_silence_is_an_empty_row(reference: tuple[Turn, ...] | None) -> None:
    picture = Picture(timeline_svg(diarization_of(), reference=reference))
    assert picture.bars() == []
    assert "0 speakers · 0 turns · 30.0 s" in picture.words()
    assert picture.ticks()


def test_an_empty_recording_can_be_drawn() -> None:
    assert Picture(timeline_svg(diarization_of(audio_seconds=0.0))).bars() == []


def test_a_turn_beyond_the_end_stays_in_the_picture() -> None:
    picture = Picture(timeline_svg(diarization_of((25, 31, "A")), reference=turns_of((25, 40, "B"))))
    assert picture.ticks()[-1][1] == "0:40"
    assert max(x + width for _, _, x, width, _ in picture.bars()) <= picture.width


def test_hostile_names_stay_text() -> None:
    name = "</title><script>alert(1)</script>\x00\x1b\n&amp;"
    svg = timeline_svg(diarization_of((0, 1, name)), title=name + "\ud800")
    assert "<script" not in svg
    picture = Picture(svg)
    assert picture.title == "</title><script>alert(1)</script> &amp;"
    assert picture.bars()[0][0].startswith("</title><script>alert(1)</script> &amp;, 0:00.0")


def test_colours_are_distinct_and_have_contrast_enough() -> None:
    assert len({*SPEAKER_COLOURS, REFERENCE_COLOUR}) == len(SPEAKER_COLOURS) + 1
    for colour in (*SPEAKER_COLOURS, REFERENCE_COLOUR):
        assert contrast(colour, GROUND_COLOUR) >= 3.0  # WCAG 2.2, 1.4.11
    texts = Picture(timeline_svg(DIALOGUE, title="x", reference=REFERENCE)).texts
    assert min(contrast(text.attrib["fill"], GROUND_COLOUR) for text in texts) >= 4.5  # WCAG 2.2, 1.4.3


def test_more_speakers_than_colours_still_have_a_row_each() -> None:
    bars = Picture(timeline_svg(diarization_of(*((i, i + 1, f"S{i:02}") for i in range(29))))).bars()
    assert len({y for *_, y in bars}) == 29
    assert all(one[1] != other[1] for one, other in pairwise(bars))


def meeting(hours: float, speakers: int, seed: int = 1) -> Diarization:
    chance = random.Random(seed)
    turns, now = [], 0.0
    while now < hours * 3600 - 30:
        seconds = 0.2 + chance.expovariate(1 / 1.5)
        turns.append((now, now + seconds, f"SPEAKER_{chance.randrange(speakers):02}"))
        now += seconds
    return diarization_of(*turns, audio_seconds=hours * 3600)


def test_a_day_of_short_turns_stays_a_small_file() -> None:
    day = meeting(10, 8)
    assert len(day.segments) > 20_000
    svg = timeline_svg(day)
    assert len(svg) < 600_000
    drawn = sum(int(count[1]) if (count := re.search(r", (\d+) turns$", bar[0])) else 1 for bar in Picture(svg).bars())
    assert drawn == len(day.segments), "turns drawn as one are counted, none is lost"


@pytest.mark.parametrize("width", [MIN_WIDTH_PX - 1, MAX_WIDTH_PX + 1, 0, -5])
def test_a_width_out_of_range_is_refused(width: int) -> None:
    for draw in (timeline_svg, timeline_png):
        with pytest.raises(InvalidJob, match=f"not {width}$"):
            draw(DIALOGUE, width=width)


def test_the_same_turns_give_the_same_picture() -> None:
    shuffled = DIALOGUE.model_copy(update={"segments": DIALOGUE.segments[::-1]})
    assert timeline_svg(shuffled, reference=REFERENCE[::-1]) == timeline_svg(DIALOGUE, reference=REFERENCE)


def test_the_png_shows_what_the_svg_says() -> None:
    image_module = pytest.importorskip("PIL.Image")
    svg = Picture(timeline_svg(DIALOGUE, title="A dialogue", reference=REFERENCE, width=800))
    image: Any = image_module.open(
        io.BytesIO(timeline_png(DIALOGUE, title="A dialogue", reference=REFERENCE, width=800))
    )
    assert image.size == (2 * svg.width, 2 * svg.height)
    for _, colour, x, width, y in svg.bars():
        rgb = tuple(bytes.fromhex(colour[1:]))
        for at in (x + 1, x + width / 2, x + width - 1):
            assert image.getpixel((round(2 * at), round(2 * y + 4))) == rgb
        assert image.getpixel((round(2 * x) - 2, round(2 * y + 4))) != rgb
    assert image.getpixel((0, 0)) == (255, 255, 255)
    title = image.crop((40, 40, 300, 80)).convert("L").getextrema()
    assert title[0] < 100, "the title is drawn in dark ink"


def test_a_png_of_very_many_speakers_keeps_to_one_dot_a_pixel() -> None:
    image_module = pytest.importorskip("PIL.Image")
    crowd = diarization_of(*((i / 10, i / 10 + 0.05, f"S{i:03}") for i in range(300)))
    image: Any = image_module.open(io.BytesIO(timeline_png(crowd)))
    assert image.size[0] == 1200
    assert image.size[1] > 300 * 20


def test_without_pillow_the_png_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install diarize-queue\[png\]"):
        timeline_png(DIALOGUE)
    assert timeline_svg(DIALOGUE)
