"""What a run costs at most."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.overflow.price import Price
from tasks.settings import Settings

PRICE = Price(
    usd_per_second=0.00031, cold_start_seconds=120, idle_seconds=5, seconds_per_audio_hour=200, max_audio_seconds=43200
)
SECONDS = st.floats(0, 50_000)


def test_it_is_what_the_settings_say() -> None:
    assert Price.of(Settings()) == PRICE


@pytest.mark.parametrize(("hours", "seconds"), [(0.001, 120), (1, 200), (12, 2400), (10_000, 604_800)])
def test_a_run_has_time_for_its_recording_within_what_runpod_allows(hours: float, seconds: float) -> None:
    assert PRICE.execution_timeout_seconds(hours * 3600) == seconds
    assert seconds <= PRICE.ttl_seconds(seconds) <= 604_800


def test_what_a_caller_expects_narrows_the_bound() -> None:
    assert PRICE.bound_audio_seconds(None) == 43_200
    assert PRICE.bound_audio_seconds(3600) == 5400
    assert PRICE.bound_audio_seconds(40_000) == 43_200


@given(execution=SECONDS, delay=st.none() | SECONDS)
def test_what_is_settled_covers_a_worker_of_its_own(execution: float, delay: float | None) -> None:
    """A worker was started for it, did it, and was idle until it was stopped; a warm one did the last two."""
    settled = PRICE.settled_usd(1.0, delay, execution)
    cold = 0 if delay is not None and delay < 2 else 120
    assert settled >= math.ceil(cold + execution + 5) * PRICE.usd_per_second
    assert settled <= (cold + execution + 5 + 2) * PRICE.usd_per_second + 1e-6


@given(timeout=st.floats(5, 604_800), share=st.floats(0, 1), delay=st.none() | SECONDS)
def test_what_is_settled_is_never_above_what_was_reserved(timeout: float, share: float, delay: float | None) -> None:
    reserved = PRICE.bound_usd(timeout)
    assert PRICE.settled_usd(reserved, delay, timeout * share) <= reserved
    assert PRICE.settled_usd(reserved, delay, None) == reserved
