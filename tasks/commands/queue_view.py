"""The fleet on a screen: what waits and runs, who works, and when all will be done."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tasks.commands.console import duration, local_time, printable, recording_name
from tasks.commands.queue_facts import Overflow, overflow_facts, standing, summary
from tasks.overflow.budget import Spend
from tasks.registry import WorkerFacts
from tasks.snapshot import RunningJob, Snapshot, WaitingJob

BAR_COLUMNS, SHORT_BAR_COLUMNS = 20, 10
ROOMY_COLUMNS, WIDE_COLUMNS = 100, 150
"""From here on there is room for whole bars, and for whole job ids."""
FEWEST_ROWS = 3
"""Of each table, however low the screen is."""


@dataclass(frozen=True)
class QueueView:
    """The fleet, for rich to draw: with bars and a clock as high as the screen is, and with all rows otherwise.

    Attributes:
        remark: What is to be known of the view itself, such as its age.
        bars: Whether there is a terminal for bars.
        clock: Whether it says when that was.
    """

    snapshot: Snapshot
    overflow: Overflow
    remark: str = ""
    bars: bool = False
    clock: bool = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw it: a hook of rich."""
        # Options that come through a Live know no height.
        width, height = options.max_width, console.height if self.bars and self.clock else None
        head = [*self._head(width), *self._facts()]
        workers = _kinds(self.snapshot) if self._many(height) else _each(self.snapshot)
        running = sorted(self.snapshot.running, key=lambda job: job.started_at)
        waiting = self.snapshot.waiting if self.bars else ()
        sections: list[tuple[int, Callable[[int], Table]]] = [
            (len(workers), lambda count: self._workers(workers, count)),
            (len(running), lambda count: self._running(running, count, width)),
            (len(waiting), lambda count: self._waiting(waiting, count, width)),
        ]
        sections = [(rows, make) for rows, make in sections if rows]
        wanted = [rows for rows, _ in sections]
        shown = wanted if height is None else share(height - len(head) - 2 * len(sections), wanted)
        yield from head
        for (_, make), count in zip(sections, shown, strict=True):
            yield Text()
            yield make(count)

    def _many(self, height: int | None) -> bool:
        """Whether there are too many workers to show each."""
        return height is not None and len(self.snapshot.workers) > max(FEWEST_ROWS, height // 3)

    def _head(self, width: int) -> list[Text]:
        if not self.clock:
            return []
        word, style = standing(self.snapshot)
        moment = local_time(self.snapshot.now)
        line = Text.assemble((f" {word} ", f"reverse {style}"), " ", "diarize-queue", style="bold")
        if self.bars:
            line.append(" " * max(1, width - line.cell_len - len(moment)))
        line.append(moment if self.bars else f" {moment}", style="not bold")
        remark = [Text(self.remark, style="bold red", no_wrap=True, overflow="ellipsis")] if self.remark else []
        return [line, *remark] if not self.bars else [line, *(remark or [Text()])]

    def _facts(self) -> list[Text | Table]:
        facts = summary(self.snapshot) | overflow_facts(self.overflow)
        lines: list[Text | Table] = []
        for name, value in facts.items():
            if not value:
                continue
            style = "bold yellow" if name.isupper() else ""
            text = Text.assemble((f"{name:<11}", style or ("dim" if self.bars else "")), (value, style))
            if self.bars:
                text.no_wrap, text.overflow = True, "ellipsis"
                text.highlight_regex(r"\b\d+([.,:]\d+)*", "bold")
            lines.append(text)
            if name == "budget" and self.bars and self.overflow.today.limit_usd:
                lines.append(_budget_bar(self.overflow.today))
        return lines

    def _workers(self, rows: Sequence[_Row], count: int) -> Table:
        table = _table("WORKER", "ROLE", "DEVICE", "JOBS", "AN HOUR OF AUDIO TAKES")
        for row in rows[:count]:
            jobs = Text(row.jobs, row.style if self.bars else "")
            table.add_row(_cut(row.name), row.role, _cut(row.device), jobs, _cut(row.takes))
        return _with_more(table, len(rows) - count)

    def _running(self, rows: Sequence[RunningJob], count: int, width: int) -> Table:
        wide = not self.bars or width >= WIDE_COLUMNS
        table = _table("JOB", *(("RECORDING",) if self.bars else ("SINCE",)), "STAGE", "LEFT", "WORKER")
        for job in rows[:count]:
            left = self.snapshot.seconds_left.get(job.id)
            says = Text("worker is silent", "red" if self.bars else "") if left is None else Text(duration(left))
            second = _name(job, width) if self.bars else local_time(job.started_at)
            table.add_row(_id(job.id, wide), second, self._stage(job, width), says, _cut(printable(job.worker)))
        return _with_more(table, len(rows) - count)

    def _waiting(self, rows: Sequence[WaitingJob], count: int, width: int) -> Table:
        table = _table("NEXT", "RECORDING", "LENGTH", "DONE BY", "DEADLINE")
        finish = self.snapshot.finish_in_seconds
        for job in rows[:count]:
            in_seconds = finish.get(job.id, math.inf)
            late = job.local and self.snapshot.now + in_seconds > job.deadline_at
            done_by = local_time(self.snapshot.now + in_seconds) if math.isfinite(in_seconds) else "not known"
            about = "" if job.audio_seconds is not None else "about "
            table.add_row(
                _id(job.id, width >= WIDE_COLUMNS),
                _name(job, width),
                about + duration(self.snapshot.expected_audio_seconds(job)),
                Text(done_by, "yellow" if late else ""),
                local_time(job.deadline_at),
            )
        return _with_more(table, max(len(rows), self.snapshot.waiting_jobs) - count)

    def _stage(self, job: RunningJob, width: int) -> Text | Table:
        if not job.stage:
            return Text("")
        stage = printable(job.stage)
        if not self.bars:
            return Text(f"{stage} {job.percent:.0f} %")
        grid = Table.grid(padding=(0, 1, 0, 0))
        bar_columns = BAR_COLUMNS if width >= ROOMY_COLUMNS else SHORT_BAR_COLUMNS
        for columns in (12, bar_columns, 5):
            grid.add_column(width=columns, no_wrap=True, overflow="ellipsis")
        grid.add_row(
            stage,
            ProgressBar(100, job.percent, width=bar_columns, complete_style="cyan", finished_style="cyan"),
            f"{job.percent:.0f} %",
        )
        return grid


@dataclass(frozen=True)
class _Row:
    """A worker, or several that are alike, in words."""

    name: str
    role: str
    device: str
    jobs: str
    takes: str
    style: str = ""


def share(rows: int, wanted: Sequence[int]) -> list[int]:
    """How many of so many rows each table gets: what it wants, where there is room, else an equal part of what is left.

    A table that is cut has one row less: it says how much more there is.
    """
    given = [0] * len(wanted)
    left = max(rows, FEWEST_ROWS * len(wanted))
    for place, (want, index) in enumerate(sorted((want, index) for index, want in enumerate(wanted))):
        given[index] = min(want, left // (len(wanted) - place))
        left -= given[index]
    return [count if count == want else max(1, count - 1) for count, want in zip(given, wanted, strict=True)]


def _each(snapshot: Snapshot) -> list[_Row]:
    return [_row(snapshot, [name], printable(name)) for name in sorted(snapshot.workers)]


def _kinds(snapshot: Snapshot) -> list[_Row]:
    """Workers that are alike, a row for each kind."""

    def kind(name: str) -> tuple[str, str, bool]:
        facts = snapshot.workers[name]
        return facts.role, facts.gpu or facts.device, bool(snapshot.drain_state(name))

    alike = groupby(sorted(snapshot.workers, key=kind), key=kind)
    groups = [list(names) for _, names in alike]
    return [_row(snapshot, names, f"{len(names):,} workers" if len(names) > 1 else names[0]) for names in groups]


def _row(snapshot: Snapshot, names: Sequence[str], called: str) -> _Row:
    facts: list[WorkerFacts] = [snapshot.workers[name] for name in names]
    running = sum(job.worker in names for job in snapshot.running)
    children = sum(one.children for one in facts)
    speeds = [snapshot.seconds_per_audio_hour(name) for name in names]
    measured = any(one.seconds_per_audio_hour is not None for one in facts)
    mean = duration(len(speeds) / sum(1 / speed for speed in speeds))
    drain = snapshot.drain_state(names[0])
    drain = drain if len(names) == 1 or not drain else f"drained or draining, {running} running"
    style = "yellow" if drain else "green" if running else "dim"
    takes = mean if measured else f"about {mean}, not measured yet"
    device = printable(facts[0].gpu or facts[0].device)
    return _Row(called, facts[0].role, device, drain or f"{running} of {children}", takes, style)


def _budget_bar(today: Spend) -> Table:
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(width=10)
    grid.add_column(width=2 * BAR_COLUMNS)
    used = today.spent_usd + today.reserved_usd
    style = "red" if today.shut or used > 0.9 * today.limit_usd else "green"
    grid.add_row("", ProgressBar(today.limit_usd, used, complete_style=style, finished_style=style))
    return grid


def _id(job_id: str, whole: bool) -> str:
    shown = printable(job_id)
    return shown if whole or len(shown) <= 9 else shown[:8] + "…"


def _name(job: RunningJob | WaitingJob, width: int) -> Text:
    """A recording's name, as much as there is room for."""
    text = _cut(printable(recording_name(job.shown)))
    text.truncate(max(12, width // 5), overflow="ellipsis")
    return text


def _cut(text: str) -> Text:
    """What gives way where the screen is narrow."""
    return Text(text, no_wrap=True, overflow="ellipsis")


def _with_more(table: Table, more: int) -> Table:
    if more > 0:
        table.add_row(Text(f"… {more:,} more", "dim"))
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in columns:
        # rich takes from these first; the cells of the others stay whole.
        gives_way = name in ("WORKER", "RECORDING", "DEVICE", "AN HOUR OF AUDIO TAKES")
        justify: Literal["left", "right"] = "right" if name in ("LEFT", "LENGTH") else "left"
        table.add_column(name, no_wrap=not gives_way, min_width=8 if gives_way else None, justify=justify)
    return table
