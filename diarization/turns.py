"""Turn, SpeakerHints, Diarization: the words of the field, and the schema of a result."""

from __future__ import annotations

import math
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from diarization.errors import InvalidJob

MAX_SPEAKERS = 100
"""Memory grows with length times speakers, and stock fails at an upper bound above 255."""


class _Frozen(BaseModel):
    """Unknown fields are ignored, so that a result of a newer version can still be read."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Turn(_Frozen):
    """One speaker talking.

    Attributes:
        start: Seconds from the recording's begin.
        end: Seconds from there, too; no less than `start`.
        speaker: The speaker's label, such as `SPEAKER_00`, which means nothing outside of this recording.
    """

    start: float = Field(ge=0)
    end: float
    speaker: str

    @model_validator(mode="after")
    def _ends_after_start(self) -> Self:
        if self.end < self.start:
            raise ValueError(f"a turn ends at {self.end} s, before its start at {self.start} s")
        return self

    @property
    def seconds(self) -> float:
        """How long the turn lasts, in seconds."""
        return self.end - self.start


class Speaker(_Frozen):
    """One voice of a recording.

    Attributes:
        speaker: The label that its turns have.
        total_seconds: How many seconds this speaker talks; where several talk at once, they count for each.
        embedding: The centroid of the speaker's voice, as many numbers as the model's embeddings have; None unless
            DIARIZATION_EMBEDDINGS is on, since it is biometric data.
    """

    speaker: str
    total_seconds: float
    embedding: tuple[float, ...] | None = None


class Provenance(_Frozen):
    """How a result came about.

    Attributes:
        model: Folder name or hub name of the pipeline.
        revision: Hub commit, where known.
        versions: Of the libraries, by their names.
        device: `cpu` or `cuda:N`.
        gpu: The GPU's own name; None on a CPU.
        precision: `exact` (stock's answer) or `fast`, as it was done and not as it was asked for.
        trunk: How the speaker network's trunk ran, and in what arithmetic: `per chunk, float32`, `whole recording,
            bfloat16`.
        provider: `local` or `runpod`.
        stage_seconds: Seconds by the clock for each stage, by its name.
        queue_seconds: Seconds from submit to the start of this attempt; None outside of the queue.
        attempts: How many times the job was started, this one included.
        cost_usd: What RunPod may bill for it at most, in USD; 0 on the own GPUs.
    """

    model: str = ""
    revision: str | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    device: str = ""
    gpu: str | None = None
    precision: str = "exact"
    trunk: str = ""
    provider: str = "local"
    stage_seconds: dict[str, float] = Field(default_factory=dict)
    queue_seconds: float | None = None
    attempts: int = 1
    cost_usd: float = 0.0


class Diarization(_Frozen):
    """Who spoke when: the result of a job.

    Attributes:
        segments: Every turn, by start; turns of different speakers may overlap.
        exclusive_segments: The same with one speaker at a time, for merging with a transcript.
        speakers: Each voice, by label.
        audio_seconds: Length of the recording as decoded, in seconds.
        warnings: What the caller should know, such as a hint that could not be met.
        provenance: How the result came about.
    """

    segments: tuple[Turn, ...]
    exclusive_segments: tuple[Turn, ...] = ()
    speakers: tuple[Speaker, ...] = ()
    audio_seconds: float = Field(ge=0)
    warnings: tuple[str, ...] = ()
    provenance: Provenance = Provenance()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, as sent over the wire."""
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, data: Any) -> Diarization:
        """Read what `to_json` wrote.

        Raises:
            pydantic.ValidationError: The data is not a diarization.
        """
        return cls.model_validate(data)


def total_seconds(turns: tuple[Turn, ...]) -> tuple[Speaker, ...]:
    """Each speaker of `turns`, by label, with the seconds they talk, to the millisecond."""
    sums: dict[str, list[float]] = {}
    for turn in turns:
        sums.setdefault(turn.speaker, []).append(turn.seconds)
    return tuple(Speaker(speaker=name, total_seconds=round(math.fsum(sums[name]), 3)) for name in sorted(sums))


class SpeakerHints(BaseModel):
    """What the caller knows about the number of speakers. Nothing, by default.

    Attributes:
        num_speakers: How many people speak, from 1 to `MAX_SPEAKERS`; the other two are None then.
        min_speakers: At least so many, from 1.
        max_speakers: At most so many, up to `MAX_SPEAKERS`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    num_speakers: int | None = Field(default=None, ge=1, le=MAX_SPEAKERS)
    min_speakers: int | None = Field(default=None, ge=1, le=MAX_SPEAKERS)
    max_speakers: int | None = Field(default=None, ge=1, le=MAX_SPEAKERS)

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.num_speakers is not None and (self.min_speakers is not None or self.max_speakers is not None):
            raise ValueError("num_speakers says it all: leave min_speakers and max_speakers out")
        if self.min_speakers is not None and self.max_speakers is not None and self.min_speakers > self.max_speakers:
            raise ValueError(f"min_speakers {self.min_speakers} is more than max_speakers {self.max_speakers}")
        return self

    def given(self) -> dict[str, int]:
        """Those that were given."""
        return self.model_dump(exclude_none=True)

    @classmethod
    def check(cls, **hints: int | None) -> SpeakerHints:
        """Hints from a caller.

        Args:
            hints: How many speakers, by the names of the attributes.

        Raises:
            InvalidJob: They are out of range or contradict each other.
        """
        try:
            return cls(**hints)
        except ValidationError as error:
            raise InvalidJob(first_complaint(error)) from None


def first_complaint(error: ValidationError) -> str:
    """The first thing wrong, in one line, without the input (which may be a secret)."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where else message
