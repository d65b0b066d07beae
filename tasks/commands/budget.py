"""The commands `budget` and `budget reopen`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.text import Text

from tasks.commands.console import json_line, make_console, printable
from tasks.commands.output import print_line
from tasks.overflow.budget import Ledger, Spend
from tasks.server import connect
from tasks.settings import current_settings

app = typer.Typer(
    help="Show what RunPod has cost today, by upper bounds, and what the jobs there may cost yet.",
    invoke_without_command=True,
    epilog="Example: diarize-queue budget --json",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[bool, typer.Option("--json", help="For programs: one JSON object, amounts in USD.")]


@app.callback()
def show(context: typer.Context, json_lines: Json = False) -> None:
    """Show what RunPod has cost today, by upper bounds, and what the jobs there may cost yet."""
    if context.invoked_subcommand:
        return
    ledger = _ledger()
    today, attempts = ledger.today(), ledger.open_attempts()
    if json_lines:
        print_line(json_line({**as_json(today), "open_attempts": attempts}))
    else:
        make_console().print(_details(today, attempts), soft_wrap=True)


@app.command(epilog="Example: diarize-queue budget reopen")
def reopen(json_lines: Json = False) -> None:
    """Spend again today, after Redis has lost data: by what the ledger knows, which may be less than was spent."""
    why = _ledger().reopen()
    if json_lines:
        print_line(json_line({"was_shut": why}))
    else:
        print_line(f"the budget is open again; it was shut: {printable(why)}" if why else "the budget was open")


def as_json(today: Spend) -> dict[str, Any]:
    """The day for programs."""
    return {**asdict(today), "left_usd": today.left_usd}


def summary(today: Spend) -> str:
    """The day in a line."""
    said = (
        f"{today.spent_usd:.4f} of {today.limit_usd:g} USD spent today (UTC), "
        f"{today.reserved_usd:.4f} reserved for {today.in_flight} jobs at RunPod"
    )
    return f"{said}; shut: {printable(today.shut)}" if today.shut else said


def _ledger() -> Ledger:
    settings = current_settings()
    return Ledger(connect(settings, patient=False), settings)


def _details(today: Spend, attempts: dict[str, float]) -> Text:
    facts = {
        "day": f"{today.day} (UTC)",
        "spent": _usd(today.spent_usd),
        "reserved": f"{_usd(today.reserved_usd)}, jobs in flight: {today.in_flight}",
        "limit": f"{_usd(today.limit_usd)}, of which {_usd(today.left_usd)} are left",
        "shut": f"{printable(today.shut)}; until the day is over, or `budget reopen`" if today.shut else "",
    }
    lines = [Text(f"{name:<10}{value}") for name, value in facts.items() if value]
    lines += [Text(f"{'':<10}{_usd(usd)}  {printable(attempt)}") for attempt, usd in sorted(attempts.items())]
    return Text("\n").join(lines)


def _usd(amount: float) -> str:
    return f"{amount:.4f} USD"
