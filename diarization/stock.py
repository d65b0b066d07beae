"""Stock pyannote on the same waveform: the yardstick for turns and for speed.

    python -m diarization.stock FILE [--model DIR] [--reference RTTM] [--segmentation-batch N] [--embedding-batch N]

Nothing of ours touches the pipeline here; given a pair of batch sizes, it alone is changed (turns stay the same).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from diarization.decode import SAMPLE_RATE, decode
from diarization.device import choose_device, gpu_name
from diarization.diarizer import BUNDLED_MODEL
from diarization.errors import DiarizationError
from diarization.scoring import der, read_rttm
from diarization.stages import StageWatch
from diarization.turns import Diarization, Provenance, SpeakerHints, Turn, total_seconds
from diarization.upstream import Pipeline

MAX_AUDIO_SECONDS = 48 * 3600.0


def stock_diarization(
    samples: NDArray[np.float32],
    model: str,
    hints: SpeakerHints | None = None,
    *,
    token: str | None = None,
    device: str = "cpu",
    batch_sizes: tuple[int, int] | None = None,
) -> tuple[Diarization, float]:
    """What `Pipeline.from_pretrained(model)` answers, and the wall seconds it took (without loading).

    Args:
        samples: Mono, 16 kHz, shape (samples,).
        model: Folder or hub name.
        hints: Passed on; stock raises ValueError where it cannot meet them.
        token: For the hub.
        device: As `DIARIZATION_DEVICE`.
        batch_sizes: Of segmentation and embedding; None leaves what the model's config says (32 and 32).

    Raises:
        ValueError: Stock cannot load the model, or cannot take the waveform or the hints.
        ModelUnavailable: There is no such device.
    """
    chosen = choose_device(device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline = Pipeline.from_pretrained(model, token=token)
        if pipeline is None:
            raise ValueError(f"stock pyannote cannot load {model}")
        pipeline.to(chosen)
        if batch_sizes:
            pipeline.segmentation_batch_size, pipeline.embedding_batch_size = batch_sizes
        watch = StageWatch(lambda stage, done, total: None)
        began = time.perf_counter()
        output: Any = pipeline(
            {"waveform": torch.from_numpy(samples)[None], "sample_rate": SAMPLE_RATE},
            hook=watch,
            **(hints or SpeakerHints()).model_dump(),
        )
        watch.finish()
        seconds = time.perf_counter() - began
    answer = output.serialize()
    segments = tuple(Turn(**turn) for turn in answer["diarization"])
    result = Diarization(
        segments=segments,
        exclusive_segments=tuple(Turn(**turn) for turn in answer["exclusive_diarization"]),
        speakers=total_seconds(segments),
        audio_seconds=len(samples) / SAMPLE_RATE,
        provenance=Provenance(
            model=Path(model).name,
            device=str(chosen),
            gpu=gpu_name(chosen),
            trunk="stock",
            stage_seconds=watch.stage_seconds,
        ),
    )
    return result, seconds


def main(arguments: list[str] | None = None) -> None:
    """Print the answer, the seconds and, with a reference, the DER (collar 0, overlap scored) as JSON."""
    parser = argparse.ArgumentParser(prog="python -m diarization.stock", description="Stock pyannote on a local file.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--model", default=str(BUNDLED_MODEL), help="folder or hub name; default: the bundled model")
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda or cuda:N; default: cpu")
    parser.add_argument("--reference", type=Path, metavar="RTTM")
    parser.add_argument("--segmentation-batch", type=int, metavar="N", help="default: as the model's config says")
    parser.add_argument("--embedding-batch", type=int, metavar="N", help="likewise; both or none")
    given = parser.parse_args(arguments)
    if (given.segmentation_batch is None) != (given.embedding_batch is None):
        parser.error("give both batch sizes, or none")
    batches = (given.segmentation_batch, given.embedding_batch) if given.segmentation_batch else None
    try:
        with redirect_stdout(sys.stderr):  # pyannote prints; here standard output is JSON and nothing else
            waveform = decode(given.file, max_audio_seconds=MAX_AUDIO_SECONDS, report=lambda stage, done, total: None)
            result, seconds = stock_diarization(waveform.samples, given.model, device=given.device, batch_sizes=batches)
        answer = {"diarization": result.to_json(), "seconds": round(seconds, 3)}
        if given.reference:
            answer["der"] = asdict(der(read_rttm(given.reference), result.segments))
    except (DiarizationError, ValueError, OSError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
