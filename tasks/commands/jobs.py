"""The commands `list`, `cancel` and `delete`."""

from __future__ import annotations

from typing import Annotated

import typer

from diarization.errors import InvalidJob
from tasks.commands import completion
from tasks.commands.console import complain, jobs_table, json_line
from tasks.commands.output import Json, complain_unknown, ids_of, print_line, show_jobs
from tasks.record import State
from tasks.records import Records
from tasks.settings import current_settings

DONE, FAILED = 0, 1


def list_jobs(
    state: Annotated[State | None, typer.Option(help="Only jobs in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 20,
    json_lines: Json = False,
) -> None:
    """List jobs, those that changed last first."""
    records = Records(current_settings()).newest(state, limit)
    show_jobs(records, jobs_table, "no jobs", json_lines=json_lines)


def cancel(
    ids: Annotated[list[str], ids_of(completion.GOES_ON)],
    json_lines: Json = False,
) -> None:
    """Cancel jobs: a waiting one never starts, a running one stops after its current batch."""
    from tasks.diarize import diarize  # noqa: PLC0415 - Celery takes half a second to import

    unknown = False
    for job_id in ids:
        before = diarize.cancel(job_id)
        if before is None:
            unknown = True
            complain_unknown(job_id)
        elif json_lines:
            print_line(json_line({"id": job_id, "state_before": str(before)}))
        else:
            print_line(f"{job_id} {_cancelled(before)}")
    raise typer.Exit(FAILED if unknown else DONE)


def delete(
    ids: Annotated[list[str], ids_of(completion.ENDED)],
    json_lines: Json = False,
) -> None:
    """Forget ended jobs, with all that is stored of them: record, result, error, webhook."""
    from tasks.diarize import diarize  # noqa: PLC0415 - Celery takes half a second to import

    failed = False
    for job_id in ids:
        try:
            known = diarize.delete(job_id)
        except InvalidJob as error:
            failed = True
            complain(error.code, error.message)
            continue
        if not known:
            failed = True
            complain_unknown(job_id)
        else:
            print_line(json_line({"id": job_id, "outcome": "deleted"}) if json_lines else f"{job_id} deleted")
    raise typer.Exit(FAILED if failed else DONE)


def _cancelled(before: State) -> str:
    if before in (State.QUEUED, State.DUE):
        return "was waiting: will not start"
    if before is State.RUNNING:
        return "runs: asked to stop"
    return f"had ended already: {before}"
