"""Who said what: a transcript's words, each with the speaker of the turn that it falls into.

    python examples/merge_transcript.py result.json words.json                 # [00:00:06.680] SPEAKER_01: Hello?
    python examples/merge_transcript.py result.json words.json --format srt    # or vtt

`result.json` is a job's result. `words.json` is what Whisper, faster-whisper or WhisperX write with word timestamps: a
list of `{"word": …, "start": …, "end": …}`, or an object with `word_segments` or with `segments` that have `words`.

A word goes to the speaker with whom it shares the most time, by the turns of which one at a time is open
(`exclusive_segments`); where nobody speaks, to the nearest turn's.
"""

from __future__ import annotations

import argparse
import html
import json
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from diarization.turns import Diarization, Turn

# Netflix's Timed Text Style Guide, general requirements: two lines of 42 characters, at most seven seconds.
CUE_CHARACTERS, CUE_SECONDS = 84, 7.0
PAUSE_SECONDS = 1.0
"""A longer silence ends a subtitle."""
NOBODY = "UNKNOWN"
"""The speaker of all words where there is no turn at all."""


@dataclass(frozen=True)
class Word:
    """A word as it is written, spaces included, with its seconds from the recording's begin."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class Line:
    """Words of one speaker, one after another."""

    speaker: str
    words: tuple[Word, ...]

    @property
    def text(self) -> str:
        """What is said."""
        return "".join(word.text for word in self.words).strip()


def read_words(data: Any) -> list[Word]:
    """The words of a transcript, in order. One without times (WhisperX has them) stands where the one before ends."""
    if isinstance(data, dict):
        nested = [word for segment in data.get("segments", ()) for word in segment.get("words", ())]
        data = data.get("word_segments") or nested
    texts = [str(entry.get("word", entry.get("text", ""))) for entry in data]
    # Whisper's words begin with the space before them, WhisperX's do not.
    space = "" if any(text.startswith(" ") for text in texts) else " "
    words: list[Word] = []
    for entry, text in zip(data, texts, strict=True):
        start = float(entry.get("start", words[-1].end if words else 0.0))
        words.append(Word(space + text, start, max(start, float(entry.get("end", start)))))
    return words


class Speakers:
    """Whose turn it is at a time."""

    def __init__(self, turns: Iterable[Turn]) -> None:
        self._turns = sorted(turns, key=lambda turn: turn.start)
        self._starts = [turn.start for turn in self._turns]
        # Of the turns up to each, the one that ends last: where even that has ended, so have all before it.
        self._last = list(accumulate(self._turns, lambda one, other: other if other.end >= one.end else one))

    def at(self, word: Word) -> str:
        """Who says the word."""
        after = bisect_left(self._starts, word.end)
        shared: dict[str, float] = defaultdict(float)
        for i in range(after - 1, -1, -1):
            if self._last[i].end <= word.start:
                break
            turn = self._turns[i]
            if (seconds := min(turn.end, word.end) - max(turn.start, word.start)) > 0:
                shared[turn.speaker] += seconds
        if shared:
            return max(shared, key=lambda speaker: shared[speaker])
        near = self._last[after - 1 : after] + self._turns[after : after + 1] if after else self._turns[:1]
        distances = [(max(turn.start - word.end, word.start - turn.end), turn.speaker) for turn in near]
        return min(distances)[1] if distances else NOBODY


def merge(words: Sequence[Word], turns: Iterable[Turn], *, subtitles: bool = False) -> list[Line]:
    """The words as lines, a new one for each change of speaker; with `subtitles`, no longer than one can be read."""
    speakers, lines = Speakers(turns), list[Line]()
    for word in words:
        speaker = speakers.at(word)
        last = lines[-1] if lines else None
        if last and last.speaker == speaker and not (subtitles and _too_long(last, word)):
            lines[-1] = Line(speaker, (*last.words, word))
        else:
            lines.append(Line(speaker, (word,)))
    return lines


def _too_long(line: Line, word: Word) -> bool:
    characters = len(f"{line.speaker}: {line.text}{word.text}")
    first, last = line.words[0], line.words[-1]
    return characters > CUE_CHARACTERS or word.end - first.start > CUE_SECONDS or word.start - last.end > PAUSE_SECONDS


def to_text(lines: Sequence[Line]) -> str:
    """A line each: when, who, what."""
    return "".join(f"[{_clock(line.words[0].start, '.')}] {line.speaker}: {line.text}\n" for line in lines)


def to_srt(lines: Sequence[Line]) -> str:
    """SubRip subtitles."""
    return "\n".join(
        # SubRip cannot escape: an arrow in the text could be taken for times.
        f"{number}\n{_times(line, ',')}\n{line.speaker}: {line.text.replace('-->', '→')}\n"
        for number, line in enumerate(lines, 1)
    )


def to_vtt(lines: Sequence[Line]) -> str:
    """WebVTT subtitles, each in a voice span."""
    escaped = ((line, html.escape(line.speaker, quote=False), html.escape(line.text, quote=False)) for line in lines)
    return "\n".join(["WEBVTT\n", *(f"{_times(line, '.')}\n<v {who}>{text}</v>\n" for line, who, text in escaped)])


def _times(line: Line, mark: str) -> str:
    start, end = line.words[0].start, line.words[-1].end
    return f"{_clock(start, mark)} --> {_clock(max(end, start + 0.001), mark)}"


def _clock(seconds: float, mark: str) -> str:
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{mark}{milliseconds:03}"


FORMATS = {"text": to_text, "srt": to_srt, "vtt": to_vtt}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("result", type=Path, help="a job's result as JSON")
    parser.add_argument("words", type=Path, help="the transcript's words as JSON")
    parser.add_argument("--format", choices=FORMATS, default="text")
    arguments = parser.parse_args()
    diarization = Diarization.from_json(json.loads(arguments.result.read_text()))
    words = read_words(json.loads(arguments.words.read_text()))
    turns = diarization.exclusive_segments or diarization.segments
    print(FORMATS[arguments.format](merge(words, turns, subtitles=arguments.format != "text")), end="")


if __name__ == "__main__":
    main()
