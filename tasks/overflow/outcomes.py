"""What has been measured of RunPod: its last runs, from which the valve takes its delay, its speed and its failures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

from redis import Redis

from tasks.overflow.price import WARM_SECONDS
from tasks.server import reachable, server_time
from tasks.settings import Settings
from tasks.stored import Stored

KEPT = 30
"""Runs that are remembered: some hours of a burst, some weeks of canaries."""
FAILURES_SECONDS = 6 * 3600.0
"""A failure is held against a provider for so long: whoever gets nothing could not show that it works again."""
PRIOR_RUNS = 4
"""Runs without a failure that a provider is credited with before it has been seen: one failure shuts nothing."""


@dataclass(frozen=True)
class Outcome(Stored):
    """One run that is over.

    Attributes:
        at: When that was known, by the server's clock.
        worked: Whether RunPod did its part; an error of the recording is none of RunPod's.
        delay_seconds: It waited for so long; None where that is not known.
        execution_seconds: It ran for so long.
        audio_seconds: Its recording's length; None without a result.
    """

    at: float
    worked: bool
    delay_seconds: float | None = None
    execution_seconds: float | None = None
    audio_seconds: float | None = None


@dataclass(frozen=True)
class Measured:
    """What the last runs say; None is not known yet.

    Attributes:
        cold_seconds: What a run waits for that no warm worker takes: three quarters waited for less.
        seconds_per_audio_hour: What RunPod's workers take for an hour of audio.
        failure_share: Of the last runs, with `PRIOR_RUNS` good ones.
        last_at: When the last run was over.
    """

    cold_seconds: float | None
    seconds_per_audio_hour: float | None
    failure_share: float
    last_at: float


def measure(outcomes: Sequence[Outcome], now: float) -> Measured:
    """Of the last runs, at a time of the server's clock."""
    cold = [one.delay_seconds for one in outcomes if one.delay_seconds is not None and one.delay_seconds > WARM_SECONDS]
    speeds = [
        one.execution_seconds / one.audio_seconds * 3600
        for one in outcomes
        if one.audio_seconds and one.execution_seconds is not None
    ]
    late = [one for one in outcomes if now - one.at < FAILURES_SECONDS]
    failed = sum(not one.worked for one in late)
    return Measured(
        cold_seconds=quantiles(cold, n=4)[2] if len(cold) > 1 else (cold[0] if cold else None),
        seconds_per_audio_hour=median(speeds) if speeds else None,
        failure_share=failed / (len(late) + PRIOR_RUNS),
        last_at=max((one.at for one in outcomes), default=0.0),
    )


class Outcomes:
    """The last runs of the fleet. Every method raises `QueueUnavailable` where Redis cannot be reached."""

    def __init__(self, client: Redis, settings: Settings) -> None:
        self._redis = client
        self._key = settings.redis_key_prefix + "fleet:outcomes"

    def add(
        self, *, worked: bool, delay_seconds: float | None, execution_seconds: float | None, audio_seconds: float | None
    ) -> None:
        """A run is over."""
        with reachable():
            at = server_time(self._redis)
            one = Outcome(at, worked, delay_seconds, execution_seconds, audio_seconds)
            with self._redis.pipeline() as pipe:
                pipe.lpush(self._key, one.to_json())
                pipe.ltrim(self._key, 0, KEPT - 1)
                pipe.execute()

    def last(self) -> list[Outcome]:
        """The newest first."""
        with reachable():
            stored: Any = self._redis.lrange(self._key, 0, -1)
        return [Outcome.parse(one) for one in stored]
