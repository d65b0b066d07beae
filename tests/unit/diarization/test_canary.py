"""What is told of an answer to the canary."""

from __future__ import annotations

import pytest

from diarization.canary import KNOWN_MODEL, TURNS, complaint
from diarization.turns import Diarization, Provenance, Turn

RIGHT = tuple(
    Turn(start=start, end=end, speaker=speaker) for (start, end), speaker in zip(TURNS, ("A", "B"), strict=True)
)


def answer(
    *turns: Turn, model: str = KNOWN_MODEL, precision: str = "exact", audio_seconds: float = 10.0
) -> Diarization:
    provenance = Provenance(model=model, precision=precision)
    return Diarization(segments=turns, audio_seconds=audio_seconds, provenance=provenance)


def moved(turn: Turn, seconds: float, speaker: str | None = None) -> Turn:
    return Turn(start=turn.start + seconds, end=turn.end + seconds, speaker=speaker or turn.speaker)


def test_the_known_answer_is_right_whatever_the_labels_and_the_last_frame() -> None:
    assert complaint(answer(*RIGHT)) is None
    assert complaint(answer(*reversed(RIGHT))) is None
    assert complaint(answer(moved(RIGHT[0], 0.05, "Z"), moved(RIGHT[1], -0.05, "Y"))) is None


@pytest.mark.parametrize(
    ("turns", "says"),
    [
        ((), "nobody speaks"),
        (RIGHT[:1], "became 0.60 to 3.29 A"),
        ((RIGHT[0], moved(RIGHT[1], 0.0, "A")), "became 0.60 to 3.29 A, 5.50 to 9.04 A"),
        ((moved(RIGHT[0], 0.2), RIGHT[1]), "became 0.80 to 3.49 A"),
        ((*RIGHT, RIGHT[1]), "became"),
    ],
)
def test_a_wrong_answer_is_told(turns: tuple[Turn, ...], says: str) -> None:
    assert says in str(complaint(answer(*turns)))


def test_another_model_must_only_hear_somebody_in_ten_seconds() -> None:
    for other in ({"model": "pyannote/speaker-diarization-3.1"}, {"precision": "fast"}):
        assert complaint(answer(RIGHT[0], **other)) is None
        assert complaint(answer(**other)) == "nobody speaks in it"
    assert complaint(answer(*RIGHT, audio_seconds=30)) == "10 s of audio came out as 30 s"
