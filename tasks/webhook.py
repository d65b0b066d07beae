"""A webhook as a job's record keeps it: where its end is to be told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self


@dataclass(frozen=True)
class Webhook:
    """What a caller asked for.

    Attributes:
        url: Where to. A secret: it may hold a token.
        with_result: Whether a job that is done brings its result along.
    """

    url: str = field(repr=False)
    with_result: bool = False

    @classmethod
    def parse(cls, stored: str) -> Self:
        """From a record; fields of a newer version are passed over."""
        known: Mapping[str, Any] = json.loads(stored)
        return cls(**{name: known[name] for name in cls.__dataclass_fields__.keys() & known.keys()})

    def to_json(self) -> str:
        """As the record keeps it."""
        return json.dumps(asdict(self))
