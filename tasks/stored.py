"""Facts that stand as one JSON object where another version of this code may read them, or has written them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Self


@dataclass(frozen=True)
class Stored:
    """A dataclass of such facts. A field that comes later needs a default: older versions have not written it."""

    @classmethod
    def parse(cls, stored: str) -> Self:
        """What was written; fields of a newer version are passed over."""
        known = json.loads(stored)
        return cls(**{one.name: known[one.name] for one in fields(cls) if one.name in known})

    def to_json(self) -> str:
        """What is to be written."""
        return json.dumps(asdict(self))
