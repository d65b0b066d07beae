"""How fast a worker is: seconds of work for an hour of audio, measured on its own jobs.

What is measured is a job's whole attempt, download and decoding included, because that is how long the next job will
hold the worker. The mean is the quotient of two sums, of seconds and of audio seconds, so that a job counts by its
length and clips of ten seconds do not outweigh meetings; both sums fade by the audio that comes after (`finish.lua`:
half of them is left after two hours of audio), so that the mean follows a worker that gets slower. The speed is one
child's. Children that share a GPU are measured as they have shared it, and a child that was alone of late would promise
what two cannot keep: `side_by_side` has the bound.

The sums are kept in Redis by the step that ends a job: they survive the child and cost no round trip.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Self

from diarization.diarizer import NETWORKS, STAGES

DEFAULT_SECONDS_PER_AUDIO_HOUR: Mapping[str, float] = {"cpu": 1100.0, "cuda": 120.0}
"""Of a worker that nobody has measured, by kind of device. A CPU: 56 s for 3 minutes, on one thread, as docs/speed.md
measures it. A GPU: what users of the same model have published lies between 31 s (H100) and 199 s (L40S)."""


@dataclass(frozen=True)
class Speed:
    """Work that has been done: of one job, or of a worker's jobs, older ones faded.

    Attributes:
        audio_seconds: Of the recordings.
        seconds: From the start of the attempts to their ends.
        stage_seconds: The part of it that each stage took.
    """

    audio_seconds: float
    seconds: float
    stage_seconds: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def parse(cls, stored: str) -> Self:
        """From its JSON; what a newer version has added is passed over."""
        known = json.loads(stored)
        return cls(float(known["audio_seconds"]), float(known["seconds"]), dict(known.get("stage_seconds", {})))

    def to_json(self) -> str:
        """As Redis keeps it.

        Only the stages that we know: any other name came with a result, and would be kept, and be a label, for ever.
        """
        known = {stage: self.stage_seconds[stage] for stage in STAGES if stage in self.stage_seconds}
        return json.dumps({**asdict(self), "stage_seconds": known})

    @property
    def seconds_per_audio_hour(self) -> float | None:
        """The mean; None where no audio has been measured."""
        return 3600 * self.seconds / self.audio_seconds if self.audio_seconds > 0 else None

    def side_by_side(self, children: int) -> float | None:
        """Seconds for an hour of audio of one of so many that share a GPU, while all of them work; None as above.

        Whoever has computed waits until each of the others has: no cycle is shorter than that, however much of the mean
        was measured without others (an asymptotic bound: Denning and Buzen, "The operational analysis of queueing
        network models", ACM Computing Surveys 10, 1978).
        """
        mean = self.seconds_per_audio_hour
        if mean is None:
            return None
        computing = sum(self.stage_seconds.get(stage, 0.0) for stage in NETWORKS)
        return max(mean, children * 3600 * computing / self.audio_seconds)

    def seconds_left(self, audio_seconds: float, stage: str | None, percent: float) -> float | None:
        """What is left of a job that is at `percent` of `stage`; None where that cannot be said.

        The stages that are still to come take what they took of the jobs before.
        """
        per_hour, total = self.seconds_per_audio_hour, sum(self.stage_seconds.values())
        if per_hour is None or total <= 0 or stage not in (None, *STAGES):
            return None
        at = STAGES.index(stage) if stage else -1
        later = sum(self.stage_seconds.get(name, 0.0) for name in STAGES[at + 1 :])
        left = later + self.stage_seconds.get(stage or "", 0.0) * (1 - percent / 100)
        return per_hour / 3600 * audio_seconds * min(1.0, left / total)


def combined(speeds: Iterable[Speed]) -> Speed:
    """What several workers have done together."""
    known = list(speeds)
    stage_seconds = {stage: sum(speed.stage_seconds.get(stage, 0.0) for speed in known) for stage in STAGES}
    return Speed(sum(speed.audio_seconds for speed in known), sum(speed.seconds for speed in known), stage_seconds)
