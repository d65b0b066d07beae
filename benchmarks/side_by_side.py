"""Jobs one after the other in several processes that share a GPU: how much audio they get through, how idle the GPU is.

    python -m benchmarks.side_by_side [--processes 1 2 3 4] [--pretend 5 1.5] [--minutes 60] [--jobs 8]

A job is whole, as in a worker: an MP3 file is decoded, the networks run under the lock of the device, the embeddings
are clustered. Before the first job's networks and after the last one's a GPU has nothing to do, however many jobs come
in between: how busy it is, is said of the time from the former to the latter. Where there is no GPU, `--pretend` says
how many seconds the networks of one would take for an hour of audio: they are slept, and give what those of a meeting
of three minutes gave, repeated (`bench_memory`); all else is real.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from itertools import product
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from pathlib import Path
from statistics import fmean
from typing import Any

import soundfile
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.bench_memory import ignore, repeat_networks
from benchmarks.children import watched
from benchmarks.gpu_load import Sample, busy_share, sampled
from benchmarks.make_meeting import SAMPLE_RATE, mix
from benchmarks.outcome import write
from diarization.diarizer import BUNDLED_MODEL, NETWORKS, DiarizerOptions
from diarization.ffmpeg import find_ffmpeg
from diarization.pipeline import PyannoteDiarizer, load
from diarization.recording import Recording
from diarization.turns import SpeakerHints


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
class Job:
    """One that is done; moments are those of `time.perf_counter`, which all processes share."""

    audio_seconds: float
    seconds: float
    stage_seconds: dict[str, float]
    networks_began: float
    networks_ended: float


@dataclass(frozen=True)
class Throughput:
    """What came of it.

    Attributes:
        processes: That shared the GPU.
        seconds_per_audio_hour: From the first file to the last turn, of all of them together.
        networks_share: From the first job's networks to the last one's, the part of the time in which one was at them.
        gpu_busy: The part of the same time in which a kernel ran, as the driver counts it; None where it does not.
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
    """Start the processes, and time them from the moment at which all have loaded their models.

    Raises:
        ChildDied: One of them did not get through; the others are ended.
    """
    os.environ["OMP_NUM_THREADS"] = "1"  # so many processes take the cores by themselves
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as a worker's children
    context = multiprocessing.get_context("spawn")
    told, start, numbers = context.Queue(), context.Event(), context.Value("i", 0)
    children = [
        context.Process(target=_take_jobs, args=(work, numbers, start, told), daemon=True) for _ in range(processes)
    ]
    with watched(children, told) as heard:
        for _ in children:
            heard()
        with _gpu_load(work) as samples:
            began = time.perf_counter()
            start.set()
            jobs = [heard() for _ in range(work.jobs)]
            seconds = time.perf_counter() - began
    run = sum_up(work, processes, seconds, jobs, samples)
    sys.stderr.write(f"{run.precision}, processes: {processes}: {run.seconds_per_audio_hour:.2f} s an audio hour\n")
    return run


def sum_up(work: Work, processes: int, seconds: float, jobs: Sequence[Job], samples: Sequence[Sample]) -> Throughput:
    """What came of the jobs, in so many seconds."""
    first, last = min(job.networks_began for job in jobs), max(job.networks_ended for job in jobs)
    return Throughput(
        precision=work.precision,
        processes=processes,
        pretended=work.pretended,
        seconds_per_audio_hour=seconds / sum(job.audio_seconds for job in jobs) * 3600,
        networks_share=sum(job.networks_ended - job.networks_began for job in jobs) / (last - first),
        gpu_busy=busy_share(samples, first, last),
        seconds_per_job=fmean(job.seconds for job in jobs),
        stage_seconds={
            stage: round(fmean(job.stage_seconds[stage] for job in jobs), 3) for stage in jobs[0].stage_seconds
        },
    )


def _gpu_load(work: Work) -> AbstractContextManager[list[Sample]]:
    """Samples of the GPU that `cuda` is; none where its networks are pretended."""
    if work.pretended is not None:
        return nullcontext([])
    return sampled(str(torch.cuda.get_device_properties(0).uuid))


def _take_jobs(work: Work, numbers: Any, start: Event, told: Queue[Any]) -> None:
    """A process: load, say so, wait for the others, and diarize as long as there are jobs."""
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
    told.put("loaded")
    start.wait()
    while True:
        with numbers.get_lock():
            numbers.value += 1
            if numbers.value > work.jobs:
                return
        began = time.perf_counter()
        result = diarizer.diarize(Recording(f"file://{work.path}"), SpeakerHints(), ignore)
        ended = time.perf_counter()
        stages = result.provenance.stage_seconds
        networks_ended = ended - stages["clustering"]
        networks_began = networks_ended - sum(stages[stage] for stage in NETWORKS)
        told.put(Job(result.audio_seconds, ended - began, stages, networks_began, networks_ended))


def _pretend(diarizer: PyannoteDiarizer, audio_seconds: float, seconds_per_audio_hour: float) -> None:
    """Let the networks sleep, and give what those of three minutes gave."""
    pipeline: Any = diarizer._pipeline
    repeat_networks(pipeline, audio_seconds / 3600)
    embeddings = pipeline.get_embeddings

    def get_embeddings(*args: Any, **kwargs: Any) -> Any:
        time.sleep(audio_seconds / 3600 * seconds_per_audio_hour)
        return embeddings(*args, **kwargs)

    pipeline.get_embeddings = get_embeddings


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
        caption="at the networks, GPU busy: of the time from the first job's networks to the last one's",
    )
    for run in runs:
        stages = run.stage_seconds
        shown.add_row(
            run.precision if run.pretended is None else f"pretended, {run.pretended:g} s an hour",
            str(run.processes),
            f"{run.seconds_per_audio_hour:.2f}",
            f"{run.networks_share:.0%}",
            "not measured" if run.gpu_busy is None else f"{run.gpu_busy:.0%}",
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
    runs: list[Throughput] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "meeting.mp3"
        record(path, given.minutes)
        if given.pretend or not torch.cuda.is_available():
            works = [Work(path, given.jobs, "fast", pretended) for pretended in given.pretend or (5.0, 1.5)]
        else:
            works = [Work(path, given.jobs, precision, None) for precision in ("exact", "fast")]
        for work, processes in product(works, given.processes):
            runs.append(measure(work, processes))
            write("side-by-side", {"rows": [asdict(run) for run in runs]})
    Console(width=150).print(table(runs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
