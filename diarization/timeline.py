"""Turns drawn as a picture: one row a speaker, a time axis beneath. SVG needs nothing; PNG needs pillow.

`_lay_out` puts boxes and texts in their places, in pixels from the upper left corner; the two renderers only draw them.
"""

from __future__ import annotations

import html
import io
import math
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal, NamedTuple
from unicodedata import east_asian_width

from diarization.errors import InvalidJob
from diarization.turns import Diarization, Turn, total_seconds

MIN_WIDTH_PX, MAX_WIDTH_PX = 400, 10_000
# Okabe and Ito, "Color Universal Design" (2008), told apart with any colour vision: those of their eight that have a
# contrast of at least 3 to 1 on white (WCAG 2.2, criterion 1.4.11). After five speakers they come round again: it is
# the row that tells who talks, the colour only helps.
SPEAKER_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000")
REFERENCE_COLOUR = "#858C95"
GROUND_COLOUR, _INK, _FAINT_INK, _GRID = "#FFFFFF", "#1F2328", "#57606A", "#E4E7EB"

_MARGIN, _GAP, _BAR, _BAR_GAP, _REFERENCE_BAR = 20, 12, 20, 3, 8
_LARGE, _MEDIUM, _SMALL = 17, 13, 11
_FONTS = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', Helvetica, Arial, sans-serif"
_LETTER_EM = 0.66  # a letter's width for its size, on the wide side of what these fonts have
_HOUR = 3600
_TICK_SECONDS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, _HOUR, 2 * _HOUR, 4 * _HOUR, 6 * _HOUR, 12 * _HOUR)
# XML cannot hold these, or they break a line.
_UNPRINTABLE = re.compile("[\x00-\x20\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]+")


class _Box(NamedTuple):
    x: float
    y: int
    width: float
    height: int
    colour: str
    tooltip: str = ""


class _Text(NamedTuple):
    x: float
    baseline: int
    text: str
    size: int
    colour: str = _FAINT_INK
    anchor: Literal["start", "middle", "end"] = "start"


@dataclass
class _Picture:
    width: int
    title: str
    description: str
    height: int = 0
    boxes: list[_Box] = field(default_factory=list)
    texts: list[_Text] = field(default_factory=list)


class _Track(NamedTuple):
    """What one speaker says; `turns` are sorted by start."""

    name: str
    seconds: float
    turns: list[Turn]

    def spans(self, gap_seconds: float = 0.0) -> list[tuple[float, float, int]]:
        """Start, end and number of the turns, joined where no more than `gap_seconds` is between them."""
        spans: list[tuple[float, float, int]] = []
        for turn in self.turns:
            if spans and turn.start - spans[-1][1] <= gap_seconds:
                start, end, count = spans.pop()
                spans.append((start, max(end, turn.end), count + 1))
            else:
                spans.append((turn.start, turn.end, 1))
        return spans


class _Axis(NamedTuple):
    """Time runs from 0 at `left` to `seconds`."""

    left: float
    seconds: float
    seconds_per_pixel: float

    def x(self, seconds: float) -> float:
        return self.left + seconds / self.seconds_per_pixel

    def ticks(self) -> range:
        """The seconds to label: the finest round step whose labels stand clear of each other."""
        least = (_text_width(_clock(self.seconds), _SMALL) + 2 * _GAP) * self.seconds_per_pixel
        days = 24 * _HOUR * math.ceil(least / (24 * _HOUR))
        return range(0, math.floor(self.seconds) + 1, next((step for step in _TICK_SECONDS if step >= least), days))


def timeline_svg(
    diarization: Diarization, *, title: str | None = None, reference: Sequence[Turn] | None = None, width: int = 1200
) -> str:
    """The turns as an SVG picture.

    Each box tells its speaker and times. Turns of one speaker less than a pixel apart are drawn as one box.

    Args:
        diarization: What to draw.
        title: Stands above the picture.
        reference: The true turns, drawn as a thin bar below those found. Whatever their names, the two speakers that
            talk together longest are paired first, then the next; whoever is left gets an own row.
        width: Of the picture, from 400 to 10,000 pixels. The height follows from the number of speakers.

    Raises:
        InvalidJob: The width is out of range.
    """
    picture = _lay_out(diarization, title, reference, width)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{picture.width}" height="{picture.height}" '
        f'viewBox="0 0 {picture.width} {picture.height}" role="img" font-family="{_FONTS}">',
        f"<title>{html.escape(picture.title)}</title>",
        f"<desc>{html.escape(picture.description)}</desc>",
        f'<rect width="100%" height="100%" fill="{GROUND_COLOUR}"/>',
    ]
    for colour, boxes in groupby(picture.boxes, key=lambda box: box.colour):
        lines += [f'<g fill="{colour}">', *map(_svg_box, boxes), "</g>"]
    return "\n".join([*lines, *map(_svg_text, picture.texts), "</svg>", ""])


def timeline_png(
    diarization: Diarization, *, title: str | None = None, reference: Sequence[Turn] | None = None, width: int = 1200
) -> bytes:
    """The picture of `timeline_svg` as a PNG, two dots a pixel. Pillow's own font knows Latin letters only.

    Args:
        diarization: What to draw.
        title: Stands above the picture.
        reference: The true turns, as in `timeline_svg`.
        width: Of the picture, in pixels of which each is two dots.

    Raises:
        InvalidJob: The width is out of range.
        ModuleNotFoundError: Pillow is not installed.
    """
    try:
        from PIL import Image, ImageDraw, ImageFont  # noqa: PLC0415 - an extra, which the base install does without
    except ModuleNotFoundError:
        raise ModuleNotFoundError("a PNG timeline needs pillow: pip install diarize-queue[png]") from None
    picture = _lay_out(diarization, title, reference, width)
    scale = 2 if picture.height < 5000 else 1  # what hundreds of speakers need must still fit into memory
    image = Image.new("RGB", (picture.width * scale, picture.height * scale), GROUND_COLOUR)
    draw = ImageDraw.Draw(image)
    for box in picture.boxes:
        left, right = round(box.x * scale), round((box.x + box.width) * scale)
        draw.rectangle((left, box.y * scale, max(left, right - 1), (box.y + box.height) * scale - 1), fill=box.colour)
    fonts = {size: ImageFont.load_default(size * scale) for size in (_LARGE, _MEDIUM, _SMALL)}
    anchors = {"start": "ls", "middle": "ms", "end": "rs"}
    for text in picture.texts:
        x, y = text.x * scale, text.baseline * scale
        draw.text((x, y), text.text, fill=text.colour, font=fonts[text.size], anchor=anchors[text.anchor])
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


def _svg_box(box: _Box) -> str:
    place = f'x="{box.x:.6g}" y="{box.y}" width="{box.width:.4g}" height="{box.height}"'
    return f"<rect {place}><title>{html.escape(box.tooltip)}</title></rect>" if box.tooltip else f"<rect {place}/>"


def _svg_text(text: _Text) -> str:
    place = f'x="{text.x:.6g}" y="{text.baseline}" font-size="{text.size}" text-anchor="{text.anchor}"'
    return f'<text {place} fill="{text.colour}">{html.escape(text.text)}</text>'


def _lay_out(diarization: Diarization, title: str | None, reference: Sequence[Turn] | None, width: int) -> _Picture:
    if not MIN_WIDTH_PX <= width <= MAX_WIDTH_PX:
        raise InvalidJob(f"a timeline is {MIN_WIDTH_PX} to {MAX_WIDTH_PX} pixels wide, not {width}")
    found, true = _tracks(diarization.segments), _tracks(reference or ())
    tracks, turns = [*found, *true], len(diarization.segments)
    # Even the axis of an empty recording has a length.
    seconds = max([0.001, diarization.audio_seconds, *(turn.end for track in tracks for turn in track.turns)])
    counts = f"{len(found)} speaker{'s' * (len(found) != 1)} · {turns:,} turn{'s' * (turns != 1)}"
    summary = f"{counts} · {_duration(diarization.audio_seconds)}"
    totals = ", ".join(f"{track.name} {_duration(track.seconds)}" for track in found) or "none"
    picture = _Picture(width, _printable(title or "") or "Who spoke when", f"{summary}. Talking time: {totals}.")
    top = _draw_header(picture, summary, has_title=bool(title), has_reference=reference is not None)

    name_px = min(max((_text_width(track.name, _MEDIUM) for track in tracks), default=0.0), width / 4)
    total_px = max((_text_width(_duration(track.seconds), _MEDIUM) for track in tracks), default=0.0)
    left = math.ceil(_MARGIN + name_px + _GAP + total_px + _GAP)
    axis = _Axis(left, seconds, seconds / (width - left - 2 * _MARGIN))
    rows = _pair(found, true) or [(None, None)]
    row_px = _BAR + _GAP + (_BAR_GAP + _REFERENCE_BAR if reference is not None else 0)
    _draw_axis(picture, axis, top, top + row_px * len(rows) - _GAP)
    for index, (speaker, reference_speaker) in enumerate(rows):
        y, colour = top + row_px * index, SPEAKER_COLOURS[index % len(SPEAKER_COLOURS)]
        picture.boxes.append(_Box(left, y + _BAR // 2, width - left - 2 * _MARGIN, 1, _GRID))
        _draw_track(picture, axis, speaker, y, _BAR, colour)
        _draw_track(picture, axis, reference_speaker, y + _BAR + _BAR_GAP, _REFERENCE_BAR, REFERENCE_COLOUR)
    return picture


def _draw_header(picture: _Picture, summary: str, *, has_title: bool, has_reference: bool) -> int:
    """Draw what stands above the rows; gives where the first of them begins."""
    baseline = _MARGIN + _SMALL
    if has_title:
        title = _fit(picture.title, _LARGE, picture.width - 2 * _MARGIN)
        picture.texts.append(_Text(_MARGIN, _MARGIN + _LARGE, title, _LARGE, _INK))
        baseline += _LARGE + _GAP // 2
    picture.texts.append(_Text(_MARGIN, baseline, summary, _SMALL))
    x = picture.width - _MARGIN
    for name, colour, height in (("reference", REFERENCE_COLOUR, _REFERENCE_BAR), ("found", _INK, _GAP)):
        if has_reference:
            x -= _MARGIN + math.ceil(_text_width(name, _SMALL))
            picture.texts.append(_Text(x, baseline, name, _SMALL))
            x -= _GAP // 2 + _MARGIN
            picture.boxes.append(_Box(x, baseline - 4 - height // 2, _MARGIN, height, colour))
    return baseline + _MARGIN


def _draw_axis(picture: _Picture, axis: _Axis, top: int, bottom: int) -> None:
    for tick in axis.ticks():
        x, label = round(axis.x(tick)), _clock(tick, with_hours=axis.seconds >= _HOUR)
        picture.boxes.append(_Box(x, top - _GAP // 2, 1, bottom - top + _GAP, _GRID))
        picture.texts.append(_Text(x, bottom + _GAP + _SMALL, label, _SMALL, anchor="middle"))
    picture.height = bottom + _GAP + _SMALL + _MARGIN


def _draw_track(picture: _Picture, axis: _Axis, track: _Track | None, top: int, height: int, colour: str) -> None:
    if not track:
        return
    size, ink = (_MEDIUM, _INK) if height == _BAR else (_SMALL, _FAINT_INK)
    total, total_right = _duration(track.seconds), axis.left - _GAP
    baseline = round(top + height / 2 + 0.36 * size)
    name = _fit(track.name, size, total_right - _text_width(total, size) - _GAP - _MARGIN)
    picture.texts.append(_Text(_MARGIN, baseline, name, size, ink))
    picture.texts.append(_Text(total_right, baseline, total, size, anchor="end"))
    for start, end, turns in track.spans(axis.seconds_per_pixel):
        times = f"{_clock(start, decimals=1)} to {_clock(end, decimals=1)}" + f", {turns} turns" * (turns > 1)
        x, width = axis.x(start), (end - start) / axis.seconds_per_pixel
        picture.boxes.append(_Box(x, top, max(1.0, width), height, colour, f"{track.name}, {times}"))


def _tracks(turns: Sequence[Turn]) -> list[_Track]:
    by_speaker: dict[str, list[Turn]] = {}
    for turn in sorted(turns, key=lambda turn: turn.start):
        by_speaker.setdefault(turn.speaker, []).append(turn)
    totals = total_seconds(tuple(turns))
    return [_Track(_printable(total.speaker), total.total_seconds, by_speaker[total.speaker]) for total in totals]


def _pair(found: list[_Track], true: list[_Track]) -> list[tuple[_Track | None, _Track | None]]:
    """One row a speaker found, then one for each of the reference whom nobody found."""
    shared = _shared_seconds(found, true)
    partners: list[_Track | None] = [None] * len(found)
    alone = dict(enumerate(true))
    for i, j in sorted(shared, key=lambda pair: (-shared[pair], pair)):
        if partners[i] is None and j in alone:
            partners[i] = alone.pop(j)
    return [*zip(found, partners, strict=True), *((None, track) for track in alone.values())]


def _shared_seconds(found: list[_Track], true: list[_Track]) -> dict[tuple[int, int], float]:
    """How long each two talk at the same time, by their places in the lists, from one walk through time."""
    sides = [(side, i, track) for side, tracks in enumerate((found, true)) for i, track in enumerate(tracks)]
    shared: dict[tuple[int, int], float] = defaultdict(float)
    talking: list[tuple[float, int, int]] = []
    for start, end, side, i in sorted((*span[:2], side, i) for side, i, track in sides for span in track.spans()):
        talking = [other for other in talking if other[0] > start]
        for other_end, other_side, j in talking:
            if other_side != side and end > start:
                shared[(j, i) if side else (i, j)] += min(end, other_end) - start
        talking.append((end, side, i))
    return shared


def _clock(seconds: float, *, with_hours: bool = False, decimals: int = 0) -> str:
    whole, fraction = divmod(round(seconds * 10**decimals), 10**decimals)
    minutes, rest = divmod(whole, 60)
    text = f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if with_hours or minutes >= 60 else f"{minutes}:{rest:02}"
    return f"{text}.{fraction}" if decimals else text


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 59.95 else _clock(seconds)


def _printable(text: str) -> str:
    return _UNPRINTABLE.sub(" ", text).strip()


def _text_width(text: str, size: int) -> float:
    return size * sum(1.0 if east_asian_width(character) in "WF" else _LETTER_EM for character in text)


def _fit(text: str, size: int, width: float) -> str:
    if _text_width(text, size) <= width:
        return text
    most = int(width / size / _LETTER_EM)
    kept = max((count for count in range(most) if _text_width(text[:count] + "…", size) <= width), default=0)
    return text[:kept].rstrip() + "…"
