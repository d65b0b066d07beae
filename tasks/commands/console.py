"""What people see of jobs on a terminal, and what programs read instead.

Text from outside (a URL, an error of a foreign server) is printed without control characters, and never taken for
markup.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any
from unicodedata import category
from urllib.parse import unquote, urlsplit

from rich.console import Console
from rich.table import Table
from rich.text import Text

from diarization.turns import Diarization
from tasks.record import JobRecord, State

STATE_STYLES: Mapping[State, str] = {
    State.QUEUED: "",
    State.DUE: "yellow",
    State.RUNNING: "cyan",
    State.DONE: "green",
    State.DEAD: "red",
    State.CANCELLED: "dim",
    State.EXPIRED: "yellow",
}

# Wide enough for any table of ours: what is piped is neither cut nor wrapped.
_UNBOUNDED_COLUMNS = 100_000
_ID_COLUMNS = 36


def make_console(*, stderr: bool = False) -> Console:
    """A console that takes text as it is, colours it on a terminal only, and cuts nothing elsewhere."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _UNBOUNDED_COLUMNS
    return Console(stderr=stderr, width=width, markup=False, emoji=False, highlight=False, soft_wrap=False)


def printable(text: str) -> str:
    """`text` on one line, without what a terminal would obey."""
    return "".join(" " if category(character) in ("Cc", "Cf", "Zl", "Zp", "Cs") else character for character in text)


def as_json(record: JobRecord, *, with_result: bool = False) -> dict[str, Any]:
    """A job for programs: keys that stay, times in seconds since 1970, None where there is nothing."""
    view: dict[str, Any] = {
        "id": record.id,
        "state": str(record.state),
        "recording": record.shown,
        "options": dict(record.options),
        "stage": record.stage,
        "percent": record.percent if record.stage else None,
        "stage_seconds": dict(record.seconds_by_stage),
        "seconds_left": None if (left := record.seconds_left) is None else round(left, 1),
        "audio_seconds": record.audio_seconds,
        "attempts": record.attempts,
        "follows": record.follows,
        "worker": record.worker,
        "submitted_at": record.submitted_at,
        "started_at": record.started_at,
        "ended_at": record.ended_at,
        "due_at": record.due_at,
        "expires_at": record.expires_at,
        "deadline_at": record.deadline_at,
        "error": dict(record.error) if record.error else None,
        "last_error": dict(record.last_error) if record.last_error else None,
        "history": [dict(life) for life in record.history],
        "webhook_told_at": record.webhook_told_at,
        "webhook_error": record.webhook_error,
    }
    return {**view, "result": record.result} if with_result else view


def json_line(value: Mapping[str, Any]) -> str:
    """One object on one line."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def recording_name(shown: str) -> str:
    """The name of a recording: its file's, without suffix."""
    return PurePosixPath(unquote(urlsplit(shown).path)).stem or "recording"


def local_time(seconds: float, now: datetime | None = None) -> str:
    """A time in seconds since 1970 as people here read it; with the day where that is not today."""
    moment = datetime.fromtimestamp(seconds).astimezone()
    today = (now or datetime.now()).astimezone().date()
    return moment.strftime("%H:%M:%S" if moment.date() == today else "%d %b %H:%M")


def duration(seconds: float) -> str:
    """Seconds as people read them: `8.25 s`, `1:23 min`, `2:05:09 h`."""
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02} min" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{rest:02} h"


def error_text(error: Mapping[str, str] | None) -> str:
    """`<code>: <message> <advice>` on one line."""
    error = error or {}
    message = error.get("message", "").rstrip(". \n")
    return printable(" ".join(filter(None, (f"{error.get('code', 'unknown')}: {message}.", error.get("advice")))))


def complain(code: str, message: str, advice: str = "") -> None:
    """The one line on stderr that says what went wrong."""
    text = error_text({"code": code, "message": message, "advice": advice})
    make_console(stderr=True).print(f"error: {text}", soft_wrap=True)


def describe_state(record: JobRecord) -> str:
    """Where a job stands, in a few words."""
    if record.state is State.RUNNING and record.stage:
        left = record.seconds_left
        says = "" if left is None else f", {duration(left)} left"
        return f"running: {record.stage} {record.percent:.0f} %{says}"
    if record.state is State.DUE and record.follows:
        return f"waits for job {printable(record.follows)}"
    if record.state is State.DUE and record.due_at:
        return f"due at {local_time(record.due_at)}"
    return str(record.state)


def jobs_table(records: Iterable[JobRecord], width: int) -> Table:
    """Jobs, a line each, for a console of `width` columns; of a long URL the end is what is shown."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("JOB", "STATE", "SINCE", "RECORDING"):
        table.add_column(name, no_wrap=True)
    # A stage says that the job runs.
    rows = [(job, describe_state(job).removeprefix("running: "), local_time(since(job))) for job in records]
    states = max((len(state) for _, state, _ in rows), default=0)
    times = max((len(time) for *_, time in rows), default=0)
    room = max(8, width - _ID_COLUMNS - states - times - 6)
    for record, state, moment in rows:
        shown = printable(record.shown)
        cut = shown if len(shown) <= room else "…" + shown[1 - room :]
        table.add_row(printable(record.id), state, moment, cut, style=STATE_STYLES[record.state])
    return table


def job_details(record: JobRecord, *, stages: bool = True) -> Text:
    """All about one job, a fact a line; long ones are left to the terminal to wrap, so that they can be copied.

    Args:
        record: The job's.
        stages: Whether that includes what each stage took.
    """
    took = ", ".join(f"{printable(stage)} {duration(seconds)}" for stage, seconds in record.seconds_by_stage.items())
    facts = {
        "job": printable(record.id),
        "state": describe_state(record),
        "recording": printable(record.shown),
        "options": ", ".join(f"{name}={value}" for name, value in record.options.items()),
        "length": duration(record.audio_seconds) if record.audio_seconds else "",
        "submitted": local_time(record.submitted_at),
        "started": local_time(record.started_at) if record.started_at else "",
        "ended": local_time(record.ended_at) if record.ended_at else "",
        "took": duration(record.ended_at - record.started_at) if record.ended_at and record.started_at else "",
        "expires": local_time(record.expires_at) if record.expires_at and not record.state.ended else "",
        "deadline": local_time(record.deadline_at) if record.deadline_at and not record.state.ended else "",
        "attempts": str(record.attempts),
        "stages": took if stages else "",
        "worker": printable(record.worker or ""),
        "error": error_text(record.error) if record.error else "",
        "last error": error_text(record.last_error) if record.last_error and record.last_error != record.error else "",
        "history": "; ".join(map(_past_life, record.history)),
        "webhook": _webhook(record),
    }
    lines = [
        Text(f"{name:<11}").append(value, STATE_STYLES[record.state] if name == "state" else "")
        for name, value in facts.items()
        if value
    ]
    return Text("\n").join(lines)


def _webhook(record: JobRecord) -> str:
    """How its delivery stands; the URL may hold a token, and is not shown."""
    if record.webhook_told_at:
        return f"taken {local_time(record.webhook_told_at)}"
    if record.webhook is None:
        return ""
    tried = f"not taken {record.webhook_tries} times: {printable(record.webhook_error or '')}"
    return tried if record.webhook_tries else "to be told of the end"


def _past_life(life: Mapping[str, Any]) -> str:
    ended_at = life.get("ended_at")
    when = f"until {local_time(ended_at)}, " if ended_at else ""
    return f"{when}{life.get('attempts', 0)} attempts: {error_text(life.get('error'))}"


def dead_table(records: Iterable[JobRecord], width: int) -> Table:
    """Dead letters, a line each, for a console of `width` columns; of a long message the beginning is what is shown."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("JOB", "ENDED", "TRIES", "ERROR", "RECORDING"):
        table.add_column(
            name, no_wrap=True, overflow="ellipsis", max_width=max(20, width // 4) if name > "ENDED" else None
        )
    for record in records:
        error, ended = record.error or {}, local_time(record.ended_at or record.submitted_at)
        says = printable(f"{error.get('code', 'unknown')}: {error.get('message', '')}")
        table.add_row(printable(record.id), ended, str(record.attempts), says, printable(recording_name(record.shown)))
    return table


def make_table(first: str, *numbers: str) -> Table:
    """An empty table: a column of names, then columns of numbers."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column(first)
    for number in numbers:
        table.add_column(number, justify="right")
    return table


def turns_table(diarization: Diarization) -> Table:
    """Who spoke when."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column("START", justify="right")
    table.add_column("END", justify="right")
    table.add_column("SPEAKER")
    for turn in diarization.segments:
        table.add_row(clock(turn.start), clock(turn.end), printable(turn.speaker))
    return table


def speakers_table(diarization: Diarization) -> Table:
    """How long each speaker talks, and which share of the recording that is."""
    table = make_table("SPEAKER", "TALKS", "SHARE")
    for speaker in diarization.speakers:
        share = speaker.total_seconds / diarization.audio_seconds if diarization.audio_seconds else 0.0
        table.add_row(printable(speaker.speaker), duration(speaker.total_seconds), f"{share:.0%}")
    return table


def clock(seconds: float) -> str:
    """A place in a recording: `1:02.35`, `1:02:03.40`."""
    hundredths = round(seconds * 100)
    minutes, rest = divmod(hundredths, 6000)
    tail = f"{rest // 100:02}.{rest % 100:02}"
    return f"{minutes // 60}:{minutes % 60:02}:{tail}" if minutes >= 60 else f"{minutes}:{tail}"


def since(record: JobRecord) -> float:
    """When the job came to its state, in seconds since 1970, as far as the record knows."""
    started_at = None if record.state is State.QUEUED else record.started_at
    return record.ended_at or started_at or record.submitted_at
