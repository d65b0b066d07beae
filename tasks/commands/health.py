"""The command `healthcheck`: is the worker in this container well?"""

from __future__ import annotations

from typing import Annotated

import typer

from diarization.errors import ModelUnavailable
from tasks import vitals
from tasks.commands.console import complain, json_line, printable
from tasks.commands.output import print_line
from tasks.gate import runtime_folder
from tasks.settings import current_settings


def healthcheck(
    worker: Annotated[
        str | None,
        typer.Argument(metavar="WORKER", help="Its node name, such as celery@host. Default: all on this machine."),
    ] = None,
    json_lines: Annotated[bool, typer.Option("--json", help="For programs: one JSON object a worker.")] = False,
) -> None:
    """Say whether the worker in this container is alive, has its model, and goes on; exit 1 where not.

    Asks neither Redis nor the worker: both may be busy, and neither is a reason to restart it.
    """
    try:
        said = list(vitals.read(runtime_folder(current_settings())))
    except ModelUnavailable as error:
        complain("no_worker", error.message)
        raise typer.Exit(1) from None
    if worker is not None:
        said = [one for one in said if worker in (one.worker, one.worker.rpartition(" (")[0])]
    if not said:
        complain(
            "no_worker", f"no worker {worker or ''}".rstrip() + " of this user runs here", "See QUEUE_RUNTIME_DIR."
        )
        raise typer.Exit(1)
    all_well = True
    for one in said:
        well, line = vitals.examine(one)
        all_well &= well
        print_line(json_line({"worker": one.worker, "ok": well, "says": line}) if json_lines else printable(line))
    raise typer.Exit(0 if all_well else 1)
