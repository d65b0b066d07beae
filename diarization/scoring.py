"""How far an answer is from a reference: the diarization error rate (DER), by pyannote.metrics."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pyannote.core import Annotation, Segment, Timeline
from pyannote.metrics.diarization import DiarizationErrorRate as PyannoteDiarizationErrorRate

from diarization.turns import Turn

Span = tuple[float, float]
"""Start and end in seconds."""


@dataclass(frozen=True)
class DiarizationErrorRate:
    """A DER, what it is made of, and the variant it is.

    Attributes:
        der: `missed + false_alarm + confusion` as a share of `total`; above 1 where more is wrong than was said. With a
            reference that holds no speech, 0 where the answer holds none either, else 1.
        missed: Seconds of speech (each speaker's for itself) that the answer lacks.
        false_alarm: Seconds that nobody talked in.
        confusion: Seconds given to another speaker.
        total: Seconds of speech in the reference, overlaps counted for each speaker.
        collar: Seconds left out around each boundary of the reference, half before and half after.
        skip_overlap: Whether stretches where several talk were left out.
    """

    der: float
    missed: float
    false_alarm: float
    confusion: float
    total: float
    collar: float
    skip_overlap: bool


def der(
    reference: Iterable[Turn],
    hypothesis: Iterable[Turn],
    collar: float = 0.0,
    skip_overlap: bool = False,
    uem: Iterable[Span] | None = None,
) -> DiarizationErrorRate:
    """Score an answer, with the mapping of speakers that is best for it.

    Args:
        reference: Who spoke when, as people say.
        hypothesis: Who spoke when, as the model says.
        collar: Seconds left out around each boundary of the reference, half before and half after: NIST's collar of
            0.25 s is 0.5 here.
        skip_overlap: Leave out where several talk.
        uem: What is scored, (start, end) in seconds; None is from the first turn of both to the last.
    """
    expected, answered = _annotation(reference), _annotation(hypothesis)
    if uem is None:
        extent = expected.get_timeline().extent() | answered.get_timeline().extent()
        uem = [(extent.start, extent.end)] if extent else []
    metric = PyannoteDiarizationErrorRate(collar=collar, skip_overlap=skip_overlap)
    parts = metric(expected, answered, uem=Timeline([Segment(*span) for span in uem]), detailed=True)
    return DiarizationErrorRate(
        der=float(parts["diarization error rate"]),
        missed=float(parts["missed detection"]),
        false_alarm=float(parts["false alarm"]),
        confusion=float(parts["confusion"]),
        total=float(parts["total"]),
        collar=collar,
        skip_overlap=skip_overlap,
    )


def read_rttm(path: Path, recording: str | None = None) -> tuple[Turn, ...]:
    """Turns of one recording in an RTTM file (NIST's Rich Transcription Time Marked), by start.

    Args:
        path: The file. Lines that are not of type SPEAKER are passed over.
        recording: Which of several recordings; not needed where the file holds one.

    Raises:
        ValueError: A line cannot be read, or the file holds several recordings and none was named.
    """
    turns: dict[str, list[Turn]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        fields = line.split()
        if not fields or fields[0] != "SPEAKER":
            continue
        try:
            _, name, _, start, seconds, _, _, speaker = fields[:8]
            turn = Turn(start=float(start), end=float(start) + float(seconds), speaker=speaker)
        except ValueError:
            raise ValueError(f"line {number} of {path.name} is no RTTM: {line[:80]!r}") from None
        turns.setdefault(name, []).append(turn)
    if recording is None and len(turns) > 1:
        raise ValueError(f"{path.name} holds {len(turns)} recordings; name one of {', '.join(sorted(turns))}")
    chosen = turns.get(recording, []) if recording else [turn for group in turns.values() for turn in group]
    return tuple(sorted(chosen, key=lambda turn: (turn.start, turn.end)))


def read_uem(path: Path, recording: str | None = None) -> tuple[Span, ...]:
    """Spans that are to be scored, from a UEM file: lines of name, channel, start and end.

    Raises:
        ValueError: A line cannot be read.
    """
    spans = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not (fields := line.split()) or fields[0].startswith(";"):
            continue
        try:
            name, _, start, end = fields
            span = (float(start), float(end))
        except ValueError:
            raise ValueError(f"line {number} of {path.name} is no UEM: {line[:80]!r}") from None
        if recording in (None, name):
            spans.append(span)
    return tuple(spans)


def _annotation(turns: Iterable[Turn]) -> Annotation:
    annotation = Annotation()
    for track, turn in enumerate(turns):
        annotation[Segment(turn.start, turn.end), track] = turn.speaker
    return annotation
