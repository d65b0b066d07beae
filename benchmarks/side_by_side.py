"""Jobs one after the other in several processes that share a GPU: how much audio they get through, how idle the GPU is.

    python -m benchmarks.side_by_side [--processes 1 2 3 4] [--pretend 5 1.5] [--minutes 60] [--jobs 8]

A job is whole, as in a worker: an MP3 file is decoded, the networks run under the lock of the device, the embeddings
are clustered. Where there is no GPU, `--pretend` says how many seconds the networks of one would take for an hour of
audio: they are slept, and give what those of a meeting of three minutes gave, repeated (`bench_memory`); all else is
real.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import soundfile
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.bench_memory import ignore, repeat_networks
from benchmarks.make_meeting import SAMPLE_RATE, mix
from benchmarks.outcome import write
from diarization.diarizer import BUNDLED_MODEL, DiarizerOptions
from diarization.ffmpeg import find_ffmpeg
from diarization.pipeline import PyannoteDiarizer, load
from diarization.recording import Recording
from diarization.turns import SpeakerHints

NETWORKS = ("segmentation", "embedding")
SAMPLE_MILLISECONDS = 200


@dataclass(frozen=True)
class Work:
    """What the processes do.

    Attributes:
        path: The recording.
        jobs: How often it is diarized, by all processes together.
        precision: `exact` or `fast`.
        pretended: Seconds of the networks for an hour of audio, which are slept; None where there is a GPU.
    """

    path: Path
    jobs: int
    precision: str
    pretended: float | None


@dataclass(frozen=True)
class Throughput:
    """What came of it.

    Attributes:
        processes: That shared the GPU.
        seconds_per_audio_hour: From the first file to the last turn, of all of them together.
        networks_share: Part of that time in which one of them was at its networks.
        gpu_busy: Part in which a kernel ran, as the driver counts it; None without a GPU.
        seconds_per_job: Mean, waits for the GPU included.
        stage_seconds: Mean of a job's.
    """

    precision: str
    processes: int
    pretended: float | None
    seconds_per_audio_hour: float
    networks_share: float
    gpu_busy: float | None
    seconds_per_job: float
    stage_seconds: dict[str, float]


def record(path: Path, minutes: int) -> None:
    """A mixed meeting as people keep them: MP3, stereo, 44.1 kHz."""
    samples, _ = mix(minutes, 8, 3, overlap=0.12, snr_db=30)
    soundfile.write(path.with_suffix(".wav"), samples, SAMPLE_RATE)
    encode = ("-v", "error", "-i", path.with_suffix(".wav"), "-ac", "2", "-ar", "44100", "-b:a", "128k", path)
    subprocess.run([find_ffmpeg().path, *encode], check=True)


def measure(work: Work, processes: int) -> Throughput:
    """Start the processes, and time them from the moment at which all have loaded their models."""
    context = multiprocessing.get_context("spawn")
    together, told = context.Barrier(processes + 1), context.Queue()
    numbers = context.Value("i", 0)
    children = [
        context.Process(target=_take_jobs, args=(work, numbers, together, told), daemon=True) for _ in range(processes)
    ]
    for child in children:
        child.start()
    together.wait(600)
    began = time.perf_counter()
    with _gpu_load(work) as samples:
        results = [told.get(timeout=600) for _ in range(work.jobs)]
        seconds = time.perf_counter() - began
    for child in children:
        child.join()
    stages = {
        stage: statistics.fmean(one["stage_seconds"][stage] for one in results) for stage in results[0]["stage_seconds"]
    }
    return Throughput(
        precision=work.precision,
        processes=processes,
        pretended=work.pretended,
        seconds_per_audio_hour=seconds / sum(one["audio_seconds"] for one in results) * 3600,
        networks_share=work.jobs * sum(stages[stage] for stage in NETWORKS) / seconds,
        gpu_busy=statistics.fmean(samples) / 100 if samples else None,
        seconds_per_job=statistics.fmean(one["seconds"] for one in results),
        stage_seconds={stage: round(mean, 3) for stage, mean in stages.items()},
    )


def _take_jobs(work: Work, numbers: Any, together: Barrier, told: Queue[dict[str, Any]]) -> None:
    """A process: load, wait for the others, and diarize as long as there are jobs."""
    options = DiarizerOptions(
        str(BUNDLED_MODEL),
        device="cpu" if work.pretended is not None else "cuda",
        precision=work.precision,
        recordings_dir=work.path.parent,
        device_lock=work.path.parent / "device.lock",
    )
    diarizer = load(options)
    if work.pretended is not None:
        _pretend(diarizer, soundfile.info(work.path).duration, work.pretended)
    together.wait(600)
    while True:
        with numbers.get_lock():
            numbers.value += 1
            if numbers.value > work.jobs:
                return
        began = time.perf_counter()
        result = diarizer.diarize(Recording(f"file://{work.path}"), SpeakerHints(), ignore)
        seconds = time.perf_counter() - began
        stages = result.provenance.stage_seconds
        told.put({"audio_seconds": result.audio_seconds, "seconds": seconds, "stage_seconds": stages})


def _pretend(diarizer: PyannoteDiarizer, audio_seconds: float, seconds_per_audio_hour: float) -> None:
    """Let the networks sleep, and give what those of three minutes gave."""
    pipeline: Any = diarizer._pipeline
    repeat_networks(pipeline, audio_seconds / 3600)
    embeddings = pipeline.get_embeddings

    def get_embeddings(*args: Any, **kwargs: Any) -> Any:
        time.sleep(audio_seconds / 3600 * seconds_per_audio_hour)
        return embeddings(*args, **kwargs)

    pipeline.get_embeddings = get_embeddings


@contextmanager
def _gpu_load(work: Work) -> Iterator[list[float]]:
    """While the block runs, how much of each moment a kernel runs, in percent: there when the block has ended."""
    samples: list[float] = []
    if work.pretended is not None:
        yield samples
        return
    query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--id=0"]
    asked = subprocess.Popen([*query, f"--loop-ms={SAMPLE_MILLISECONDS}"], stdout=subprocess.PIPE, text=True)
    try:
        yield samples
    finally:
        asked.terminate()
        samples += [float(sample) for sample in asked.communicate()[0].split()]


def table(runs: list[Throughput]) -> Table:
    """For the terminal."""
    shown = Table(
        "by",
        "processes",
        "s an audio hour",
        "at the networks",
        "GPU busy",
        "s a job",
        "decode",
        "networks",
        "clustering",
    )
    for run in runs:
        stages = run.stage_seconds
        shown.add_row(
            run.precision if run.pretended is None else f"pretended, {run.pretended:g} s an hour",
            str(run.processes),
            f"{run.seconds_per_audio_hour:.2f}",
            f"{run.networks_share:.0%}",
            "" if run.gpu_busy is None else f"{run.gpu_busy:.0%}",
            f"{run.seconds_per_job:.1f}",
            f"{stages['decode']:.1f}",
            f"{sum(stages[stage] for stage in NETWORKS):.1f}",
            f"{stages['clustering']:.1f}",
        )
    return shown


def main() -> int:
    """Measure, print a table, store the figures."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.side_by_side", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 3, 4], help="default: 1 2 3 4")
    parser.add_argument(
        "--pretend",
        type=float,
        nargs="+",
        metavar="SECONDS",
        help="of the networks for an hour of audio; default: on a GPU none, else 5 and 1.5",
    )
    parser.add_argument("--minutes", type=int, default=60, help="length of the recording; default: 60")
    parser.add_argument("--jobs", type=int, default=8, help="default: 8")
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # so many processes take the cores by themselves
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "meeting.mp3"
        record(path, given.minutes)
        if given.pretend or not torch.cuda.is_available():
            works = [Work(path, given.jobs, "fast", pretended) for pretended in given.pretend or (5.0, 1.5)]
        else:
            works = [Work(path, given.jobs, precision, None) for precision in ("exact", "fast")]
        runs = [measure(work, processes) for work in works for processes in given.processes]
    write("side-by-side", {"rows": [asdict(run) for run in runs]})
    Console(width=150).print(table(runs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
