"""What a run at RunPod may cost at most, and what it has cost at most. Pure.

RunPod bills a worker from its start to its full stop, each rounded up to a second: its cold start, its jobs, and the
idle time before it is stopped (https://docs.runpod.io/serverless/pricing). A job's own seconds are the least of that.
So each job is charged with a worker of its own, though jobs share workers where they can: the sum of these bounds
covers the bill also where the scaler started a worker for a job that another one then took.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

from tasks.settings import Settings

WARM_SECONDS = 2.0
"""A job that waited for less found a warm worker: none was started for it (the scaler adds one after 4 s)."""
SHORTEST_TIMEOUT_SECONDS, LONGEST_TIMEOUT_SECONDS = 120.0, 7 * 86400.0
"""RunPod allows 5 s to 7 days; a recording of seconds still is fetched and decoded."""
LENGTH_SPARE = 1.5
"""Callers know the length of a meeting roughly; a run that this was too little for is done again without it."""
QUEUE_SECONDS = 1800.0
"""How long a run may wait at RunPod beside its execution: then it is worth nothing to anybody."""


@dataclass(frozen=True)
class Price:
    """An endpoint's.

    Attributes:
        usd_per_second: Of a worker.
        cold_start_seconds: Upper bound on a worker's start.
        idle_seconds: Before an idle worker is stopped.
        seconds_per_audio_hour: Upper bound on what a worker takes for an hour of audio.
        max_audio_seconds: No recording is longer.
    """

    usd_per_second: float
    cold_start_seconds: float
    idle_seconds: float
    seconds_per_audio_hour: float
    max_audio_seconds: float

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """As the settings say."""
        return cls(
            settings.overflow_usd_per_second,
            settings.overflow_cold_start_seconds,
            settings.overflow_idle_seconds,
            settings.overflow_seconds_per_audio_hour,
            settings.diarization_max_hours * 3600,
        )

    def bound_audio_seconds(self, expected_audio_seconds: float | None) -> float:
        """What a recording's length is taken for where a caller has said what is expected, or nothing."""
        if expected_audio_seconds is None:
            return self.max_audio_seconds
        return min(self.max_audio_seconds, LENGTH_SPARE * expected_audio_seconds)

    def execution_timeout_seconds(self, audio_seconds: float) -> float:
        """RunPod ends the run of a recording of at most so many seconds after this time."""
        seconds = audio_seconds / 3600 * self.seconds_per_audio_hour
        return min(LONGEST_TIMEOUT_SECONDS, max(SHORTEST_TIMEOUT_SECONDS, math.ceil(seconds)))

    def ttl_seconds(self, execution_timeout_seconds: float) -> float:
        """RunPod forgets the run when so much time has passed since its submission."""
        whole = self.cold_start_seconds + QUEUE_SECONDS + execution_timeout_seconds
        return min(LONGEST_TIMEOUT_SECONDS, math.ceil(whole))

    def bound_usd(self, execution_timeout_seconds: float) -> float:
        """What a run may cost."""
        return self._usd(self.cold_start_seconds, execution_timeout_seconds)

    def settled_usd(self, reserved_usd: float, delay_seconds: float | None, execution_seconds: float | None) -> float:
        """What a run has cost, at most; all that was reserved where nobody knows.

        Args:
            reserved_usd: Its bound.
            delay_seconds: It waited for so long at RunPod; None where that was not said.
            execution_seconds: It ran for so long.
        """
        if execution_seconds is None:
            return reserved_usd
        warm = delay_seconds is not None and delay_seconds < WARM_SECONDS
        return self._usd(0.0 if warm else self.cold_start_seconds, execution_seconds)

    def _usd(self, cold_seconds: float, execution_seconds: float) -> float:
        """Rounded up to a micro-dollar, which the ledger counts in."""
        seconds = math.ceil(cold_seconds + execution_seconds + self.idle_seconds) + 1
        return math.ceil(seconds * self.usd_per_second * 1e6) / 1e6
