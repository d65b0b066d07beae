"""A webhook as a job's record keeps it: where its end is to be told."""

from __future__ import annotations

from dataclasses import dataclass, field

from tasks.stored import Stored


@dataclass(frozen=True)
class Webhook(Stored):
    """What a caller asked for.

    Attributes:
        url: Where to. A secret: it may hold a token.
        with_result: Whether a job that is done brings its result along.
    """

    url: str = field(repr=False)
    with_result: bool = False
