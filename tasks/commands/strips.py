"""Who speaks when as a person sees it on a terminal: a line of blocks for each speaker, beside each other in time."""

from __future__ import annotations

from itertools import cycle

from rich.table import Table
from rich.text import Text

from diarization.turns import Diarization, Turn
from tasks.commands.console import duration, printable

BLOCKS = " ▁▂▃▄▅▆▇█"
"""How much of its slice of time somebody talks, from nothing to all."""
COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "red")
NAME_COLUMNS, FEWEST_COLUMNS = 16, 10


def strips(diarization: Diarization, width: int) -> Table:
    """A strip for each speaker, as wide as `width` columns let it be, with how long they talk."""
    columns = max(FEWEST_COLUMNS, width - NAME_COLUMNS - 24)
    seconds = max([0.001, diarization.audio_seconds, *(turn.end for turn in diarization.segments)])
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(max_width=NAME_COLUMNS, no_wrap=True, overflow="ellipsis")
    table.add_column(width=columns, no_wrap=True)
    for _ in range(2):
        table.add_column(no_wrap=True, justify="right")
    for speaker, colour in zip(diarization.speakers, cycle(COLOURS), strict=False):
        turns = [turn for turn in diarization.segments if turn.speaker == speaker.speaker]
        filled = "".join(BLOCKS[round(share * (len(BLOCKS) - 1))] for share in shares(turns, seconds, columns))
        talks = speaker.total_seconds / seconds
        name = Text(printable(speaker.speaker), colour)
        table.add_row(name, Text(filled, colour), duration(speaker.total_seconds), f"{talks:.0%}")
    end = duration(seconds)
    table.add_row("", Text("0" + end.rjust(columns - 1), "dim"), "", "")
    return table


def shares(turns: list[Turn], seconds: float, columns: int) -> list[float]:
    """Of each of so many equal slices of the recording, the share in which somebody talks; any talk counts a little.

    Args:
        turns: Of one speaker, who does not talk over themselves.
        seconds: The recording's length.
        columns: How many slices.
    """
    talk = [0.0] * columns
    width = seconds / columns
    for turn in turns:
        first, last = int(turn.start / width), min(columns - 1, int(turn.end / width))
        for column in range(first, last + 1):
            talk[column] += max(0.0, min(turn.end, (column + 1) * width) - max(turn.start, column * width))
    least = 1 / (len(BLOCKS) - 1)
    return [min(1.0, max(least, one / width)) if one > 0 else 0.0 for one in talk]
