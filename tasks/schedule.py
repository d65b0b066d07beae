"""When a job may start, also for another attempt, and when it is no longer wanted: Celery's countdown, eta, expires."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

from diarization.errors import InvalidJob


@dataclass(frozen=True)
class Schedule:
    """Times in seconds since 1970; `countdown` and `expires_in` in seconds from now, by the server's clock."""

    due_at: float | None = None
    countdown: float | None = None
    expires_in: float | None = None
    expires_at: float | None = None

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """From the options of `apply_async`.

        Raises:
            InvalidJob: One of them is no time.
        """
        eta, countdown, expires = options.get("eta"), options.get("countdown"), options.get("expires")
        if eta is not None and countdown is not None:
            raise InvalidJob("give eta= or countdown=, not both")
        if countdown is not None and not isinstance(countdown, int | float):
            raise InvalidJob(f"countdown= is a number of seconds, not {type(countdown).__name__}")
        for name, value in (("countdown", countdown), ("expires", expires)):
            if isinstance(value, int | float) and not math.isfinite(value):
                raise InvalidJob(f"{name}= is no number of seconds")
        return cls(
            due_at=_moment("eta", eta),
            countdown=float(countdown) if countdown and countdown > 0 else None,
            expires_in=float(expires) if isinstance(expires, int | float) else None,
            expires_at=None if isinstance(expires, int | float) else _moment("expires", expires),
        )

    @property
    def later(self) -> bool:
        """Whether the job waits in the due-set first."""
        return self.due_at is not None or self.countdown is not None


def _moment(name: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise InvalidJob(f"{name}= is no ISO 8601 time") from None
    if not isinstance(value, datetime):
        raise InvalidJob(f"{name}= is no time, but {type(value).__name__}")
    # As Celery does: a time without a zone is UTC.
    return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()


def backoff_seconds(attempt: int, base_seconds: float, cap_seconds: float) -> float:
    """Wait after attempt number `attempt`: doubles each time up to the cap, and half of it is jitter."""
    return float(min(cap_seconds, base_seconds * 2 ** (attempt - 1)) * random.uniform(0.5, 1.0))  # noqa: S311
