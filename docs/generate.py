"""Writes what is generated: tables in README.md, docs/doctor.md and docs/metrics.md, and .env.example.

python -m docs.generate           writes them
python -m docs.generate --check   says whether they are up to date, and exits with 1 where they are not
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from diarization.diarizer import BUNDLED_MODEL
from tasks.checks.finding import Mark
from tasks.doctor import CHECKS
from tasks.doctor_report import HEADINGS
from tasks.metrics import METRICS
from tasks.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
END = "<!-- end -->"


def default(value: Any) -> str:
    """A setting's default as it would stand in the environment."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if value is None or value == ():
        return ""
    if value == str(BUNDLED_MODEL):
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)


def settings_table() -> str:
    """The README's table."""
    rows = ["| name | default | |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        shown = default(field.default)
        if field.default == str(BUNDLED_MODEL):
            shown = "the bundled model"
        elif shown:
            shown = f"`{shown}`"
        rows.append(f"| `{name.upper()}` | {shown or 'none'} | {field.description} |")
    return "\n".join(rows)


def env_example() -> str:
    """The text of .env.example: every setting with its default, commented out."""
    lines = ["# Every setting with its default. Copy to .env and uncomment what you change."]
    for name, field in Settings.model_fields.items():
        lines += ["", f"# {field.description}", f"# {name.upper()}={default(field.default)}"]
    return "\n".join(lines) + "\n"


def faults_table() -> str:
    """What the doctor can find, and the cures: a table for each group of checks."""
    lines: list[str] = []
    for group, heading in HEADINGS.items():
        lines += ["", f"### {heading}", "", "| check | looks at | can find | cure |", "|---|---|---|---|"]
        for check in CHECKS:
            if check.group != group:
                continue
            for number, fault in enumerate(check.faults):
                name, looks_at = (f"**{check.name}**", check.looks_at) if not number else ("", "")
                mild = " (warning)" if fault.mark is Mark.WARNING else ""
                cells = (name, looks_at, f"`{fault.code}`{mild}: {fault.means}", fault.cure)
                lines.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |")
    return "\n".join([*lines[1:], ""])


def metrics_table() -> str:
    """What the exporter says."""
    rows = ["| metric | kind | labels | |", "|---|---|---|---|"]
    for metric in METRICS:
        name = metric.name + ("_total" if metric.kind == "counter" else "")
        rows.append(f"| `{name}` | {metric.kind} | {', '.join(metric.labels)} | {metric.means} |")
    return "\n".join(rows)


def filled(path: Path, name: str, text: str) -> str:
    """The file's text with what is generated between its marks."""
    begin = f"<!-- {name}: make docs -->"
    block = f"{begin}\n{text}\n{END}"
    return re.sub(rf"{re.escape(begin)}.*?{re.escape(END)}", lambda _: block, path.read_text(), flags=re.DOTALL)


def generated() -> dict[Path, str]:
    """Each file with the text it should have."""
    readme, doctor, metrics = ROOT / "README.md", ROOT / "docs" / "doctor.md", ROOT / "docs" / "metrics.md"
    return {
        readme: filled(readme, "settings", settings_table()),
        doctor: filled(doctor, "faults", faults_table()),
        metrics: filled(metrics, "metrics", metrics_table()),
        ROOT / ".env.example": env_example(),
    }


def main() -> int:
    """Write, or check."""
    stale = [path for path, text in generated().items() if not path.exists() or path.read_text() != text]
    for path in stale:
        if "--check" in sys.argv:
            sys.stderr.write(f"{path.name} is out of date: run `make docs`\n")
        else:
            path.write_text(generated()[path])
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
