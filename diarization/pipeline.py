"""Who spoke when, by pyannote.audio on this machine: loads once, then takes recordings one after the other.

The answer is stock's: the pipeline that `Pipeline.from_pretrained` gives is called as it is. Batch sizes differ, which
changes no turn, and exact speed-ups replace steps of the pipeline, each in a file of its own that says what it proves.
The precision `fast` trades a little of the answer for speed (`whole_trunk.py`).

torch's threads are left alone: as many as there are cores, or `OMP_NUM_THREADS`. They wait for each other by spinning;
where others use the cores, too, `OMP_WAIT_POLICY=PASSIVE` in the process's environment made a job three times as fast.
"""

from __future__ import annotations

import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from importlib.metadata import version
from types import TracebackType
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pyannote.core import SlidingWindowFeature

from diarization import __version__
from diarization.batches import FittingBatch, fit_segmentation
from diarization.chunkwise import convolve_chunkwise
from diarization.clustering import bound_clustering
from diarization.decode import SAMPLE_RATE, decode
from diarization.device import choose_device, device_failure, gpu_name
from diarization.device_lock import DeviceLock
from diarization.diarizer import DiarizerOptions, Report
from diarization.download import download, sweep_leftovers
from diarization.hub import LoadedPipeline, load_pipeline
from diarization.reconstruction import keep_small
from diarization.recording import Recording
from diarization.recurrent import recur_in_threads
from diarization.shared_trunk import share_trunk
from diarization.stages import StageWatch
from diarization.turns import Diarization, Provenance, Speaker, SpeakerHints, Turn, total_seconds
from diarization.upstream import DiarizeOutput, fix_reproducibility
from diarization.whole_trunk import whole_trunk

T = TypeVar("T")


@dataclass(frozen=True)
class BatchSizes:
    """Chunks of a segmentation batch and of an embedding batch, and 80-ms frames of a block of the whole trunk."""

    segmentation: int
    embedding: int
    block: int


# Measured on CPUs with AVX-512: an embedding batch that leaves the cache is slower by 2, a block of 60 s by 1.2 than
# one of 20 s; recurrent layers are fastest with 8 to 16 chunks. Those for a GPU are worked out, not measured: recurrent
# layers take 14 passes for an hour with 256 chunks in each, and 1 GB; 32 chunks are 1.4 TFLOP for the trunk, some 40 ms
# of the fastest GPU, and four minutes in half precision some 10 ms. `python -m benchmarks.batch_sizes` measures them.
BATCH_SIZES = {
    "cpu": BatchSizes(segmentation=16, embedding=1, block=250),
    "cuda": BatchSizes(segmentation=256, embedding=32, block=3000),
}


def load(options: DiarizerOptions) -> PyannoteDiarizer:
    """Load the pipeline, move it to its device and run it once, so that the first job is as fast as the others.

    Raises:
        ModelUnavailable: The model or the device cannot be had.
        OutOfMemory: The device is too full for the model.
    """
    sweep_leftovers()
    device = choose_device(options.device)
    loaded = load_pipeline(options.model, options.hf_token)
    diarizer = PyannoteDiarizer(loaded, device, options)
    diarizer.warm_up()
    return diarizer


class PyannoteDiarizer:
    """A `Diarizer`. One job at a time: the pipeline is not made for several threads.

    Attributes:
        device: Where the networks run.
        provenance: Of every result, as far as it is the same for all.
    """

    def __init__(self, loaded: LoadedPipeline, device: torch.device, options: DiarizerOptions) -> None:
        self._pipeline = loaded.pipeline
        self.device = device
        self._options = options
        self._lock = DeviceLock(options.device_lock)
        self.provenance = Provenance(
            model=loaded.name,
            revision=loaded.revision,
            versions=_versions(),
            device=str(device),
            gpu=gpu_name(device),
        )
        self._warnings: tuple[str, ...] = ()
        # The device is timed. A process that comes after a dead one would time it beside another's job, and keep what
        # it has found for its life.
        with self._lock.held(lambda: None):
            self._on_device(self._speed_up)

    def _speed_up(self) -> None:
        """Move the pipeline to its device, and replace those of its steps that can be had sooner."""
        pipeline, sizes = self._pipeline, BATCH_SIZES[self.device.type]
        pipeline.to(self.device)
        # As each call of the pipeline does: no TF32, also while ways to run the trunk are timed.
        fix_reproducibility(self.device)
        pipeline.segmentation_batch_size = sizes.segmentation
        pipeline.embedding_batch_size = sizes.embedding
        fit_segmentation(pipeline, FittingBatch(sizes.segmentation))
        keep_small(pipeline)
        convolve_chunkwise(pipeline)
        recur_in_threads(pipeline)
        self._clustering = bound_clustering(pipeline)
        is_fast = self._options.precision == "fast"
        if is_fast and (arithmetic := whole_trunk(pipeline, FittingBatch(sizes.block))):
            done = {"trunk": f"whole recording, {str(arithmetic).removeprefix('torch.')}", "precision": "fast"}
        else:
            is_shared = share_trunk(pipeline, FittingBatch(sizes.embedding))
            done = {"trunk": "per chunk, float32" if is_shared else "stock"}
            if is_fast:
                self._warnings = ("precision 'fast' does not know this model's speaker network; the answer is exact",)
        self.provenance = self.provenance.model_copy(update=done)

    def warm_up(self) -> None:
        """Run every network once, on noise in which three speakers are said to talk; on a GPU in full batches.

        What it does once for each size, choosing kernels and finding memory, then falls to no job.
        """
        sizes = BATCH_SIZES[self.device.type]
        chunks = sizes.segmentation if self.device.type == "cuda" else 1
        noise = np.random.default_rng(seed=0).standard_normal((9 + chunks) * SAMPLE_RATE, dtype=np.float32)
        file = _file(noise)

        def run() -> None:
            self._pipeline(_file(noise[:SAMPLE_RATE]))
            quiet = self._pipeline.get_segmentations(file)
            talk = SlidingWindowFeature(np.zeros_like(quiet.data), quiet.sliding_window)
            talk.data[: sizes.embedding] = 1
            self._pipeline.get_embeddings(file, talk, exclude_overlap=self._pipeline.embedding_exclude_overlap)

        with self._lock.held(lambda: None):
            try:
                self._on_device(run)
            finally:
                self._empty_cache()

    def diarize(self, recording: Recording, hints: SpeakerHints, report: Report) -> Diarization:
        """Fetch, decode and diarize `recording`.

        Raises:
            PermanentError: The same recording would fail again.
            TransientError: It may succeed later or elsewhere.
            Cancelled: Raised by `report`; the model stays loaded and usable.
        """
        options, began = self._options, time.perf_counter()
        with download(
            recording,
            allowed_networks=options.allowed_networks,
            recordings_dir=options.recordings_dir,
            max_bytes=options.max_bytes,
            timeout_seconds=options.download_timeout_seconds,
            stall_timeout_seconds=options.stall_timeout_seconds,
            report=report,
        ) as path:
            downloaded = time.perf_counter()
            waveform = decode(path, max_audio_seconds=options.max_audio_seconds, report=report)
        decoded = time.perf_counter()
        result = self.diarize_waveform(waveform.samples, hints, report)
        before = {"download": round(downloaded - began, 3), "decode": round(decoded - downloaded, 3)}
        provenance = result.provenance.model_copy(update={"stage_seconds": before | result.provenance.stage_seconds})
        return result.model_copy(update={"warnings": waveform.warnings + result.warnings, "provenance": provenance})

    def diarize_waveform(self, samples: NDArray[np.float32], hints: SpeakerHints, report: Report) -> Diarization:
        """Who spoke when in a waveform.

        As in stock, the last turn may end up to a tenth of a second after the recording does.

        Args:
            samples: Mono, 16 kHz, shape (samples,), any length.
            hints: One that cannot be met is a warning in the result.
            report: Called after each batch.

        Raises:
            OutOfMemory: The device ran out of memory; this job's is free again.
            DeviceLost: The GPU failed, for good where this process is concerned.
            Cancelled: Raised by `report`.
        """
        with ExitStack() as networks:
            networks.enter_context(self._lock.held(lambda: report("segmentation", 0, 0)))
            networks.push(self._give_memory_back)
            watch = StageWatch(report, networks_done=networks.close)
            with self._clustering.told_to(watch.clustering):
                output = self._on_device(lambda: self._apply(samples, hints, watch)) if len(samples) else None
        watch.finish()
        answer = output.serialize() if output else {"diarization": [], "exclusive_diarization": []}
        segments = tuple(Turn(**turn) for turn in answer["diarization"])
        speakers = total_seconds(segments)
        if self._options.embeddings and output:
            speakers = _with_embeddings(speakers, output)
        return Diarization(
            segments=segments,
            exclusive_segments=tuple(Turn(**turn) for turn in answer["exclusive_diarization"]),
            speakers=speakers,
            audio_seconds=len(samples) / SAMPLE_RATE,
            warnings=(*unmet_hints(hints, found=len(speakers)), *self._warnings),
            provenance=self.provenance.model_copy(update={"stage_seconds": watch.stage_seconds}),
        )

    def _apply(self, samples: NDArray[np.float32], hints: SpeakerHints, watch: StageWatch) -> DiarizeOutput:
        """Stock's answer; without the lower bound on the number of speakers where stock cannot meet it.

        Stock fails where it is to find more speakers than there are stretches of speech to tell apart. Then it is asked
        again without, with the segmentation and embeddings of the first time. Taking those from the file is a service
        of pyannote's for tuning its parameters, which is what it means by training.
        """
        file, bounds = _file(samples), _bounds(hints)
        try:
            return cast(DiarizeOutput, self._pipeline(file, hook=watch, **bounds))
        except ValueError:
            if watch.embeddings is None or bounds.pop("min_speakers") is None:
                raise
        threshold = getattr(self._pipeline.segmentation, "threshold", None)
        file["training_cache/segmentation"] = watch.segmentation
        file["training_cache/embeddings"] = {"embeddings": watch.embeddings, "segmentation.threshold": threshold}
        self._pipeline.training = True
        try:
            return cast(DiarizeOutput, self._pipeline(file, **bounds))
        finally:
            self._pipeline.training = False

    def _on_device(self, run: Callable[[], T]) -> T:
        """What `run` returns, with the failures of the device in our words.

        pyannote, torch and numpy warn of short recordings and of hints that are not met; `unmet_hints` says the latter
        in words. As errors they would even change the answer: pyannote finds the shortest waveform that it can embed by
        trying until none fails.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return run()
        except (RuntimeError, MemoryError) as error:
            if (failure := device_failure(error)) is None:
                raise
        # Out here nothing holds the frames in which the failed step's tensors live.
        raise failure

    def _give_memory_back(
        self, _kind: type[BaseException] | None, _error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """What an error's frames hold of the GPU, and torch for its next tensors, goes to whoever else needs it."""
        traceback.clear_frames(trace)
        self._empty_cache()

    def _empty_cache(self) -> None:
        if self.device.type == "cuda":
            with suppress(RuntimeError):  # a GPU that has failed refuses; the step that met it says so
                torch.cuda.empty_cache()


def _bounds(hints: SpeakerHints) -> dict[str, Any]:
    """`hints` as stock takes them; a number of speakers is a lower and an upper bound."""
    least, most = hints.num_speakers or hints.min_speakers, hints.num_speakers or hints.max_speakers
    return {"min_speakers": least, "max_speakers": most}


def unmet_hints(hints: SpeakerHints, found: int) -> tuple[str, ...]:
    """What the caller asked for and did not get, in words."""
    if hints.num_speakers is not None and found != hints.num_speakers:
        return (f"asked for {hints.num_speakers} speakers, found {found}",)
    if hints.min_speakers is not None and found < hints.min_speakers:
        return (f"asked for at least {hints.min_speakers} speakers, found {found}",)
    if hints.max_speakers is not None and found > hints.max_speakers:
        return (f"asked for at most {hints.max_speakers} speakers, found {found}",)
    return ()


def _with_embeddings(speakers: tuple[Speaker, ...], output: DiarizeOutput) -> tuple[Speaker, ...]:
    """Each speaker with the centroid of their embeddings, where there is one.

    Of a speaker who is never heard alone for long enough stock has no centroid: a row of NaN, or of zeros.
    """
    rows = (
        {}
        if output.speaker_embeddings is None
        else dict(zip(output.speaker_diarization.labels(), output.speaker_embeddings, strict=True))
    )
    known = {label: tuple(map(float, row)) for label, row in rows.items() if np.isfinite(row).all() and row.any()}
    return tuple(speaker.model_copy(update={"embedding": known.get(speaker.speaker)}) for speaker in speakers)


def _file(samples: NDArray[np.float32]) -> dict[str, Any]:
    """A recording as pyannote takes it from memory: shape (1, samples)."""
    return {"waveform": torch.from_numpy(samples)[None], "sample_rate": SAMPLE_RATE}


def _versions() -> dict[str, str]:
    return {"diarize-queue": __version__, **{name: version(name) for name in ("pyannote.audio", "torch")}}
