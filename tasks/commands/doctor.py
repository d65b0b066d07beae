"""The command `doctor`."""

from __future__ import annotations

from typing import Annotated

import typer

from tasks.checks.finding import Role, Subject
from tasks.settings import read_settings, settings_faults


def doctor(
    role: Annotated[
        Role | None, typer.Option(help="What this host is for. Default: by WORKER_ROLE, and by what is installed.")
    ] = None,
    json_lines: Annotated[bool, typer.Option("--json", help="For programs: one JSON object per check.")] = False,
) -> None:
    """Look at everything a queue needs, and say for each fault what to do: a line a check."""
    from tasks.commands.doctor_report import Report  # noqa: PLC0415
    from tasks.doctor import role_of  # noqa: PLC0415 - its checks import much that the other commands do without

    report = Report(json_lines=json_lines)
    faults = settings_faults()
    for says in faults:
        report.refuse(says)
    if not faults:
        settings = read_settings()
        subject = Subject(settings, role or role_of(settings))
        report.examine(subject)
    report.end("the rest is looked at once the settings are valid" if faults else "")
    raise typer.Exit(report.exit_code)
