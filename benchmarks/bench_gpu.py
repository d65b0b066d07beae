"""On a GPU: one meeting by ours and stock in one run, then several jobs in a row: throughput, and how busy the GPU is.

    python -m benchmarks.bench_gpu [--minutes 60] [--jobs 3] [--seconds-per-hour 5]

Busy is the share of the time, from the first file to the last turn, in which a kernel runs, as the driver
counts it (`nvidia-smi`). Jobs run one after the other in one process, as in a worker. Exits with 1 where a turn
of `exact` is not stock's, where `exact` takes more than a third of stock's time or than `--seconds-per-hour`, or
where there is no GPU.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import soundfile
import torch
from rich.console import Console

from benchmarks.make_meeting import SAMPLE_RATE, mix
from benchmarks.outcome import write
from diarization.benchmark import WIDTH, compare, hardware, table
from diarization.diarizer import BUNDLED_MODEL, DiarizerOptions
from diarization.pipeline import load
from diarization.recording import Recording
from diarization.turns import SpeakerHints

LEAST_GAIN = 3.0
SAMPLE_MILLISECONDS = 200


def jobs_in_a_row(path: Path, precision: str, jobs: int) -> dict[str, Any]:
    """Diarize a file several times; seconds an audio hour, and the share of time that the GPU is busy."""
    options = DiarizerOptions(str(BUNDLED_MODEL), device="cuda", precision=precision, recordings_dir=path.parent)
    diarizer = load(options)
    query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--id=0"]
    busy = subprocess.Popen([*query, f"--loop-ms={SAMPLE_MILLISECONDS}"], stdout=subprocess.PIPE, text=True)
    began, audio = time.perf_counter(), 0.0
    for _ in range(jobs):
        result = diarizer.diarize(Recording(f"file://{path}"), SpeakerHints(), lambda stage, done, total: None)
        audio += result.audio_seconds
    seconds = time.perf_counter() - began
    busy.terminate()
    samples = [float(sample) for sample in busy.communicate()[0].split()]
    return {
        "precision": precision,
        "jobs": jobs,
        "seconds_per_audio_hour": seconds / audio * 3600,
        "busy": statistics.fmean(samples) / 100 if samples else None,
        "gpu_peak_bytes": torch.cuda.max_memory_allocated(),
        "gpu_kept_bytes": torch.cuda.memory_reserved(),
    }


def main() -> int:
    """Run all, print, store the figures; the verdict comes last."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_gpu", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=int, default=60, help="length of the meeting; default: 60")
    parser.add_argument("--jobs", type=int, default=3, help="jobs in a row; default: 3")
    parser.add_argument("--seconds-per-hour", type=float, default=5.0, help="what exact may take; default: 5")
    given = parser.parse_args()
    if not torch.cuda.is_available():
        sys.stderr.write("bench-gpu: this machine has no GPU that torch can use; nothing was measured\n")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"meeting-{given.minutes}-min.wav"
        samples, _ = mix(given.minutes, 8, 3, overlap=0.12, snr_db=30)
        soundfile.write(path, samples, SAMPLE_RATE, subtype="FLOAT")
        rows = {row.run.contender: row for row in compare(path, ["exact", "fast", "stock"], "cuda")}
        rows_in_a_row = [jobs_in_a_row(path, precision, given.jobs) for precision in ("exact", "fast")]
    write("bench-gpu", {"rows": [row.to_json() for row in rows.values()], "in_a_row": rows_in_a_row})
    console, exact = Console(width=WIDTH), rows["exact"]
    console.print(table(rows.values()))
    for run in rows_in_a_row:
        busy = "unknown" if run["busy"] is None else f"{run['busy']:.0%}"
        pace = f"{run['seconds_per_audio_hour']:.1f} s an audio hour"
        console.print(f"{run['jobs']} jobs in a row, {run['precision']}: {pace}, GPU busy: {busy}")
    gain = rows["stock"].run.seconds / exact.run.seconds
    pace = exact.run.seconds / given.minutes * 60
    ok = bool(exact.same_turns) and gain >= LEAST_GAIN and pace <= given.seconds_per_hour
    console.print(f"{hardware()['date']}, {hardware()['gpu']}")
    turns = "stock's turns" if exact.same_turns else "TURNS DIFFER"
    console.print(
        f"bench-gpu: {'ok' if ok else 'FAILED'}; exact {gain:.1f} x stock, {pace:.1f} s an audio hour, {turns}"
    )
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
