"""What arrives at a small fleet, and what RunPod is like meanwhile; drawn by a seed, the same for every policy.

Lengths are log-normal; half of the callers say them, within a tenth. A seventh of the jobs must not leave the house.
Most are to be done within a quarter of an hour (the default deadline), the others within an hour. No two bursts are
alike: they may be meetings, short clips, or an archive that has an hour.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

from benchmarks.overflow_endpoint import Job, Weather

GPU_PACES = (110.0, 140.0)
"""Seconds per audio hour of the two GPUs here: unlike, and about what users report of cards such as an RTX 4090."""
MEDIAN_AUDIO_SECONDS, SPREAD, AUDIO_SECONDS = 3000.0, 0.5, (120.0, 3 * 3600.0)
STATED_SHARE, LEAVING_SHARE, LUCK = 0.5, 0.85, 0.1
DEADLINE_SECONDS, PATIENT_SECONDS = 900.0, 3600.0
BURST_AT, BURST_SECONDS = 3600.0, 600.0


@dataclass(frozen=True)
class Sort:
    """A sort of recordings: how long, which share of them has an hour, and how many come in a burst."""

    median_audio_seconds: float = MEDIAN_AUDIO_SECONDS
    patient_share: float = 0.3
    burst_jobs: tuple[int, int] = (25, 40)


USUAL = Weather()
EVERYDAY = Sort()
BURSTS = (EVERYDAY, Sort(600.0, 0.0, (40, 80)), Sort(patient_share=0.9))


@dataclass(frozen=True)
class Load:
    """A sort of day; `works`: RunPod does what it is paid for."""

    name: str
    jobs_per_hour: float
    burst: bool = False
    long_file: bool = False
    weather: Weather = USUAL
    failing_share: float = 0.02
    works: bool = True
    hours: float = 3.0


LOADS = (
    Load("quiet", 10),
    Load("steady", 36),
    Load("Monday morning", 15, burst=True),
    Load("one 8-hour file", 28, long_file=True),
    Load("burst, endpoint cold", 15, burst=True, weather=Weather(cold_seconds=(180, 420))),
    Load("burst, throttled", 15, burst=True, weather=Weather(throttled=(BURST_AT, BURST_AT + 1500)), works=False),
    Load("burst, 30 % fail", 15, burst=True, failing_share=0.3, works=False),
)
"""The fourth has one file of 8 hours on a normal day; in the sixth RunPod has no GPU for 25 minutes from its begin."""


def arrivals(load: Load, chance: Random) -> list[Job]:
    """The jobs of one day, in order."""
    jobs, at = [], 0.0
    while (at := at + chance.expovariate(load.jobs_per_hour / 3600)) < load.hours * 3600:
        jobs.append(_job(at, EVERYDAY, load.failing_share, chance))
    if load.burst:
        sort = chance.choice(BURSTS)
        times = [BURST_AT + chance.uniform(0, BURST_SECONDS) for _ in range(chance.randint(*sort.burst_jobs))]
        jobs += [_job(time, sort, load.failing_share, chance) for time in times]
    if load.long_file:
        hours = 8 * 3600.0
        jobs.append(Job(BURST_AT, hours, hours, BURST_AT + PATIENT_SECONDS, may_leave=True))
    return sorted(jobs, key=lambda job: job.arrives_at)


def _job(at: float, sort: Sort, failing_share: float, chance: Random) -> Job:
    shortest, longest = AUDIO_SECONDS
    drawn = sort.median_audio_seconds * math.exp(chance.gauss(0, SPREAD))
    audio_seconds = min(longest, max(shortest, drawn))
    said = audio_seconds * chance.uniform(0.9, 1.1)
    return Job(
        arrives_at=at,
        audio_seconds=audio_seconds,
        stated_seconds=said if chance.random() < STATED_SHARE else None,
        deadline_at=at + (PATIENT_SECONDS if chance.random() < sort.patient_share else DEADLINE_SECONDS),
        may_leave=chance.random() < LEAVING_SHARE,
        luck=math.exp(chance.gauss(0, LUCK)),
        fails_at=chance.random() if chance.random() < failing_share else None,
    )
