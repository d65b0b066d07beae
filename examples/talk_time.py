"""Talk time and interruptions of each speaker, from a job's result.

    python examples/talk_time.py result.json          # of `diarize-queue result ID --format json`; `-` reads stdin
    python examples/talk_time.py JOB_ID --json        # asks the queue at REDIS_URL

An *interruption* is a between-speaker overlap (Heldner and Edlund, "Pauses, gaps and overlaps in conversations",
Journal of Phonetics 38, 2010) that is not brief: B begins while A speaks and still speaks when A has stopped, and both
spoke at once for at least 0.2 s. That is the usual gap between two turns (Levinson and Torreira, Frontiers in
Psychology 6:731, 2015); with less, the next speaker was only a little early. Where B stops first ("mm-hm"), A was not
interrupted. Whether somebody *meant* to cut in, times alone cannot say.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from diarization.turns import Diarization, Turn
from tasks.diarize import diarize

LEAST_OVERLAP_SECONDS = 0.2


@dataclass(frozen=True)
class TalkTime:
    """Of one speaker.

    Attributes:
        seconds: Of all turns.
        share: Of what all speakers talk, in all, from 0 to 1.
        overlapped_seconds: While somebody else talks, too.
        interrupts: How often this speaker interrupts another; `interrupted` the other way round.
    """

    speaker: str
    seconds: float
    share: float
    turns: int
    longest_turn_seconds: float
    overlapped_seconds: float
    interrupts: int
    interrupted: int


def talk_times(turns: Sequence[Turn]) -> list[TalkTime]:
    """Of each speaker, who talks longest first."""
    by_speaker: dict[str, list[float]] = {}
    for turn in turns:
        by_speaker.setdefault(turn.speaker, []).append(turn.seconds)
    total = sum(turn.seconds for turn in turns) or 1.0
    overlapped, pairs = overlapped_seconds(turns), interruptions(turns)
    found = [
        TalkTime(
            speaker=speaker,
            seconds=round(sum(seconds), 3),
            share=round(sum(seconds) / total, 4),
            turns=len(seconds),
            longest_turn_seconds=round(max(seconds), 3),
            overlapped_seconds=round(overlapped[speaker], 3),
            interrupts=sum(count for (by, _), count in pairs.items() if by == speaker),
            interrupted=sum(count for (_, whom), count in pairs.items() if whom == speaker),
        )
        for speaker, seconds in by_speaker.items()
    ]
    return sorted(found, key=lambda one: (-one.seconds, one.speaker))


def overlapped_seconds(turns: Sequence[Turn]) -> Mapping[str, float]:
    """How long each speaker talks while another does, from one walk through the starts and ends of all turns."""
    edges = sorted((time, side, turn.speaker) for turn in turns for time, side in ((turn.start, 1), (turn.end, -1)))
    seconds: dict[str, float] = defaultdict(float)
    talking: Counter[str] = Counter()
    before = 0.0
    for time, side, speaker in edges:
        at_once = +talking  # those above zero
        if len(at_once) > 1:
            for one in at_once:
                seconds[one] += time - before
        talking[speaker] += side
        before = time
    return seconds


def interruptions(turns: Sequence[Turn]) -> Counter[tuple[str, str]]:
    """How often who interrupts whom; see this file's text."""
    pairs: Counter[tuple[str, str]] = Counter()
    open_turns: list[Turn] = []
    for turn in sorted(turns, key=lambda turn: turn.start):
        open_turns = [other for other in open_turns if other.end > turn.start]
        for other in open_turns:
            cuts_in = other.speaker != turn.speaker and other.start < turn.start and turn.end > other.end
            if cuts_in and other.end - turn.start >= LEAST_OVERLAP_SECONDS:
                pairs[turn.speaker, other.speaker] += 1
        open_turns.append(turn)
    return pairs


def load(source: str) -> Diarization:
    """The result in a JSON file, on stdin (`-`), or of the job of that id."""
    if source == "-":
        return Diarization.from_json(json.load(sys.stdin))
    if Path(source).is_file():
        return Diarization.from_json(json.loads(Path(source).read_text()))
    record = diarize.records.get(source)
    if record is None or record.result is None:
        raise SystemExit(f"{source} is no file, and " + (f"that job is {record.state}" if record else "no job either"))
    return Diarization.from_json(record.result)


def as_json(diarization: Diarization) -> dict[str, Any]:
    """All that is known, for programs."""
    pairs = interruptions(diarization.segments)
    return {
        "audio_seconds": diarization.audio_seconds,
        "speakers": [asdict(one) for one in talk_times(diarization.segments)],
        "interruptions": [{"by": by, "of": of, "count": count} for (by, of), count in sorted(pairs.items())],
    }


def show(diarization: Diarization) -> None:
    """The same for people."""
    headings = ("SPEAKER", "SECONDS", "SHARE", "TURNS", "LONGEST", "OVERLAPPED", "INTERRUPTS", "INTERRUPTED")
    table = Table(*headings, box=None, pad_edge=False)
    for one in talk_times(diarization.segments):
        numbers = (f"{one.seconds:.1f}", f"{one.share:.0%}", str(one.turns), f"{one.longest_turn_seconds:.1f}")
        more = (f"{one.overlapped_seconds:.1f}", str(one.interrupts), str(one.interrupted))
        table.add_row(one.speaker, *numbers, *more)
    for column in table.columns[1:]:
        column.justify = "right"
    console = Console(markup=False, highlight=False)
    console.print(table)
    for (by, of), count in interruptions(diarization.segments).most_common():
        console.print(f"{by} interrupts {of}: {count}")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("source", help="a result as JSON, `-` for stdin, or a job's id")
    parser.add_argument("--json", action="store_true", help="for programs")
    arguments = parser.parse_args()
    diarization = load(arguments.source)
    if arguments.json:
        print(json.dumps(as_json(diarization), indent=2))
    else:
        show(diarization)


if __name__ == "__main__":
    main()
