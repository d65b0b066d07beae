"""Writes what is generated: parts of pages, each between its marks, and files that are generated whole.

python -m docs.generate           writes them
python -m docs.generate --check   says whether they are up to date, and exits with 1 where they are not
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from docs.generators.api import api_parts
from docs.generators.cli import commands_text
from docs.generators.doctor import faults_tables
from docs.generators.environment import env_example
from docs.generators.errors import errors_tables
from docs.generators.limits import containers, limits_tables
from docs.generators.markdown import filled
from docs.generators.metrics import metrics_table
from docs.generators.notices import LicenceUnclear, packages
from docs.generators.results import examples, fields_tables, schema_text
from docs.generators.settings import settings_tables

ROOT = Path(__file__).resolve().parent.parent

PARTS: dict[str, dict[str, Callable[[], str]]] = {
    "docs/api.md": api_parts(),
    "docs/cli.md": {"commands": commands_text},
    "docs/configure.md": {"settings": settings_tables},
    "docs/doctor.md": {"faults": faults_tables},
    "docs/errors.md": {"errors": errors_tables},
    "docs/limits.md": {"limits": limits_tables, "containers": containers},
    "docs/metrics.md": {"metrics": metrics_table},
    "THIRD_PARTY_NOTICES.md": {"packages": packages},
    "docs/results.md": {"fields": fields_tables, "formats": examples},
}
"""What makes each part of a page, by the name of its marks."""

FILES: dict[str, Callable[[], str]] = {".env.example": env_example, "docs/result.schema.json": schema_text}
"""What makes each file that is generated whole."""


def generated() -> dict[Path, str]:
    """Each file with the text it should have."""
    texts = {ROOT / name: make() for name, make in FILES.items()}
    for name, parts in PARTS.items():
        page = ROOT / name
        texts[page] = page.read_text()
        for mark, make in parts.items():
            texts[page] = filled(texts[page], mark, make())
    return texts


def main() -> int:
    """Write, or check."""
    try:
        texts = generated()
    except LicenceUnclear as error:
        sys.stderr.write(f"{error}\n")
        return 1
    stale = {path: text for path, text in texts.items() if not path.exists() or path.read_text() != text}
    for path, text in stale.items():
        if "--check" in sys.argv:
            sys.stderr.write(f"{path.relative_to(ROOT)} is out of date: run `make docs`\n")
        else:
            path.write_text(text)
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
