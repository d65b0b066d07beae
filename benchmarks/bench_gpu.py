"""On a GPU: one meeting by ours and stock in one run, then several jobs in a row: throughput, and how busy the GPU is.

    python -m benchmarks.bench_gpu [--minutes 60] [--jobs 6] [--processes 1 2 3]

Jobs in a row are whole, from an MP3 file to the turns, in processes that share the GPU as a worker's children do
(`side_by_side.py`). Exits with 1 where a turn of `exact` is not stock's, where it takes more than a third of stock's
time or than 5 s for an hour of audio, where `fast` takes more than 1.5 s, where as many processes as a worker has by
default keep the GPU less than 85 % busy with `exact`, or where there is no GPU. The limits are for an H200.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import asdict
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
    busy = [run.gpu_busy or 0.0 for run in runs if (run.precision, run.processes) == ("exact", PROCESSES_PER_GPU)]
    found += [f"the GPU is {share:.0%} busy, not {LEAST_BUSY:.0%}" for share in busy if share < LEAST_BUSY]
    return found


def main() -> int:
    """Run all, print, store the figures; the verdict comes last."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_gpu", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=int, default=60, help="length of the meeting; default: 60")
    parser.add_argument("--jobs", type=int, default=6, help="jobs in a row; default: 6")
    parser.add_argument(
        "--processes", type=int, nargs="+", default=[1, 2, 3], help="that share the GPU; default: 1 2 3"
    )
    given = parser.parse_args()
    if not torch.cuda.is_available():
        sys.stderr.write("bench-gpu: this machine has no GPU that torch can use; nothing was measured\n")
        return 1
    console = Console(width=WIDTH)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"meeting-{given.minutes}-min.mp3"
        side_by_side.record(path, given.minutes)
        rows = {row.run.contender: row for row in compare(path, ["exact", "fast", "stock"], "cuda")}
        console.print(table(rows.values()))
        works = [side_by_side.Work(path, given.jobs, precision, None) for precision in SECONDS_PER_AUDIO_HOUR]
        runs = [side_by_side.measure(work, processes) for work in works for processes in given.processes]
    console.print(side_by_side.table(runs))
    write("bench-gpu", {"rows": [row.to_json() for row in rows.values()], "in_a_row": [asdict(run) for run in runs]})
    found = shortfalls(rows, runs)
    console.print(f"{hardware()['date']}, {hardware()['gpu']}")
    console.print(f"bench-gpu: {'FAILED: ' + '; '.join(found) if found else 'ok'}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
