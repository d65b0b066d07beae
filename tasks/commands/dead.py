"""The commands `dead list`, `dead show`, `dead replay` and `dead discard`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from diarization.errors import InvalidJob
from tasks.commands.completion import jobs_in
from tasks.commands.console import as_json, complain, dead_table, job_details, json_line, make_console
from tasks.commands.output import Json, id_of, print_line, show_jobs
from tasks.record import JobRecord, State
from tasks.records import Records
from tasks.settings import current_settings

if TYPE_CHECKING:
    from tasks.producer import SubmittedTask

app = typer.Typer(
    help="Jobs that were given up: look at them, replay them once the cause is gone, or discard them.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ALL = 1_000_000

Code = Annotated[str | None, typer.Option(help="Only those of this error code, such as `device_lost`.")]
SomeIds = Annotated[
    list[str] | None,
    typer.Argument(metavar="ID", help="Job ids. Or give --all.", autocompletion=jobs_in([State.DEAD])),
]
All = Annotated[bool, typer.Option("--all", help="All dead letters; with --code, all of that code.")]


@app.command("list", epilog="Example: diarize-queue dead list --code recording_fetch_failed")
def list_dead(
    code: Code = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 50,
    json_lines: Json = False,
) -> None:
    """List dead letters, the newest first."""
    found = _find(Records(current_settings()), code, limit)
    show_jobs(found, dead_table, "no dead letters", json_lines=json_lines)


@app.command(epilog="Example: diarize-queue dead show 4f3c2a9e-5b1d-4c56-9a57-0d4f5e6a7b8c")
def show(job_id: Annotated[str, id_of([State.DEAD])], json_lines: Json = False) -> None:
    """Show a dead letter: its error, what to do about it, its attempts and its lives before."""
    record = _dead(Records(current_settings()), job_id)
    if json_lines:
        print_line(json_line(as_json(record)))
    else:
        make_console().print(job_details(record), soft_wrap=True)


@app.command(epilog="Example: diarize-queue dead replay --all --code device_lost")
def replay(ids: SomeIds = None, every: All = False, code: Code = None, json_lines: Json = False) -> None:
    """Give dead letters a new life: all attempts anew, first in line."""
    from tasks.dead_letters import replay as act  # noqa: PLC0415 - Celery takes half a second to import

    _each(ids, every, code, act, "replayed", json_lines=json_lines)


@app.command(epilog="Example: diarize-queue dead discard 4f3c2a9e-5b1d-4c56-9a57-0d4f5e6a7b8c")
def discard(
    ids: SomeIds = None,
    every: All = False,
    code: Code = None,
    yes: Annotated[bool, typer.Option("--yes", help="With --all: do not ask.")] = False,
    json_lines: Json = False,
) -> None:
    """Forget dead letters for good."""
    if every and not yes:
        typer.confirm("Discard them all? They cannot be replayed then.", abort=True, err=True)
    from tasks.dead_letters import discard as act  # noqa: PLC0415 - Celery takes half a second to import

    _each(ids, every, code, act, "discarded", json_lines=json_lines)


def _each(
    ids: list[str] | None,
    every: bool,
    code: str | None,
    act: Callable[[SubmittedTask, JobRecord], None],
    done: str,
    *,
    json_lines: bool,
) -> None:
    """Do `act` to each of the dead letters that are meant, and say so; fails where one of them could not be."""
    if bool(ids) == every or (code and not every):
        raise InvalidJob("give job ids, or --all, with --code or without")
    from tasks.diarize import diarize  # noqa: PLC0415 - Celery takes half a second to import

    records = diarize.records
    found = _find(records, code, ALL) if every else [_dead(records, job_id) for job_id in ids or []]
    failed = False
    for record in found:
        try:
            act(diarize, record)
        except InvalidJob as error:
            failed = True
            complain(error.code, error.message)
            continue
        print_line(json_line({"id": record.id, "outcome": done}) if json_lines else f"{record.id} {done}")
    if failed:
        raise typer.Exit(1)
    if not found:
        complain("no_dead_letters", "there are none")


def _find(records: Records, code: str | None, limit: int) -> list[JobRecord]:
    dead = records.newest(State.DEAD, ALL if code else limit)
    return [record for record in dead if code in (None, (record.error or {}).get("code"))][:limit]


def _dead(records: Records, job_id: str) -> JobRecord:
    record = records.get(job_id)
    if record is None or record.state is not State.DEAD:
        raise InvalidJob(f"job {job_id} is no dead letter: {record.state if record else 'there is no such job'}")
    return record
