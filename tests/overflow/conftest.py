"""Prints the fault matrix as a table after its tests."""

from __future__ import annotations

from typing import Any

import pytest


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """pytest's hook."""
    reports = [one for key in ("passed", "failed") for one in terminalreporter.stats.get(key, [])]
    rows = [
        (dict(one.user_properties), one.outcome)
        for one in reports
        if isinstance(one, pytest.TestReport) and "fault" in dict(one.user_properties)
    ]
    if not rows:
        return
    columns = ("phase", "fault", "mode", "end", "by", "attempts", "submitted", "spent USD")
    table = [columns, *sorted(tuple(str(known.get(name, "")) for name in columns) for known, _ in rows)]
    widths = [max(len(line[index]) for line in table) for index in range(len(columns))]
    terminalreporter.section("fault matrix")
    for line in table:
        terminalreporter.line("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    failed = sum(outcome != "passed" for _, outcome in rows)
    terminalreporter.line(f"{len(rows)} cases, {failed} failed")
