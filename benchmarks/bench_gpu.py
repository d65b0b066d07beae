"""On a GPU: one meeting by ours and stock in one run, then several jobs in a row: throughput, and how busy the GPU is.

    python -m benchmarks.bench_gpu [--minutes 60] [--jobs 6] [--job-minutes 20] [--processes 1 2]

Jobs in a row are whole, from an MP3 file to the turns, in processes that share the GPU as a worker's children do
(`side_by_side.py`). Exits with 1 where a turn of `exact` is not stock's, where it takes more than a third of stock's
time or than 5 s for an hour of audio, where `fast` takes more than 1.5 s, where as many processes as a worker has by
default keep the GPU less than 85 % busy with `exact` between the first job's networks and the last one's, or where
there is no GPU. The limits are for an H200. Figures are stored as they come, so that a run that is cut short leaves
those it had.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import asdict
from itertools import product
from pathlib import Path

import torch
from rich.console import Console

from benchmarks import side_by_side
from benchmarks.outcome import write
from diarization.benchmark import WIDTH, Row, compare, hardware, table
from diarization.device_lock import PROCESSES_PER_GPU

LEAST_GAIN = 3.0
LEAST_BUSY = 0.85
SECONDS_PER_AUDIO_HOUR = {"exact": 5.0, "fast": 1.5}


def shortfalls(rows: dict[str, Row], runs: list[side_by_side.Throughput]) -> list[str]:
    """What is not as it should be, a line each."""
    exact, stock = rows["exact"].run, rows["stock"].run
    found = [] if rows["exact"].same_turns else ["the turns of exact are not stock's"]
    if stock.seconds < LEAST_GAIN * exact.seconds:
        found.append(f"exact is {stock.seconds / exact.seconds:.1f} times as fast as stock, not {LEAST_GAIN:g}")
    for precision, most in SECONDS_PER_AUDIO_HOUR.items():
        run = rows[precision].run
        pace = run.seconds / run.result.audio_seconds * 3600
        if pace > most:
            found.append(f"{precision} takes {pace:.2f} s for an hour of audio, not {most:g}")
    busy = gpu_busy(runs)
    if busy is not None and busy < LEAST_BUSY:
        found.append(f"the GPU is {busy:.0%} busy, not {LEAST_BUSY:.0%}")
    return found


def gpu_busy(runs: list[side_by_side.Throughput]) -> float | None:
    """With `exact`, in as many processes as a worker has by default; None where that was not measured."""
    shares = (run.gpu_busy for run in runs if (run.precision, run.processes) == ("exact", PROCESSES_PER_GPU))
    return next(shares, None)


def main() -> int:
    """Run all, print, store the figures; the verdict comes last."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_gpu",
        description=f"{(__doc__ or '').splitlines()[0]} It should take six minutes on an H200, most of it to start "
        "processes.",
    )
    parser.add_argument("--minutes", type=int, default=60, help="length of the one meeting; default: 60")
    parser.add_argument("--jobs", type=int, default=6, help="jobs in a row; default: 6")
    parser.add_argument("--job-minutes", type=int, default=20, help="length of each of them; default: 20")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2], help="that share the GPU; default: 1 2")
    given = parser.parse_args()
    if not torch.cuda.is_available():
        sys.stderr.write("bench-gpu: this machine has no GPU that torch can use; nothing was measured\n")
        return 1
    console = Console(width=WIDTH)
    rows: dict[str, Row] = {}
    runs: list[side_by_side.Throughput] = []

    def store() -> None:
        alone = [row.to_json() for row in rows.values()]
        write("bench-gpu", {"rows": alone, "in_a_row": [asdict(run) for run in runs]})

    with tempfile.TemporaryDirectory() as folder:
        meeting, each = (Path(folder) / f"meeting-{minutes}-min.mp3" for minutes in (given.minutes, given.job_minutes))
        side_by_side.record(meeting, given.minutes)
        for row in compare(meeting, ["exact", "fast", "stock"], "cuda"):
            rows[row.run.contender] = row
            store()
        console.print(table(rows.values()))
        side_by_side.record(each, given.job_minutes)
        works = [side_by_side.Work(each, given.jobs, precision, None) for precision in SECONDS_PER_AUDIO_HOUR]
        for work, processes in product(works, given.processes):
            runs.append(side_by_side.measure(work, processes))
            store()
    console.print(side_by_side.table(runs))
    found = shortfalls(rows, runs)
    console.print(f"{hardware()['date']}, {hardware()['gpu']}")
    if gpu_busy(runs) is None:
        console.print(f"how busy {PROCESSES_PER_GPU} processes keep the GPU was not measured")
    console.print(f"bench-gpu: {'FAILED: ' + '; '.join(found) if found else 'ok'}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
