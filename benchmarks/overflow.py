"""What the valve's policy is worth: the shipped one beside four simpler ones, in simulated days.

    python -m benchmarks.overflow [--days 20] [--seed 6]

No hardware is measured: GPUs, RunPod and its bill are simulated (`overflow_sim.py`, `overflow_endpoint.py`,
`overflow_loads.py`); what decides is `tasks/overflow/decision.py` itself. All policies share the bridge around it:
three jobs in flight, the budget, the breaker while RunPod has no GPU, jobs that come home when a GPU idles. The
thresholds of the simpler ones are chosen for each load after the fact, by misses and then by dollars: no operator could
do as well.

It exits with 1 where the shipped policy sends anything in the quiet load; where, in any burst, a simpler one with any
threshold has as few misses or fewer for as few dollars or fewer; or where, in a burst with a RunPod that works, it
misses more than the best of them by more than chance, one job in 400.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table

from benchmarks.outcome import RESULTS, Points, plot
from benchmarks.overflow_loads import LOADS
from benchmarks.overflow_policies import FAMILIES, Row, best, measure, shortfalls

PLOTTED = "Monday morning"


def table(rows: Sequence[Row], days: int) -> Table:
    """Each policy with its best threshold, by load."""
    shown = Table("load", "policy", "late", "p50 s", "p95 s", "USD a day", "sent")
    for column in shown.columns[2:]:
        column.justify = "right"
    for load in LOADS:
        for policy in FAMILIES:
            row = best([row for row in rows if row.load == load.name and row.policy == policy])
            late = f"{row.misses} of {row.jobs}"
            name = load.name if policy == "shipped" else ""
            seconds = (f"{row.p50_seconds:.0f}", f"{row.p95_seconds:.0f}")
            shown.add_row(name, f"{policy} {row.threshold}", late, *seconds, f"{row.usd / days:.2f}", str(row.sent))
        shown.add_section()
    return shown


def curves(rows: Sequence[Row], days: int) -> dict[str, Points]:
    """(dollars a day, per cent late) of every threshold, by policy."""
    return {
        policy: [
            (row.usd / days, 100 * row.misses / row.jobs)
            for row in rows
            if row.load == PLOTTED and row.policy == policy
        ]
        for policy in FAMILIES
    }


def store(rows: Sequence[Row], days: int, seed: int) -> None:
    """The figures, and what they depend on: no hardware does."""
    figures = {
        "date": datetime.now(UTC).date().isoformat(),
        "command": shlex.join(["python", "-m", "benchmarks.overflow", *sys.argv[1:]]),
        "seed": seed,
        "days": days,
        "python": sys.version.split()[0],
        "rows": [asdict(row) for row in rows],
    }
    (RESULTS / "overflow.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def main() -> int:
    """Run all, print a table, store the figures; the verdict comes last."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overflow", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--days", type=int, default=20, help="days of each load; default: 20")
    parser.add_argument("--seed", type=int, default=6, help="default: 6")
    given = parser.parse_args()
    todo = [(load, policy, name) for load in LOADS for policy in FAMILIES for name in FAMILIES[policy]]
    with ProcessPoolExecutor() as pool:
        runs = [pool.submit(measure, *one, given.days, given.seed) for one in todo]
        rows = [run.result() for run in runs]
    store(rows, given.days, given.seed)
    plot("overflow", curves(rows, given.days), "USD a day", f"per cent late, {PLOTTED}")
    console = Console(width=110)
    console.print(table(rows, given.days))
    found = [one for load in LOADS for one in shortfalls(load, [row for row in rows if row.load == load.name])]
    for one in found:
        console.print(one)
    console.print(f"bench-overflow: {'FAILED' if found else 'ok'}; {given.days} days of each load, seed {given.seed}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
