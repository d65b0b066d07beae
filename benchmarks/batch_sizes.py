"""What a device takes for each batch size of the networks: seconds and memory, one network at a time.

    python -m benchmarks.batch_sizes [--device auto] [--minutes 10] [--segmentation 16 32 …] [--embedding …] [--block …]

What stands in `diarization.pipeline.BATCH_SIZES` comes from here. The meeting is mixed, its waveform in memory, and
diarized twice: what a GPU's libraries and allocator do once for each new size is left to the first time.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.bench_memory import ignore
from benchmarks.make_meeting import mix
from benchmarks.outcome import write
from diarization.device import choose_device
from diarization.diarizer import BUNDLED_MODEL, DiarizerOptions
from diarization.pipeline import BATCH_SIZES, load
from diarization.turns import SpeakerHints

SIZES = {
    "segmentation": (8, 16, 32, 64, 128, 256, 512),
    "embedding": (1, 8, 16, 32, 64, 128),
    "block": (125, 250, 750, 1500, 3000, 6000),
}
STAGES = {"segmentation": "segmentation", "embedding": "embedding", "block": "embedding"}


@dataclass(frozen=True)
class Row:
    """One size of one batch, the others as they are: what its network took, and the device's memory at its peak."""

    batch: str
    size: int
    seconds_per_audio_hour: float
    gpu_peak_bytes: int | None


def measure(device: torch.device, minutes: int, sizes: dict[str, list[int]]) -> Iterator[Row]:
    """All sizes, each in a pipeline that is loaded for it."""
    samples, _ = mix(minutes, 4, 1, overlap=0.12, snr_db=30)
    shipped = BATCH_SIZES[device.type]
    for batch, candidates in sizes.items():
        precision = "fast" if batch == "block" else "exact"
        for size in candidates:
            BATCH_SIZES[device.type] = replace(shipped, **{batch: size})
            diarizer = load(DiarizerOptions(str(BUNDLED_MODEL), device=str(device), precision=precision))
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            for _ in range(2):
                result = diarizer.diarize_waveform(samples, SpeakerHints(), ignore)
            seconds = result.provenance.stage_seconds[STAGES[batch]]
            peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
            yield Row(batch, size, seconds * 60 / minutes, peak)


def main() -> int:
    """Measure, print a table, store the figures."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.batch_sizes", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N; default: auto")
    parser.add_argument("--minutes", type=int, default=10, help="length of the meeting; default: 10")
    for batch, candidates in SIZES.items():
        parser.add_argument(f"--{batch}", type=int, nargs="*", default=candidates, help="default: %(default)s")
    given = parser.parse_args()
    device = choose_device(given.device)
    rows, shown = [], Table("batch", "size", "s an audio hour", "GPU's memory, GB")
    for row in measure(device, given.minutes, {batch: getattr(given, batch) for batch in SIZES}):
        rows.append(row)
        memory = "" if row.gpu_peak_bytes is None else f"{row.gpu_peak_bytes / 1e9:.2f}"
        shown.add_row(row.batch, str(row.size), f"{row.seconds_per_audio_hour:.2f}", memory)
        write("batch-sizes", {"device": str(device), "minutes": given.minutes, "rows": [asdict(row) for row in rows]})
    Console().print(shown)
    return 0


if __name__ == "__main__":
    sys.exit(main())
