"""One job on a screen: all its facts, and a bar for each stage."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from diarization.diarizer import STAGES
from tasks.commands.console import duration, job_details, printable
from tasks.record import JobRecord, State

BAR_COLUMNS = 40


@dataclass(frozen=True)
class StageRow:
    """A stage of a job's latest attempt.

    Attributes:
        share: How much of its bar is filled, 0 to 1: what is done of it or, of a job that has ended, its share of the
            time; None where that is not known.
        seconds: How long it took, or has taken so far; None before it begins.
        ended: Whether the job has.
    """

    stage: str
    share: float | None
    seconds: float | None
    ended: bool = False


def stage_rows(record: JobRecord, now: float) -> list[StageRow]:
    """The stages of a job that runs or has run, in order; none of one that waits.

    Args:
        record: The job's.
        now: The moment, in seconds since 1970.
    """
    over = record.seconds_by_stage
    if record.state.ended:
        total = math.fsum(over.values())
        return [StageRow(stage, took / total if total else 0.0, took, ended=True) for stage, took in over.items()]
    return list(_running_rows(record, now)) if record.state is State.RUNNING and record.stage else []


def _running_rows(record: JobRecord, now: float) -> Iterator[StageRow]:
    over, current = record.seconds_by_stage, record.stage or ""
    for stage, took in over.items():
        yield StageRow(stage, 1.0, took)
    so_far = max(0.0, now - (record.started_at or now) - math.fsum(over.values()))
    # Of a provider's stages nothing more is known than that they last.
    yield StageRow(current, record.percent / 100 if current in STAGES else None, so_far)
    if current in STAGES:
        for stage in STAGES[STAGES.index(current) + 1 :]:
            yield StageRow(stage, 0.0, None)


@dataclass(frozen=True)
class JobView:
    """A job, for rich to draw: facts and, on a terminal, bars.

    Attributes:
        remark: What is to be known of the view itself, such as its age.
        bars: Whether there is a terminal for bars.
    """

    record: JobRecord
    remark: str = ""
    bars: bool = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw it: a hook of rich."""
        rows = stage_rows(self.record, time.time()) if self.bars else []
        if self.remark:
            yield Text(printable(self.remark), "bold red")
        yield job_details(self.record, stages=not rows)
        if rows:
            yield Text()
            yield _bars(rows, options.max_width)
            left = self.record.seconds_left
            if left is not None:
                yield Text(f"{'':<14}about {duration(left)} left", "dim")


def _bars(rows: list[StageRow], width: int) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    bar_columns = max(10, min(BAR_COLUMNS, width - 40))
    for columns in (12, bar_columns):
        grid.add_column(width=columns, no_wrap=True, overflow="ellipsis")
    for columns in (4, 10):
        grid.add_column(width=columns, no_wrap=True, justify="right")
    for row in rows:
        colour = "green" if row.ended or row.share == 1 else "cyan"
        bar = ProgressBar(
            1.0, row.share or 0.0, bar_columns, row.share is None, complete_style=colour, finished_style=colour
        )
        percent = "" if row.share is None or row.seconds is None else f"{row.share:.0%}"
        seconds = "" if row.seconds is None else duration(row.seconds)
        name = Text(printable(row.stage), "" if row.seconds is not None else "dim")
        grid.add_row(name, bar, percent, seconds)
    return grid
