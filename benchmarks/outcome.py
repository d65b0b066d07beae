"""Where figures go: JSON with what they were measured on, and plots beside it."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from diarization.benchmark import hardware

mpl.use("agg")
from matplotlib import pyplot as plt

RESULTS = Path(__file__).resolve().parent / "results"

Points = Sequence[tuple[float, float]]


def write(name: str, figures: Mapping[str, Any]) -> Path:
    """Store `figures` under `results/NAME.json`, with hardware, versions, date and command."""
    RESULTS.mkdir(exist_ok=True)
    command = shlex.join(["python", "-m", f"benchmarks.{name.replace('-', '_')}", *sys.argv[1:]])
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"command": command, **hardware(), **figures}, indent=2) + "\n", encoding="utf-8")
    return path


def line(points: Points) -> tuple[float, float]:
    """Least squares: what stands at 0, and how much each unit adds."""
    slope, base = np.polyfit(*zip(*points, strict=True), deg=1)
    return float(base), float(slope)


def plot(name: str, series: Mapping[str, Points], x: str, y: str, *, lines: bool = False) -> Path:
    """Draw `series` into `results/NAME.svg`; with `lines`, the straight line of each beside its points."""
    figure, axes = plt.subplots(figsize=(6, 4))
    for label, points in series.items():
        (drawn,) = axes.plot(*zip(*sorted(points), strict=True), "o" if lines else "o-", label=label)
        if lines and len(points) > 1:
            base, slope = line(points)
            ends = np.array([0, max(at for at, _ in points)])
            axes.plot(ends, base + slope * ends, color=drawn.get_color(), linewidth=0.8)
    axes.set(xlabel=x, ylabel=y, xlim=(0, None), ylim=(0, None))
    axes.legend()
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.svg"
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    return path
