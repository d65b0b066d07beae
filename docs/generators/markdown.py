"""What is generated, put into its page between two marks; and Markdown that cannot be misread."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

END = "<!-- end -->"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose cells hold what they hold: a `|` in one ends no cell, a line break no row."""
    first, *others = ("| " + " | ".join(map(_cell, line)) + " |" for line in (header, *rows))
    return "\n".join([first, "|" + "---|" * len(header), *others])


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "&#124;").split())


def filled(page: str, name: str, text: str) -> str:
    """A page with what is generated under `name`.

    Args:
        page: Its text.
        name: That of the mark, `<!-- name: make docs -->`; what is generated ends at `<!-- end -->`.
        text: What stands between the two.

    Raises:
        ValueError: The page has no such mark, or two.
    """
    begin = f"<!-- {name}: make docs -->"
    pattern = rf"{re.escape(begin)}.*?{re.escape(END)}"
    whole, count = re.subn(pattern, lambda _: f"{begin}\n{text}\n{END}", page, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"{count} places are marked {begin}")
    return whole
