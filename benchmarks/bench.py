"""Ours and stock pyannote on the same waveforms, one after the other in one run: turns, DER, seconds.

    python -m benchmarks.bench [--minutes 3 5] [--as-shipped]

The recordings are the sample, three AMI clips and mixed meetings. Stock runs with batches of 8 and 1, which give the
same turns as its own 32 and 32 in half the time on a CPU; `--as-shipped` leaves it as it is. DER: collar 0, overlap
scored. Exits with 1 where a turn differs.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.make_meeting import mix
from diarization.decode import SAMPLE_RATE, decode
from diarization.diarizer import BUNDLED_MODEL, DiarizerOptions
from diarization.pipeline import load
from diarization.scoring import der, read_rttm
from diarization.stock import stock_diarization
from diarization.turns import SpeakerHints, Turn

RECORDINGS = Path(__file__).resolve().parent.parent / "recordings"
SPEAKERS, SEED = {3: 3, 5: 4}, {3: 21, 5: 1}


def recordings(minutes: list[int]) -> Iterator[tuple[str, object, tuple[Turn, ...]]]:
    """Name, samples (mono, 16 kHz) and reference of each."""
    for path in [RECORDINGS / "sample" / "sample.wav", *sorted((RECORDINGS / "ami").glob("*.wav"))]:
        waveform = decode(path, max_audio_seconds=3600, report=lambda stage, done, total: None)
        yield path.stem, waveform.samples, read_rttm(path.with_suffix(".rttm"))
    for length in minutes:
        samples, turns = mix(length, SPEAKERS.get(length, 4), SEED.get(length, 1), overlap=0.12, snr_db=30)
        yield f"meeting of {length} min", samples, tuple(Turn(start=a, end=b, speaker=name) for a, b, name in turns)


def main() -> int:
    """Run all, print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=int, nargs="*", default=[3], help="lengths of mixed meetings; default: 3")
    parser.add_argument("--as-shipped", action="store_true", help="stock with its own batch sizes")
    given = parser.parse_args()
    ours = load(DiarizerOptions(model=str(BUNDLED_MODEL)))
    table = Table("recording", "turns", "ours DER", "stock DER", "ours s", "stock s", "stock / ours", "same turns")
    differ = 0
    for name, samples, reference in recordings(given.minutes):
        began = time.perf_counter()
        found = ours.diarize_waveform(samples, SpeakerHints(), lambda stage, done, total: None)
        seconds = time.perf_counter() - began
        batches = None if given.as_shipped else (8, 1)
        expected, stock_seconds = stock_diarization(
            samples, str(BUNDLED_MODEL), device=found.provenance.device, batch_sizes=batches
        )
        same = found.segments == expected.segments and found.exclusive_segments == expected.exclusive_segments
        differ += not same
        table.add_row(
            name,
            str(len(found.segments)),
            f"{der(reference, found.segments).der:.2%}",
            f"{der(reference, expected.segments).der:.2%}",
            f"{seconds:.1f}",
            f"{stock_seconds:.1f}",
            f"{stock_seconds / seconds:.2f}",
            "yes" if same else "NO",
        )
        sys.stderr.write(f"{name}: {'same turns' if same else 'TURNS DIFFER'}\n")
    console = Console()
    console.print(table)
    console.print(
        f"{datetime.now(UTC):%Y-%m-%d}, {found.provenance.device}, {platform.processor() or platform.machine()}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}; "
        f"sample rate {SAMPLE_RATE}; stock with {'its own batches' if given.as_shipped else 'batches of 8 and 1'}"
    )
    console.print(f"bench: {differ} differ" if differ else "bench: ok, all turns are stock's")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
