"""docs/doctor.md: what the doctor can find, and the cures."""

from __future__ import annotations

from docs.generators.markdown import table
from tasks.checks.finding import Mark
from tasks.commands.doctor_report import HEADINGS
from tasks.doctor import CHECKS


def faults_tables() -> str:
    """A table for each group of checks."""
    parts: list[str] = []
    for group, heading in HEADINGS.items():
        rows = []
        for check in (check for check in CHECKS if check.group == group):
            for number, fault in enumerate(check.faults):
                name, looks_at = (f"**{check.name}**", check.looks_at) if not number else ("", "")
                mild = " (warning)" if fault.mark is Mark.WARNING else ""
                rows.append((name, looks_at, f"`{fault.code}`{mild}: {fault.means}", fault.cure))
        parts += [f"### {heading}", table(("check", "looks at", "can find", "cure"), rows)]
    return "\n\n".join(parts)
