"""Who spoke when, by pyannote.audio on this machine: loads once, then takes recordings one after the other.

The answer is stock's: the pipeline that `Pipeline.from_pretrained` gives is called as it is. Only the batch sizes differ,
which change no turn. Speed-ups replace steps of the pipeline in files of their own, and `load` puts them in.

torch's number of threads is left alone (as many as there are cores); `OMP_NUM_THREADS` sets it.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pyannote.core import SlidingWindowFeature

from diarization.decode import SAMPLE_RATE, decode
from diarization.device import choose_device, device_failure, gpu_name
from diarization.diarizer import DiarizerOptions, Report
from diarization.download import download
from diarization.hub import LoadedPipeline, load_pipeline
from diarization.recording import Recording
from diarization.turns import Diarization, Provenance, Speaker, SpeakerHints, Turn, total_seconds
from diarization.upstream import DiarizeOutput


@dataclass(frozen=True)
class BatchSizes:
    """Chunks of a segmentation batch, and (chunk, speaker) pairs of an embedding batch."""

    segmentation: int
    embedding: int


# Measured on CPUs with AVX-512: a batch that leaves the cache is slower by 1.6 (segmentation) and by 2 (embedding).
BATCH_SIZES = {"cpu": BatchSizes(segmentation=8, embedding=1), "cuda": BatchSizes(segmentation=32, embedding=32)}


def load(options: DiarizerOptions) -> PyannoteDiarizer:
    """Load the pipeline, move it to its device and run it once, so that the first job is as fast as the others.

    Raises:
        ModelUnavailable: The model or the device cannot be had.
        OutOfMemory: The device is too full for the model.
    """
    device = choose_device(options.device)
    loaded = load_pipeline(options.model, options.hf_token)
    diarizer = PyannoteDiarizer(loaded, device, options)
    diarizer.warm_up()
    return diarizer


class PyannoteDiarizer:
    """A `Diarizer`. One job at a time: the pipeline is not made for several threads."""

    def __init__(self, loaded: LoadedPipeline, device: torch.device, options: DiarizerOptions) -> None:
        self._pipeline = loaded.pipeline
        self._device = device
        self._options = options
        self._provenance = Provenance(
            model=loaded.name,
            revision=loaded.revision,
            versions=_versions(),
            device=str(device),
            gpu=gpu_name(device),
        )
        self._pipeline.segmentation_batch_size = BATCH_SIZES[device.type].segmentation
        self._pipeline.embedding_batch_size = BATCH_SIZES[device.type].embedding

    def warm_up(self) -> None:
        """Run every network once, on a second of noise in which three speakers are said to talk."""
        noise = np.random.default_rng(seed=0).standard_normal(SAMPLE_RATE, dtype=np.float32)
        file = _file(noise)

        def run() -> None:
            self._pipeline.to(self._device)
            self._pipeline(file)
            quiet = self._pipeline.get_segmentations(file)
            talk = SlidingWindowFeature(np.ones_like(quiet.data), quiet.sliding_window)
            self._pipeline.get_embeddings(file, talk, exclude_overlap=self._pipeline.embedding_exclude_overlap)

        self._on_device(run)

    def diarize(self, recording: Recording, hints: SpeakerHints, report: Report) -> Diarization:
        """Fetch, decode and diarize `recording`.

        Raises:
            PermanentError: The same recording would fail again.
            TransientError: It may succeed later or elsewhere.
            Cancelled: Raised by `report`; the model stays loaded and usable.
        """
        began = time.perf_counter()
        with download(recording, self._options, report) as path:
            downloaded = time.perf_counter()
            waveform = decode(path, max_audio_seconds=self._options.max_audio_seconds, report=report)
        decoded = time.perf_counter()
        result = self.diarize_waveform(waveform.samples, hints, report)
        before = {"download": round(downloaded - began, 3), "decode": round(decoded - downloaded, 3)}
        provenance = result.provenance.model_copy(
            update={"stage_seconds": before | result.provenance.stage_seconds},
        )
        return result.model_copy(update={"warnings": waveform.warnings + result.warnings, "provenance": provenance})
