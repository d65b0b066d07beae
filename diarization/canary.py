"""A recording that comes along, `bundled:canary`, and its known answer: whether a worker really diarizes.

Ten seconds in which two people speak in turn: utterance 3005-163389-0002 of LibriSpeech's test-other from 0.1 s on, and
3080-5032-0000 from 5 s on, each at half of full scale (`recordings/NOTICE.md`). Every worker has it, at home and at
RunPod, so that a job can be tried without a file server, an address that the worker can reach, or anybody's meeting.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from diarization.recording import BUNDLED_SCHEME
from diarization.turns import Diarization

NAME: Final = "canary"
URL: Final = f"{BUNDLED_SCHEME}:{NAME}"
CLIP: Final = Path(__file__).with_name("canary.flac")
AUDIO_SECONDS: Final = 10.0

KNOWN_MODEL: Final = "speaker-diarization-community-1"
TURNS: Final = ((0.60, 3.29), (5.50, 9.04))
"""Start and end in seconds of what each of the two says, as stock pyannote.audio 4.0.7 with that model has it."""
TOLERANCE_SECONDS: Final = 0.1
"""The same network on another device may move a boundary by a few of its frames of 17 ms."""


def complaint(answer: Diarization) -> str | None:
    """What is wrong with an answer to the canary; None where it is right.

    Of another model than the bundled one only is asked that somebody speaks, and of `fast` no more.
    """
    if abs(answer.audio_seconds - AUDIO_SECONDS) > TOLERANCE_SECONDS:
        return f"{AUDIO_SECONDS:g} s of audio came out as {answer.audio_seconds:g} s"
    turns = sorted(answer.segments, key=lambda turn: turn.start)
    if not turns:
        return "nobody speaks in it"
    made_by = answer.provenance
    if KNOWN_MODEL not in made_by.model or made_by.precision != "exact":
        return None
    said = [(turn.start, turn.end) for turn in turns]
    near = len(said) == len(TURNS) and all(
        abs(is_at - should_be) <= TOLERANCE_SECONDS
        for one, other in zip(said, TURNS, strict=True)
        for is_at, should_be in zip(one, other, strict=True)
    )
    if near and len({turn.speaker for turn in turns}) == len(TURNS):
        return None
    known = ", ".join(f"{start:.2f} to {end:.2f}" for start, end in TURNS)
    came = ", ".join(f"{turn.start:.2f} to {turn.end:.2f} {turn.speaker}" for turn in turns)
    return f"two people who speak from {known} s became {came}"
