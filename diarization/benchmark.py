"""Ours and stock pyannote on the same waveform, each in a process of its own, so that its peak memory is its own.

python -m diarization.benchmark CONTENDER FILE [--device D]     what one of them answers and costs, as JSON
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from diarization.decode import decode
from diarization.device import choose_device
from diarization.diarizer import BUNDLED_MODEL, DiarizerOptions
from diarization.pipeline import BATCH_SIZES, load
from diarization.scoring import Span, der, read_rttm
from diarization.stock import stock_diarization
from diarization.turns import Diarization, SpeakerHints, Turn

CONTENDERS = ("exact", "fast", "stock", "stock as shipped")
"""Stock runs with our batch sizes for the device, which change no turn; as shipped, with those of its config."""

WARM_UP_SAMPLES = {"cpu": 12 * 16_000, "cuda": 300 * 16_000}
"""Stock takes so many before it is measured, so that libraries and device are as warm for it as for ours: a GPU has to
have met full batches."""

WIDTH = 140
"""Columns of the table; in fewer nothing could be read."""

MAX_AUDIO_SECONDS = 48 * 3600.0


class BenchmarkFailed(Exception):
    """A contender failed."""


@dataclass(frozen=True)
class Run:
    """What one contender answered, and what it cost: without loading the model, without decoding.

    Attributes:
        contender: One of `CONTENDERS`.
        seconds: Wall time.
        cpu_seconds: Processor time of all threads.
        loaded_bytes: Memory of the process with model and waveform, before.
        peak_bytes: The most that it ever took.
        result: The answer.
    """

    contender: str
    seconds: float
    cpu_seconds: float
    loaded_bytes: int
    peak_bytes: int
    result: Diarization


@dataclass(frozen=True)
class Row:
    """A run beside the others on the same recording.

    Attributes:
        recording: Its name.
        run: What it cost.
        same_turns: Whether all turns are stock's; None where stock did not run.
        der: Against the reference (collar 0, overlap scored); None without one.
        der_to_stock: Against stock's answer; None where stock did not run.
    """

    recording: str
    run: Run
    same_turns: bool | None
    der: float | None
    der_to_stock: float | None

    def to_json(self) -> dict[str, Any]:
        """Figures without the turns."""
        figures = asdict(self.run) | asdict(self)
        for name in ("run", "result"):
            del figures[name]
        provenance = self.run.result.provenance
        return figures | {
            "audio_seconds": self.run.result.audio_seconds,
            "speakers": len(self.run.result.speakers),
            "stage_seconds": provenance.stage_seconds,
            "trunk": provenance.trunk,
        }


def compare(
    path: Path,
    contenders: Iterable[str],
    device: str = "cpu",
    reference: tuple[Turn, ...] | None = None,
    uem: tuple[Span, ...] | None = None,
) -> Iterator[Row]:
    """Run each contender on a recording, one after the other.

    Args:
        path: A local file.
        contenders: Of `CONTENDERS`; stock is run first, for the others are compared with it.
        device: As `DIARIZATION_DEVICE`.
        reference: Who spoke when.
        uem: What of it is scored; None for all.

    Raises:
        BenchmarkFailed: One of them failed; the message ends with what it said.
    """
    expected: Diarization | None = None
    for contender in sorted(contenders, key=CONTENDERS.index, reverse=True):
        run = run_apart(contender, path, device)
        result = run.result
        if contender.startswith("stock") and expected is None:
            expected = result
        yield Row(
            recording=path.stem,
            run=run,
            same_turns=_turns(result) == _turns(expected) if expected else None,
            der=der(reference, result.segments, uem=uem).der if reference is not None else None,
            der_to_stock=der(expected.segments, result.segments).der if expected else None,
        )


def run_apart(contender: str, path: Path, device: str) -> Run:
    """`run_here` in a process of its own.

    Raises:
        BenchmarkFailed: It failed.
    """
    command = [sys.executable, "-m", "diarization.benchmark", contender, str(path.resolve()), "--device", device]
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        raise BenchmarkFailed(f"{contender} failed on {path.name}: {said[-1]}")
    figures = json.loads(done.stdout)
    return Run(**figures | {"result": Diarization.from_json(figures["result"])})


def run_here(contender: str, path: Path, device: str) -> Run:
    """Load a contender, let it take the recording, and measure the latter."""
    samples = decode(path, max_audio_seconds=MAX_AUDIO_SECONDS, report=_ignore).samples
    model, where = str(BUNDLED_MODEL), choose_device(device)
    if contender in ("exact", "fast"):
        ours = load(DiarizerOptions(model=model, device=device, precision=contender))
        cpu, loaded, began = time.process_time(), process_memory("VmRSS"), time.perf_counter()
        result = ours.diarize_waveform(samples, SpeakerHints(), _ignore)
        seconds = time.perf_counter() - began
    else:
        sizes = BATCH_SIZES[where.type]
        batches = None if contender == "stock as shipped" else (sizes.segmentation, sizes.embedding)
        stock_diarization(samples[: WARM_UP_SAMPLES[where.type]], model, device=device, batch_sizes=batches)
        cpu, loaded = time.process_time(), process_memory("VmRSS")
        result, seconds = stock_diarization(samples, model, device=device, batch_sizes=batches)
    return Run(contender, seconds, time.process_time() - cpu, loaded, process_memory("VmHWM"), result)


def bench(
    files: Sequence[Path], reference: Path | None = None, device: str = "auto", *, json_lines: bool = False
) -> int:
    """Print what exact, fast and stock answer and cost on each file.

    Args:
        files: Local recordings.
        reference: An RTTM file that holds them all, by name, or the only one.
        device: As `DIARIZATION_DEVICE`.
        json_lines: Print an object for each row and the machine, instead of a table.

    Returns:
        0; 1 where a turn of exact is not stock's, or something failed, which is said on stderr.
    """
    rows: list[Row] = []
    try:
        for path in files:
            name = path.stem if len(files) > 1 else None
            rows += compare(path, CONTENDERS[:3], device, read_rttm(reference, name) if reference else None)
    except (BenchmarkFailed, OSError, ValueError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    machine, console = hardware(), Console(width=WIDTH)
    if json_lines:
        sys.stdout.writelines(json.dumps(row.to_json() | {"machine": machine}) + "\n" for row in rows)
    else:
        where = f"{machine['date']}, {machine['gpu'] or machine['cpu']}, {machine['threads']} threads"
        console.print(table(rows))
        console.print(f"{where}; DER: collar 0")
    return int(any(row.run.contender == "exact" and not row.same_turns for row in rows))


def table(rows: Iterable[Row]) -> Table:
    """Rows for the terminal; times as ratios to stock, which is 1."""
    found = list(rows)
    stocks = {row.recording: row.run for row in found if row.run.contender == "stock"}
    columns = (
        "recording",
        "by",
        "s",
        "x stock",
        "CPU s",
        "peak GB",
        "seg",
        "emb",
        "clu",
        "speakers",
        "DER",
        "same turns",
    )
    shown = Table(*columns)
    for row in found:
        run, stages = row.run, row.run.result.provenance.stage_seconds
        stock = stocks.get(row.recording)
        shown.add_row(
            row.recording,
            run.contender,
            f"{run.seconds:.1f}",
            f"{stock.seconds / run.seconds:.2f}" if stock else "",
            f"{run.cpu_seconds:.1f}",
            f"{run.peak_bytes / 1e9:.2f}",
            *(f"{stages.get(stage, 0):.1f}" for stage in ("segmentation", "embedding", "clustering")),
            str(len(run.result.speakers)),
            "" if row.der is None else f"{row.der:.2%}",
            {None: "", True: "yes", False: f"no ({row.der_to_stock or 0:.2%})"}[row.same_turns],
        )
    return shown


def hardware() -> dict[str, Any]:
    """What figures were measured on, and when."""
    models = [line for line in _text(Path("/proc/cpuinfo")).splitlines() if line.startswith("model name")]
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "cpu": models[0].partition(":")[2].strip() if models else platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("torch", "pyannote.audio", "numpy", "scipy")},
    }


def _turns(result: Diarization) -> tuple[tuple[Turn, ...], tuple[Turn, ...]]:
    return result.segments, result.exclusive_segments


def process_memory(field: str) -> int:
    """Bytes of this process: `VmRSS` now, `VmHWM` at most. Where there is no procfs, the most stands for both."""
    for line in _text(Path("/proc/self/status")).splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _ignore(stage: str, done: int, total: int) -> None:
    """A report nobody reads."""


def main() -> None:
    """Print one run as JSON."""
    parser = argparse.ArgumentParser(prog="python -m diarization.benchmark", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("contender", choices=CONTENDERS)
    parser.add_argument("file", type=Path)
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda or cuda:N; default: cpu")
    given = parser.parse_args()
    with redirect_stdout(sys.stderr):  # pyannote prints; standard output is JSON and nothing else
        run = run_here(given.contender, given.file, given.device)
    sys.stdout.write(json.dumps(asdict(run) | {"result": run.result.to_json()}) + "\n")


if __name__ == "__main__":
    main()
