"""Peak memory of whole jobs of 1, 3 and 10 hours, and that what follows the networks gives stock's turns.

    python -m benchmarks.bench_memory [--hours 1 3 10] [--stock-hours 1 3]

Each job is real from the file on disk to the turns, in a process of its own, but for the networks: on a CPU they would
take hours. They take a meeting of three minutes, so that their working memory counts, and what they give is repeated,
with a little noise so that no two embeddings are the same. Stock gets the very same. Ten hours of it need 15 GB of
memory, hence `--stock-hours`. Exits with 1 where memory grows by more than 300 MB an hour or beyond what
`diarization/memory.py` promises, or where turns differ.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from pyannote.core import SlidingWindowFeature
from rich.console import Console
from rich.table import Table

from benchmarks.make_meeting import SAMPLE_RATE, mix
from benchmarks.outcome import line, plot, write
from diarization.benchmark import process_memory
from diarization.diarizer import BUNDLED_MODEL, DiarizerOptions
from diarization.hub import load_pipeline
from diarization.memory import needed_bytes
from diarization.pipeline import load
from diarization.recording import Recording
from diarization.stages import StageWatch
from diarization.turns import SpeakerHints

MINUTES = 3
NOISE = 0.02
"""Of the embeddings' standard deviation."""
MOST_BYTES_PER_HOUR = 300e6


def ignore(stage: str, done: int, total: int) -> None:
    """A report nobody reads."""


def repeat_networks(pipeline: Any, hours: float) -> None:
    """Let `pipeline`'s networks take three minutes, and then, for any recording, give what they gave, repeated."""
    samples, _ = mix(MINUTES, 3, 21, overlap=0.12, snr_db=30)
    file = {"waveform": torch.from_numpy(samples)[None], "sample_rate": SAMPLE_RATE}
    talking = pipeline.get_segmentations(file)
    embeddings = pipeline.get_embeddings(file, talking, exclude_overlap=pipeline.embedding_exclude_overlap)
    turn = np.arange(int(hours * 3600) - 9) % len(embeddings)
    noise = np.random.default_rng(0).standard_normal((len(turn), *embeddings.shape[1:]), dtype=np.float32)
    noise *= NOISE * embeddings.std()
    noise += embeddings[turn]
    long = SlidingWindowFeature(talking.data[turn], talking.sliding_window)
    pipeline.get_segmentations = lambda file, hook=None: long
    pipeline.get_embeddings = lambda file, talking, exclude_overlap=False, hook=None: noise


def ours(path: Path, hours: float) -> dict[str, Any]:
    """A job from the file to the turns."""
    diarizer = load(DiarizerOptions(str(BUNDLED_MODEL), device="cpu", precision="fast", recordings_dir=path.parent))
    loaded = process_memory("VmRSS")
    repeat_networks(diarizer._pipeline, hours)
    result = diarizer.diarize(Recording(f"file://{path}"), SpeakerHints(), ignore)
    return {
        "loaded_bytes": loaded,
        "peak_bytes": process_memory("VmHWM"),
        "stage_seconds": result.provenance.stage_seconds,
        "turns": [[t.start, t.end, t.speaker] for t in result.segments + result.exclusive_segments],
    }


def stock(path: Path, hours: float) -> dict[str, Any]:
    """Stock's pipeline from the same outputs of the networks on."""
    diarizer = load(DiarizerOptions(str(BUNDLED_MODEL), device="cpu", precision="fast"))
    repeat_networks(fast := diarizer._pipeline, hours)
    pipeline: Any = load_pipeline(str(BUNDLED_MODEL)).pipeline
    small = fast.get_segmentations(None)
    floats = SlidingWindowFeature(small.data.astype(np.float32), small.sliding_window)
    pipeline.get_segmentations, pipeline.get_embeddings = lambda file, hook=None: floats, fast.get_embeddings
    watch, loaded = StageWatch(ignore), process_memory("VmRSS")
    file = {"waveform": torch.zeros(1, int(hours * 3600) * SAMPLE_RATE), "sample_rate": SAMPLE_RATE}
    began = time.perf_counter()
    answer = pipeline(file, hook=watch).serialize()
    tracks = answer["diarization"] + answer["exclusive_diarization"]
    return {
        "loaded_bytes": loaded,
        "peak_bytes": process_memory("VmHWM"),
        "stage_seconds": {"clustering": round(time.perf_counter() - began, 3)},
        "turns": [[turn["start"], turn["end"], turn["speaker"]] for turn in tracks],
    }


def apart(who: str, path: Path, hours: float) -> dict[str, Any]:
    """`ours` or `stock` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.bench_memory", "--run", who, str(path), "--hours", f"{hours:g}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    sys.stderr.write(f"{who}, {hours:g} h: peak {figures['peak_bytes'] / 1e9:.2f} GB\n")
    return figures | {"by": who, "hours": hours}


def record(path: Path, hours: float) -> None:
    """A recording of noise, as 16-bit samples."""
    noise = (1000 * np.random.default_rng(0).standard_normal(SAMPLE_RATE * 60)).astype(np.int16)
    with soundfile.SoundFile(path, "w", SAMPLE_RATE, 1, subtype="PCM_16") as file:
        for _ in range(int(hours * 60)):
            file.write(noise)


def measure(hours: list[float], stock_hours: list[float]) -> list[dict[str, Any]]:
    """All runs, the shortest first."""
    runs = []
    for length in sorted(hours):
        with tempfile.TemporaryDirectory() as folder:
            record(path := Path(folder) / "recording.wav", length)
            runs.append(apart("ours", path, length))
            if length in stock_hours:
                runs.append(apart("stock", path, length))
                runs[-2]["same_turns"] = runs[-1]["turns"] == runs[-2]["turns"]
    for run in runs:
        run["turns"] = len(run["turns"])
    return runs


def main() -> int:
    """Run all, print a table, store figures and plot; the verdict comes last."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_memory", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--hours", type=float, nargs="+", default=[1, 3, 10], help="default: 1 3 10")
    parser.add_argument(
        "--stock-hours", type=float, nargs="*", default=[1, 3], help="of these stock, too; default: 1 3"
    )
    parser.add_argument("--run", nargs=2, metavar=("WHO", "FILE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        run = {"ours": ours, "stock": stock}[given.run[0]]
        sys.stdout.write("\n" + json.dumps(run(Path(given.run[1]), given.hours[0])) + "\n")
        return 0
    runs = measure(given.hours, given.stock_hours)
    shown = Table("hours", "by", "peak GB", "above the model, GB", "seconds by stage", "turns", "same as stock")
    for run in runs:
        grown = (run["peak_bytes"] - run["loaded_bytes"]) / 1e9
        same = {None: "", True: "yes", False: "NO"}[run.get("same_turns")]
        stages = ", ".join(f"{name} {seconds:.1f}" for name, seconds in run["stage_seconds"].items())
        shown.add_row(
            f"{run['hours']:g}",
            run["by"],
            f"{run['peak_bytes'] / 1e9:.2f}",
            f"{grown:.2f}",
            stages,
            str(run["turns"]),
            same,
        )
    console = Console(width=150)
    console.print(shown)
    mine = [run for run in runs if run["by"] == "ours"]
    points = {
        by: [(run["hours"], run["peak_bytes"] / 1e9) for run in runs if run["by"] == by] for by in ("ours", "stock")
    }
    base, slope = line(points["ours"]) if len(mine) > 1 else (0.0, 0.0)
    write("bench-memory", {"rows": runs, "base_gb": base, "gb_per_hour": slope})
    plot("bench-memory", {by: at for by, at in points.items() if at}, "hours of audio", "peak memory, GB", lines=True)
    kept = all(run["peak_bytes"] - run["loaded_bytes"] <= needed_bytes(run["hours"] * 3600) for run in mine)
    same = all(run.get("same_turns", True) for run in mine)
    ok = kept and same and slope * 1e9 <= MOST_BYTES_PER_HOUR
    console.print(f"bench-memory: {'ok' if ok else 'FAILED'}; peak {base:.2f} GB + {1000 * slope:.0f} MB an hour")
    console.print(f"promise of memory.py {'kept' if kept else 'BROKEN'}; turns {'as stock' if same else 'DIFFER'}")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
