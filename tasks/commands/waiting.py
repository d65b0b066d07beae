"""Waiting for jobs, and showing meanwhile how they go on."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from diarization.errors import QueueUnavailable
from tasks.commands.console import describe_state, error_text, local_time, printable, recording_name
from tasks.record import JobRecord, State
from tasks.records import Records

POLL_SECONDS = 0.25
OUTAGE_SECONDS = 60.0
"""A wait lives through a Redis that is away for so long."""


MOST_BARS = 10
"""Of more jobs those that run have a bar, and all together one."""


class JobLost(Exception):
    """A job that was there has no record any more. The message names it."""


def wait_for(
    records: Records,
    ids: Sequence[str],
    timeout_seconds: float | None,
    display: JobsDisplay,
    check: Callable[[], None] = lambda: None,
) -> list[JobRecord]:
    """The jobs' records, in the order of `ids`, once all have ended or the time is up.

    `check` is called all the while, and may raise to end the wait.

    Raises:
        QueueUnavailable: Redis was away for longer than `OUTAGE_SECONDS`.
        JobLost: There is no record of one of the jobs.
    """
    deadline = time.monotonic() + (float("inf") if timeout_seconds is None else timeout_seconds)
    latest: dict[str, JobRecord] = {}
    lost_at: float | None = None
    while True:
        check()
        try:
            _look(records, ids, latest)
            lost_at = None
        except QueueUnavailable:
            if lost_at is None:
                display.note("Redis does not answer; still waiting")
                lost_at = time.monotonic()
            if time.monotonic() > min(deadline, lost_at + OUTAGE_SECONDS):
                raise
        display.show(latest.values())
        if lost_at is None and (_all_ended(latest) or time.monotonic() > deadline):
            return [latest[job_id] for job_id in ids]
        time.sleep(POLL_SECONDS)


def _all_ended(records: Mapping[str, JobRecord]) -> bool:
    return all(record.state.ended for record in records.values())


def _look(records: Records, ids: Sequence[str], latest: dict[str, JobRecord]) -> None:
    """Read what has not ended anew."""
    wanted = [job_id for job_id in ids if job_id not in latest or not latest[job_id].state.ended]
    for job_id, record in zip(wanted, records.get_many(wanted), strict=True):
        if record is None:
            raise JobLost(f"the record of job {job_id} is gone: Redis lost it, or it is past its retention")
        latest[job_id] = record


class JobsDisplay:
    """Shows on stderr how jobs go on: bars on a terminal, elsewhere a line for each change of a state."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._sum: TaskID | None = None
        self._states: dict[str, tuple[State, int]] = {}
        if console.file.isatty() and not console.is_dumb_terminal:
            self._bars = Progress(
                TextColumn("{task.fields[name]}"),
                BarColumn(bar_width=24),
                TextColumn("{task.description}"),
                TimeElapsedColumn(),
                console=console,
            )

    def __enter__(self) -> Self:
        if self._bars:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars:
            self._bars.stop()

    def show(self, records: Collection[JobRecord]) -> None:
        """Show where these jobs stand now; all of them each time."""
        if self._bars and len(records) > MOST_BARS:
            self._show_many(self._bars, records)
            return
        for record in records:
            if self._bars:
                self._move_bar(self._bars, record)
            elif self._states.get(record.id) != (record.state, record.attempts):
                self._states[record.id] = (record.state, record.attempts)
                self._console.print(_change(record), soft_wrap=True)

    def note(self, text: str) -> None:
        """Say something beside the bars."""
        self._console.print(printable(text), soft_wrap=True)

    def _move_bar(self, bars: Progress, record: JobRecord) -> None:
        if record.id not in self._tasks:
            name = f"{record.id[:8]} {printable(recording_name(record.shown))[-20:]}"
            self._tasks[record.id] = bars.add_task("", name=name, total=None)
            if self._sum is None:
                self.note(f"{record.id} {record.shown}")
        task = self._tasks[record.id]
        total = 100.0 if record.state.ended or (record.state is State.RUNNING and record.percent) else None
        completed = 100.0 if record.state.ended else record.percent
        bars.update(task, total=total, completed=completed, description=describe_state(record))
        if record.state.ended:
            bars.stop_task(task)

    def _show_many(self, bars: Progress, records: Collection[JobRecord]) -> None:
        """One bar for all, and one for each that runs, as far as the screen has room."""
        if self._sum is None:
            self._sum = bars.add_task("", name=f"{len(records):,} jobs".ljust(29), total=len(records))
        counts = Counter(record.state for record in records)
        says = ", ".join(f"{counts[state]:,} {state}" for state in State if counts[state])
        bars.update(self._sum, completed=sum(counts[state] for state in State if state.ended), description=says)
        running = [record for record in records if record.state is State.RUNNING]
        shown = running[: max(1, min(MOST_BARS, self._console.height - 3))]
        for job_id in self._tasks.keys() - {record.id for record in shown}:
            bars.remove_task(self._tasks.pop(job_id))
        for record in shown:
            self._move_bar(bars, record)


def _change(record: JobRecord) -> str:
    what = str(record.state)
    if record.state is State.RUNNING and record.attempts > 1:
        what += f" (attempt {record.attempts})"
    if record.state is State.DUE:
        what = describe_state(record)
        what += f" ({error_text(record.last_error)})" if record.last_error else ""
    return f"{local_time(time.time())} {record.id} {what} {printable(record.shown)}"
