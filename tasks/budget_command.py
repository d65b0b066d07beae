"""The commands `budget show` and `budget reopen`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.text import Text

from tasks.budget import Ledger, Spend
from tasks.console import json_line, make_console
from tasks.output import print_line
from tasks.server import connect
from tasks.settings import current_settings

app = typer.Typer(
    help="What RunPod may still bill today, by the ledger of upper bounds.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command(epilog="Example: diarize-queue budget show --json")
def show(
    json_object: Annotated[bool, typer.Option("--json", help="For programs: one JSON object.")] = False,
) -> None:
    """Show what has been spent and reserved on this day of UTC."""
    settings = current_settings()
    with connect(settings, patient=False) as client:
        today = Ledger(client, settings).today()
    if json_object:
        print_line(json_line(as_json(today)))
    else:
        make_console().print(Text(summary(today)), soft_wrap=True)


@app.command(epilog="Example: diarize-queue budget reopen")
def reopen() -> None:
    """Let jobs go to RunPod again on a day on which Redis lost its data; what was spent before is not known."""
    settings = current_settings()
    with connect(settings, patient=False) as client:
        ledger = Ledger(client, settings)
        was_shut = ledger.today().shut
        ledger.reopen()
    print_line("reopened" if was_shut else "it was not shut")


def as_json(today: Spend) -> dict[str, Any]:
    """The day for programs."""
    return {**asdict(today), "left_usd": round(today.left_usd, 6)}


def summary(today: Spend) -> str:
    """The day in a line."""
    said = (
        f"{today.spent_usd:.4f} of {today.limit_usd:g} USD spent on {today.day} (UTC), "
        f"{today.reserved_usd:.4f} reserved for {today.in_flight} jobs at RunPod"
    )
    return f"{said}; shut: {today.shut}" if today.shut else said
