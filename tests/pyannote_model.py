"""The real model, loaded once for all tests of a run, and recordings cut from the sample."""

from __future__ import annotations

from functools import cache

import numpy as np
import soundfile
from numpy.typing import NDArray

from diarization.diarizer import BUNDLED_MODEL, DiarizerOptions
from diarization.hub import load_pipeline
from diarization.pipeline import PyannoteDiarizer, load
from diarization.upstream import SpeakerDiarization
from tests.processes import ROOT

RECORDINGS = ROOT / "recordings"
SAMPLE = RECORDINGS / "sample" / "sample.wav"
SAMPLE_RATE = 16_000


@cache
def pyannote() -> PyannoteDiarizer:
    """The bundled model on the CPU, embeddings included; reads `file://` URLs below the recordings that come along."""
    return load(DiarizerOptions(model=str(BUNDLED_MODEL), device="cpu", embeddings=True, recordings_dir=RECORDINGS))


@cache
def untouched() -> SpeakerDiarization:
    """The bundled pipeline as pyannote loads it, on the CPU: stock."""
    return load_pipeline(str(BUNDLED_MODEL)).pipeline


def sample(start: float = 0.0, end: float = 30.0) -> NDArray[np.float32]:
    """Seconds `start` to `end` of the sample, whose first turn is at 6.7 s; 10 s are one chunk for the model."""
    samples, rate = soundfile.read(SAMPLE, dtype="float32")
    assert rate == SAMPLE_RATE
    return np.ascontiguousarray(samples[int(start * rate) : int(end * rate)])
