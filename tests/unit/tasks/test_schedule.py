"""countdown, eta and expires, as Celery's users write them; and the wait between attempts."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diarization.errors import InvalidJob
from tasks.schedule import Schedule, backoff_seconds

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, Schedule()),
        ({"countdown": 5}, Schedule(countdown=5.0)),
        ({"countdown": 0}, Schedule()),
        ({"countdown": -3}, Schedule()),
        ({"eta": NOON}, Schedule(due_at=NOON.timestamp())),
        ({"eta": NOON.replace(tzinfo=None)}, Schedule(due_at=NOON.timestamp())),
        ({"eta": "2030-01-01T12:00:00+00:00"}, Schedule(due_at=NOON.timestamp())),
        ({"eta": NOON.astimezone(timezone(timedelta(hours=2)))}, Schedule(due_at=NOON.timestamp())),
        ({"expires": 30}, Schedule(expires_in=30.0)),
        ({"expires": NOON}, Schedule(expires_at=NOON.timestamp())),
        ({"expires": "2030-01-01T12:00:00"}, Schedule(expires_at=NOON.timestamp())),
    ],
)
def test_times(options: dict[str, Any], expected: Schedule) -> None:
    assert Schedule.of(options) == expected


@pytest.mark.parametrize(
    "options",
    [
        {"countdown": "soon"},
        {"eta": "soon"},
        {"eta": 5.0},
        {"expires": []},
        {"eta": NOON, "countdown": 1},
        {"expires": math.nan},
        {"countdown": math.inf},
    ],
)
def test_what_is_no_time_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidJob):
        Schedule.of(options)


@given(st.integers(1, 100), st.floats(0, 100), st.floats(0, 1000))
def test_the_wait_grows_up_to_the_cap_and_half_of_it_is_jitter(attempt: int, base: float, cap: float) -> None:
    full = min(cap, base * 2 ** (attempt - 1))
    assert full / 2 <= backoff_seconds(attempt, base, cap) <= full
