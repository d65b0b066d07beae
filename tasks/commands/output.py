"""Where the command line's results go: to standard output or into files, in one of the formats."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from diarization.errors import InvalidJob
from diarization.formats import FORMATS
from diarization.turns import Diarization
from tasks.commands.completion import TABLE, formats, jobs_in
from tasks.commands.console import (
    as_json,
    complain,
    describe_state,
    json_line,
    make_console,
    printable,
    recording_name,
    turns_table,
)
from tasks.commands.refresh import is_screen
from tasks.commands.strips import strips
from tasks.record import JobRecord, State
from tasks.records import Records
from tasks.settings import current_settings

Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        "-f",
        help="json, rttm, srt, vtt, csv, labels, or table. Default: table on a terminal, else json.",
        show_default=False,
        autocompletion=formats,
    ),
]
"""The option of each command that prints results."""
Json = Annotated[bool, typer.Option("--json", help="For programs: one JSON object per line, times since 1970.")]
"""The option of each command that prints jobs."""


def ids_of(states: Iterable[State]) -> Any:
    """The argument of a command for jobs in one of these states, which the Tab key offers."""
    return typer.Argument(metavar="ID", help="Job ids, as submit prints them.", autocompletion=jobs_in(states))


def id_of(states: Iterable[State]) -> Any:
    """The same of a command for one job."""
    return typer.Argument(metavar="ID", help="The job's id, as submit prints it.", autocompletion=jobs_in(states))


class OutputError(Exception):
    """A result cannot be written. The message says where and why."""


@dataclass(frozen=True)
class Output:
    """How the results of one command are written.

    Attributes:
        format_name: A key of `FORMATS`, or `TABLE`.
        json_lines: Instead, each job as an object on a line of its own, its result in it.
        file: One result goes here.
        folder: Each result goes into a file here, named by its job's id.
    """

    format_name: str
    json_lines: bool = False
    file: Path | None = None
    folder: Path | None = None

    @classmethod
    def choose(
        cls,
        format_name: str | None,
        *,
        json_lines: bool,
        jobs: int = 1,
        file: Path | None = None,
        folder: Path | None = None,
    ) -> Output:
        """From a command's options; `jobs` is how many results there will be.

        Raises:
            InvalidJob: The options do not go together, or there is no such format.
            OutputError: The folder cannot be made.
        """
        to_terminal = not file and not folder and sys.stdout.isatty()
        name = format_name or (TABLE if to_terminal and not json_lines else "json")
        if name not in FORMATS and name != TABLE:
            raise InvalidJob(f"format {name[:40]!r} is not one of {', '.join([*FORMATS, TABLE])}")
        if name == TABLE and (file or folder):
            raise InvalidJob(f"the format {TABLE} is for the screen; into a file goes one of {', '.join(FORMATS)}")
        if json_lines and (format_name not in (None, "json") or file or folder):
            raise InvalidJob("--json writes lines to standard output: leave --format and -o out")
        if jobs > 1 and name not in ("json", TABLE) and not folder:
            raise InvalidJob(f"{jobs} results in {name} cannot share one stream: give -o DIR, or --json")
        if folder:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OutputError(f"{folder} cannot be made: {error.strerror}") from None
        # Several documents in one stream are told apart only where each stands on a line and names its job.
        return cls(name, json_lines or (name == "json" and jobs > 1 and not folder), file, folder)

    def deliver(self, records: Sequence[JobRecord]) -> bool:
        """Write the results there are, and say why there is none of the others. Whether all were there.

        Raises:
            OutputError: A file cannot be written.
        """
        for record in records:
            if record.state is State.DONE or self.json_lines:
                self.write(record)
        return self.explain(records)

    @staticmethod
    def explain(records: Sequence[JobRecord]) -> bool:
        """Say why there is no result, of each that has none. Whether all have one."""
        for record in records:
            if record.state.ended and record.state is not State.DONE:
                error = record.error or {}
                message = f"job {record.id}: {error.get('message', 'it ended without a word')}"
                complain(error.get("code", "unknown"), message, error.get("advice", ""))
            elif not record.state.ended:
                complain("not_ended", f"job {record.id} goes on ({describe_state(record)})", "Ask again later.")
        return all(record.state is State.DONE for record in records)

    def write(self, record: JobRecord) -> None:
        """Write the result of a job that is done; with `json_lines`, what there is of any other, too.

        Raises:
            OutputError: A file cannot be written.
        """
        if self.json_lines:
            print_line(json_line(as_json(record, with_result=True)))
            return
        if record.result is None:
            return
        diarization = Diarization.from_json(record.result)
        if self.format_name == TABLE:
            _show(record, diarization)
            return
        chosen = FORMATS[self.format_name]
        text = chosen.write(diarization, recording_name(record.shown))
        file = self.folder / f"{record.id}{chosen.suffix}" if self.folder else self.file
        if file is None:
            sys.stdout.write(text)
            return
        try:
            # newline: a format's own line ends stay as they are.
            file.write_text(text, encoding="utf-8", newline="")
        except OSError as error:
            raise OutputError(f"{file} cannot be written: {error.strerror}") from None
        print_line(str(file))


def show_jobs(
    records: Sequence[JobRecord], table: Callable[[Sequence[JobRecord], int], Table], nothing: str, *, json_lines: bool
) -> None:
    """Jobs on standard output: an object a line, or as `table` shows them on a console of so many columns."""
    if json_lines:
        for record in records:
            print_line(json_line(as_json(record)))
        return
    console = make_console()
    console.print(table(records, console.width) if records else nothing)


def find_jobs(ids: Sequence[str]) -> tuple[list[JobRecord], bool]:
    """The records of these jobs, and whether one of them is unknown (which is said on stderr)."""
    records = Records(current_settings()).get_many(ids)
    for job_id, record in zip(ids, records, strict=True):
        if record is None:
            complain_unknown(job_id)
    return [record for record in records if record], None in records


def complain_unknown(job_id: str) -> None:
    """The line on stderr for a job that there is not."""
    complain("unknown_job", f"there is no job {job_id}", "Jobs are forgotten QUEUE_RETENTION_DAYS after their end.")


def print_line(text: str) -> None:
    """A line for programs, as it is, to standard output."""
    sys.stdout.write(text + "\n")


def _show(record: JobRecord, diarization: Diarization) -> None:
    console = make_console()
    console.print(f"{printable(record.shown)} ({record.id})", style="bold", soft_wrap=True)
    if diarization.segments and is_screen(console):
        console.print(strips(diarization, console.width), "")
    console.print(turns_table(diarization) if diarization.segments else "nobody speaks")
    for warning in diarization.warnings:
        console.print(f"warning: {printable(warning)}", style="yellow", soft_wrap=True)
