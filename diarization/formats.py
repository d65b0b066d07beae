"""Turns written for the programs that read them: one pure function a format, one table of all.

Every format but JSON holds `segments`, overlaps included: where two people talk at once, two subtitle cues stand at
once. Times are rounded to milliseconds, starts and ends alike, so that turns that touch still touch. A turn that rounds
to nothing is left out: a WebVTT cue must end after it starts, and scoring tools refuse RTTM lines without a duration.
"""

from __future__ import annotations

import csv
import html
import io
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import quote

from diarization.errors import InvalidJob
from diarization.turns import Diarization

_LINE_BREAKING = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
# White space ends a field of RTTM, and pandas (which reads it for pyannote.database) takes quotes for its own.
_FIELD_BREAKING = re.compile(r'[\s"\x00-\x1f\x7f-\x9f]+')
_UNSAFE_IN_FIELD = re.compile(r'[\s"%\x00-\x1f\x7f-\x9f]')
# pandas reads these as missing values, which would drop the speaker or the whole recording.
_READ_AS_MISSING = frozenset(
    ["#n/a", "#na", "-1.#ind", "-1.#qnan", "-nan", "1.#ind", "1.#qnan", "<na>", "n/a", "na", "nan", "none", "null"]
)


@dataclass(frozen=True)
class Format:
    """A way to write a diarization.

    Attributes:
        write: The diarization and the recording's name to text, each of whose lines is ended.
        suffix: Of a file in this format, with its dot.
        media_type: For a `Content-Type` header; the text is UTF-8.
        description: What it is for, one line.
    """

    write: Callable[[Diarization, str], str]
    suffix: str
    media_type: str
    description: str


class _Row(NamedTuple):
    """A turn in whole milliseconds; rows sort by start, then end, then speaker."""

    start: int
    end: int
    speaker: str


def to_json(diarization: Diarization, name: str) -> str:
    """The whole result, as the result schema has it. `name` is not part of it."""
    return json.dumps(diarization.to_json(), indent=2, ensure_ascii=False) + "\n"


def to_rttm(diarization: Diarization, name: str) -> str:
    """Rich Transcription Time Marked lines, as NIST's RT-09 evaluation plan (appendix A) defines them.

    Fields cannot hold white space: in the file field (`name`) it becomes `_`; speakers are percent-encoded where they
    must be, so that two of them never become one.
    """
    file = _FIELD_BREAKING.sub("_", name) or "recording"
    if file.lower() in _READ_AS_MISSING:
        file += "_"
    return "".join(
        f"SPEAKER {file} 1 {_seconds(start)} {_seconds(end - start)} <NA> <NA> {_field(speaker)} <NA> <NA>\n"
        for start, end, speaker in _rows(diarization)
    )


def to_srt(diarization: Diarization, name: str) -> str:
    """SubRip subtitles whose text is the speaker in brackets. `name` is not part of it."""
    return "\n".join(
        f"{number}\n{_clock(row.start, ',')} --> {_clock(row.end, ',')}\n"
        # SubRip cannot escape; a lenient reader would take an arrow in the text for the times of a cue.
        f"[{_one_line(row.speaker).replace('-->', '→')}]\n"
        for number, row in enumerate(_rows(diarization), start=1)
    )


def to_vtt(diarization: Diarization, name: str) -> str:
    """WebVTT subtitles with a voice span a turn (https://www.w3.org/TR/webvtt1/). `name` is not part of it."""
    cues = ["WEBVTT\n"]
    for row in _rows(diarization):
        speaker = html.escape(_one_line(row.speaker), quote=False)
        cues.append(f"{_clock(row.start, '.')} --> {_clock(row.end, '.')}\n<v {speaker}>[{speaker}]</v>\n")
    return "\n".join(cues)


def to_csv(diarization: Diarization, name: str) -> str:
    """A table with the header `start,end,speaker`, in seconds, as RFC 4180 has it. `name` is not part of it."""
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(("start", "end", "speaker"))
    table.writerows((_seconds(row.start), _seconds(row.end), row.speaker) for row in _rows(diarization))
    return text.getvalue()


def to_labels(diarization: Diarization, name: str) -> str:
    """A label track for Audacity (File > Import > Labels), fields parted by tabs. `name` is not part of it."""
    return "".join(
        f"{_seconds(row.start)}\t{_seconds(row.end)}\t{_one_line(row.speaker)}\n" for row in _rows(diarization)
    )


FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        "json": Format(to_json, ".json", "application/json", "the whole result, for programs"),
        "rttm": Format(to_rttm, ".rttm", "text/plain", "what scoring tools and pyannote.database read"),
        "srt": Format(to_srt, ".srt", "application/x-subrip", "subtitles for video players"),
        "vtt": Format(to_vtt, ".vtt", "text/vtt", "subtitles for web pages, with voice spans"),
        "csv": Format(to_csv, ".csv", "text/csv", "a table for spreadsheets"),
        "labels": Format(to_labels, ".txt", "text/plain", "a label track for Audacity"),
    }
)


def find_format(key: str) -> Format:
    """The format that `key` names.

    Raises:
        InvalidJob: There is none; the message lists those there are.
    """
    try:
        return FORMATS[key]
    except KeyError:
        raise InvalidJob(f"format {key[:40]!r} is not one of {', '.join(FORMATS)}") from None


def _rows(diarization: Diarization) -> list[_Row]:
    rows = (_Row(round(turn.start * 1000), round(turn.end * 1000), turn.speaker) for turn in diarization.segments)
    return sorted(row for row in rows if row.end > row.start)


def _seconds(milliseconds: int) -> str:
    return f"{milliseconds // 1000}.{milliseconds % 1000:03}"


def _clock(milliseconds: int, decimal_mark: str) -> str:
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02}{decimal_mark}{rest % 1000:03}"


def _one_line(speaker: str) -> str:
    return _LINE_BREAKING.sub(" ", speaker)


def _field(speaker: str) -> str:
    if speaker.lower() in _READ_AS_MISSING:
        return f"%{ord(speaker[0]):02X}{speaker[1:]}"
    return _UNSAFE_IN_FIELD.sub(lambda unsafe: quote(unsafe[0], safe=""), speaker) or "<NA>"
