"""Pages of the documentation, as tests read them."""

from __future__ import annotations

import re

from tests.processes import ROOT

DOCS = ROOT / "docs"
_BLOCK = re.compile(r"^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)


def code_blocks(page: str, language: str | None = None) -> list[str]:
    """The text of each block of a page below `docs/`, in order; with a language, of those that are marked with it."""
    found = _BLOCK.finditer((DOCS / page).read_text())
    return [block["code"] for block in found if language in (None, block["language"])]
