"""What the doctor has found, on a terminal and for programs, and the exit code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from textwrap import wrap
from typing import Any

from rich.console import Console
from rich.text import Text

from tasks.checks.connection import NO_CONNECTION, connection
from tasks.checks.environment import BAD_SETTINGS
from tasks.checks.finding import Finding, Mark, Role, Subject
from tasks.commands.console import json_line, make_console, printable
from tasks.commands.output import print_line
from tasks.doctor import CHECKS, HUNG, Told, examine

CHECK_FAILED, NOTHING_THERE = 1, 3
STYLES = {Mark.OK: "green", Mark.WARNING: "yellow", Mark.FAILED: "bold red", Mark.SKIPPED: "dim"}
KINDS = {Role.GPU: "GPU worker", Role.BRIDGE: "bridge", Role.PRODUCER: "producer"}
HEADINGS = {"settings": "Settings", "redis": "Redis", "fleet": "Fleet", "host": "This host", "runpod": "RunPod"}
NAME_COLUMNS = max(len(check.name) for check in CHECKS)
SHORTEST_LINE = 40


class Report:
    """What is told, and what the exit code is at the end."""

    def __init__(self, *, json_lines: bool) -> None:
        self._json_lines = json_lines
        self._console = make_console()
        self._marks: Counter[Mark] = Counter()
        self._is_connected = True

    def examine(self, subject: Subject) -> None:
        """Tell of each check as soon as it is known."""
        if self._json_lines:
            for told in examine(subject):
                self.tell(told)
            return
        self._console.print(f"This host is looked at as a {KINDS[subject.role]}.", style="dim")
        with self._console.status("looks at all of it side by side"):
            for group, found in groupby(examine(subject), key=lambda told: told.check.group):
                self._console.print(f"\n{HEADINGS[group]}", style="bold")
                for why, alike in groupby(found, key=_why_skipped):
                    if why:
                        self._skip([self._count(told).check.name for told in alike], why)
                        continue
                    for told in alike:
                        self.tell(told)

    def tell(self, told: Told) -> None:
        """One check, on a line; its cure on the next."""
        self._count(told)
        if self._json_lines:
            print_line(json_line(as_json(told)))
        else:
            show(self._console, told.check.name, told.finding)

    def refuse(self, says: str) -> None:
        """Settings that cannot be used, without which nothing is looked at."""
        self.tell(Told(CHECKS[0], BAD_SETTINGS.found(says), 0.0))

    def _skip(self, names: Sequence[str], why: str) -> None:
        """All that were not looked at for one reason, on one line."""
        which = f"{names[0]:<{NAME_COLUMNS}}  " if len(names) == 1 else f"{', '.join(names)}: "
        head = Text(f"{Mark.SKIPPED:<4}  {which}", "dim")
        _hang(self._console, head, printable(why), "dim")

    def _count(self, told: Told) -> Told:
        self._marks[told.finding.mark] += 1
        if told.check.look is connection:
            self._is_connected = told.finding.fault not in (*NO_CONNECTION, HUNG)
        return told

    def end(self, remark: str) -> None:
        """The sum of it."""
        if self._json_lines:
            return
        words = {Mark.FAILED: "failed", Mark.WARNING: "warnings", Mark.OK: "ok", Mark.SKIPPED: "skipped"}
        told = [f"{self._marks[mark]} {word}" for mark, word in words.items()]
        self._console.print("\n" + "; ".join(filter(None, (", ".join(told), remark))))

    @property
    def exit_code(self) -> int:
        """0 where nothing failed; warnings are no failures."""
        if not self._is_connected:
            return NOTHING_THERE
        return CHECK_FAILED if self._marks[Mark.FAILED] else 0


def _why_skipped(told: Told) -> str:
    return told.finding.says if told.finding.mark is Mark.SKIPPED else ""


def show(console: Console, name: str, finding: Finding) -> None:
    """A finding on a terminal, long lines under where they began."""
    style = STYLES[finding.mark]
    head = Text().append(f"{finding.mark:<4}", style).append(f"  {name:<{NAME_COLUMNS}}  ")
    _hang(console, head, printable(finding.says))
    if finding.fault is not None:
        _hang(console, Text(" " * len(head)), f"cure: {finding.fault.cure}", style)


def _hang(console: Console, head: Text, says: str, style: str = "") -> None:
    indent = len(head)
    room = max(SHORTEST_LINE, console.width - indent)
    for line in wrap(says, room, break_long_words=False, break_on_hyphens=False) or [""]:
        console.print(Text.assemble(head, (line, style)), soft_wrap=True)
        head = Text(" " * indent)


def as_json(told: Told) -> dict[str, Any]:
    """A finding for programs: keys that stay."""
    fault = told.finding.fault
    return {
        "group": told.check.group,
        "check": told.check.name,
        "status": str(told.finding.mark),
        "says": told.finding.says,
        "fault": fault.code if fault else None,
        "cure": fault.cure if fault else None,
        "seconds": round(told.seconds, 3),
    }
