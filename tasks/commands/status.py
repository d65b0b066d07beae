"""The command `status`."""

from __future__ import annotations

import time
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from tasks.commands import completion
from tasks.commands.console import as_json, describe_state, json_line, local_time, make_console, printable
from tasks.commands.job_view import JobView
from tasks.commands.output import Json, find_jobs, ids_of, print_line
from tasks.commands.refresh import LEAST_SECONDS, is_screen, watch
from tasks.commands.waiting import JobLost
from tasks.record import JobRecord, State
from tasks.records import Records
from tasks.registry import Registry
from tasks.server import connect
from tasks.settings import current_settings

DONE, FAILED = 0, 1
SILENT = "its worker is silent: any other one takes the job over"


def status(
    ids: Annotated[list[str], ids_of(completion.ANY)],
    watched: Annotated[
        bool,
        typer.Option(
            "--watch",
            "-w",
            help="Follow one job to its end, with a bar for each stage. Exit code 0 where it is done, else 1.",
        ),
    ] = False,
    every: Annotated[
        float | None,
        typer.Option(min=LEAST_SECONDS, max=3600, help="With --watch: so many seconds between looks. Default: 0.5."),
    ] = None,
    json_lines: Json = False,
) -> None:
    """Show where jobs stand; on a terminal with a bar for each stage."""
    if every is not None and not watched:
        raise typer.BadParameter("--every goes with --watch")
    if watched and len(ids) != 1:
        raise typer.BadParameter("--watch follows one job: give one ID")
    found, unknown = find_jobs(ids)
    console = make_console()
    if watched and found:
        record = _follow(console, found[0].id, every or 0.5, json_lines=json_lines)
        raise typer.Exit(DONE if record.state is State.DONE else FAILED)
    silent = set() if json_lines else _silent(_registry(), found)
    for number, record in enumerate(found):
        if json_lines:
            print_line(json_line(as_json(record)))
            continue
        if number:
            console.print()
        console.print(JobView(record, SILENT if record.id in silent else "", bars=is_screen(console)), soft_wrap=True)
    raise typer.Exit(FAILED if unknown else DONE)


def _registry() -> Registry:
    settings = current_settings()
    return Registry(connect(settings, patient=False), settings)


def _silent(registry: Registry, records: list[JobRecord]) -> set[str]:
    """The ids of those whose workers have died: while no other one lives, their records say `running`.

    Raises:
        QueueUnavailable: Redis cannot be reached.
    """
    running = [record for record in records if record.state is State.RUNNING]
    alive = registry.alive() if running else {}
    return {record.id for record in running if record.worker not in alive}


def _follow(console: Console, job_id: str, every_seconds: float, *, json_lines: bool) -> JobRecord:
    """Show the job until it has ended; its record then."""
    records, registry, said = Records(current_settings()), _registry(), ""

    def read() -> tuple[JobRecord, str]:
        record = records.get(job_id)
        if record is None:
            raise JobLost(f"the record of job {job_id} is gone: Redis lost it, or it is past its retention")
        return record, SILENT if _silent(registry, [record]) else ""

    def draw(seen: tuple[JobRecord, str], remark: str) -> JobView | Text | None:
        nonlocal said
        record, silent = seen
        if is_screen(console) and not json_lines:
            return JobView(record, remark or silent, bars=True)
        says = remark or (json_line(as_json(record)) if json_lines else silent or printable(describe_state(record)))
        if says == said or (remark and json_lines):
            return None
        said = says
        return Text(says if json_lines else f"{local_time(time.time())} {says}")

    record, _ = watch(console, read, draw, every_seconds, until=lambda seen: seen[0].state.ended)
    if is_screen(console) and not json_lines:
        console.print(JobView(record, bars=True), soft_wrap=True)
    return record
