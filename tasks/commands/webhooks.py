"""The commands `webhooks secret`, `webhooks list` and `webhooks replay`."""

from __future__ import annotations

from typing import Annotated

import typer

from diarization.errors import InvalidJob
from tasks.commands.console import complain, json_line, local_time, make_console, printable
from tasks.commands.output import Json, print_line
from tasks.record import JobRecord
from tasks.records import Records
from tasks.settings import current_settings
from tasks.signature import new_secret

app = typer.Typer(
    help="Webhooks: a secret for them, and those that nobody took.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ALL = 1_000_000


@app.command(epilog="Example: echo WEBHOOK_SECRET=$(diarize-queue webhooks secret) >> .env")
def secret(json_lines: Json = False) -> None:
    """Make a secret for WEBHOOK_SECRET, which workers sign by and receivers verify by."""
    made = new_secret()
    print_line(json_line({"secret": made}) if json_lines else made)


@app.command("list", epilog="Example: diarize-queue webhooks list")
def list_undelivered(json_lines: Json = False) -> None:
    """List the webhooks that were given up, the newest first."""
    found = Records(current_settings()).undelivered(ALL)
    if json_lines:
        for record in found:
            print_line(json_line(_as_json(record)))
    elif found:
        for record in found:
            ended, why = local_time(record.ended_at or 0.0), printable(record.webhook_error or "")
            make_console().print(f"{printable(record.id)}  {record.state}  {ended}  {why}", soft_wrap=True)
    else:
        complain("no_webhooks", "none was given up")


@app.command(epilog="Example: diarize-queue webhooks replay --all")
def replay(
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID", help="Job ids. Or give --all.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All that were given up.")] = False,
    json_lines: Json = False,
) -> None:
    """Deliver webhooks that were given up once more, with all tries anew."""
    if bool(ids) == every:
        raise InvalidJob("give job ids, or --all")
    records = Records(current_settings())
    wanted = [record.id for record in records.undelivered(ALL)] if every else ids or []
    failed = False
    for job_id in wanted:
        record = records.get(job_id)
        outcome = records.webhook_again(job_id, record.ended_at) if record and record.state.ended else "missing"
        if outcome != "noted":
            complain("invalid_job", f"job {job_id} has no webhook that could be delivered")
            failed = True
            continue
        print_line(json_line({"id": job_id, "outcome": "due"}) if json_lines else f"{job_id} due")
    if failed:
        raise typer.Exit(1)


def _as_json(record: JobRecord) -> dict[str, object]:
    return {
        "id": record.id,
        "state": str(record.state),
        "ended_at": record.ended_at,
        "tries": record.webhook_tries,
        "error": record.webhook_error,
    }
