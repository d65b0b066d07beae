"""What a soak prints: the table by kinds of faults, the totals, and for each finding what a maintainer needs."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import quantiles

from rich.console import Console
from rich.table import Table

from benchmarks.fleet import Fleet
from benchmarks.load import Producer
from benchmarks.verdict import Evidence, Finding, blamed, hits, recovery_seconds
from benchmarks.witness import Witness
from tasks.commands.console import as_json, json_line

SORTS = ("lost", "ended twice", "overlapped")
SHOWN_FINDINGS = 10
SHOWN_LOG_LINES = 12


def percentiles(values: Sequence[float]) -> tuple[float, float]:
    """The 50th and the 95th."""
    if len(values) < 2:
        return (values[0], values[0]) if values else (0.0, 0.0)
    steps = quantiles(values, n=100, method="inclusive")
    return steps[49], steps[94]


def print_table(evidence: Evidence, findings: Sequence[Finding]) -> None:
    """A line a kind of fault; findings whose job no fault had met are in a line of their own."""
    table = Table("fault", *("times", "jobs hit", *SORTS, "again p50 s", "p95 s"))
    for column in table.columns[1:]:
        column.justify = "right"
    met = [(finding, blamed(finding, evidence.injuries, evidence.runs)) for finding in findings]
    for name in dict.fromkeys(injury.name for injury in sorted(evidence.injuries, key=lambda one: one.name)):
        injuries = [injury for injury in evidence.injuries if injury.name == name]
        again = [seconds for injury in injuries for seconds in recovery_seconds(injury, evidence.runs)]
        counts = [sum(finding.sort == sort and name in names for finding, names in met) for sort in SORTS]
        hit = sum(len(hits(injury, evidence.runs)) for injury in injuries)
        middle, high = (f"{value:.1f}" for value in percentiles(again)) if again else ("–", "–")
        table.add_row(name, str(len(injuries)), str(hit), *map(str, counts), middle, high)
    alone = [finding for finding, names in met if not names]
    if alone:
        counts = [sum(finding.sort == sort for finding in alone) for sort in SORTS]
        table.add_row("(none met the job)", "", "", *map(str, counts), "", "")
    Console(width=120).print(table)


def print_totals(evidence: Evidence, producer: Producer, witness: Witness) -> None:
    """The sums, and how fit the machine was."""
    states: dict[str, int] = {}
    for record in evidence.records.values():
        states[record.state] = states.get(record.state, 0) + 1
    cut = sum(run.how == "died" for run in evidence.runs)
    frozen = [overlap for overlap in evidence.overlaps() if overlap.frozen]
    print(
        f"{len(evidence.jobs)} jobs through {len(evidence.injuries)} faults: "
        + ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
        + f"; {len(evidence.runs)} starts, {cut} ended by the death of their process"
    )
    print(f"{len(frozen)} jobs were run elsewhere while their first worker stood still for longer than the lease")
    refusals = producer.refusals
    print(
        f"{len(refusals)} calls of producers refused while Redis was away, the slowest after "
        f"{max(refusals, default=0.0):.1f} s; each was repeated under the same ids"
    )
    print(f"the machine let this program wait for {witness.worst_delay_seconds:.2f} s at worst")


def print_details(evidence: Evidence, findings: Sequence[Finding], fleet: Fleet) -> None:
    """Of each finding: the record, its history, the runs, and what the workers' logs say."""
    origin = min((run.began for run in evidence.runs), default=0.0)
    for finding in findings[:SHOWN_FINDINGS]:
        print(f"\n{finding.sort}: {finding.url}: {finding.text}")
        for job_id in evidence.ids.get(finding.url, []):
            record = evidence.records.get(job_id)
            print(f"  record   {json_line(as_json(record)) if record else 'gone'}")
            print(f"  history  {' → '.join(evidence.history.jobs[job_id].states)}")
            for line in _log_lines(fleet, job_id):
                print(f"  log      {line}")
        for run in evidence.runs:
            if run.what == finding.url:
                print(f"  run      pid {run.pid}, {run.began - origin:.2f} to {run.ended - origin:.2f} s: {run.how}")
        for injury in evidence.injuries:
            if any(run.what == finding.url for run in hits(injury, evidence.runs)):
                names = " ".join(berth.name for berth in injury.berths)
                print(f"  fault    {injury.at - origin:.2f} s: {injury.name} {names}")
    if len(findings) > SHOWN_FINDINGS:
        print(f"\nand {len(findings) - SHOWN_FINDINGS} more findings")


def _log_lines(fleet: Fleet, job_id: str) -> list[str]:
    lines = [
        f"{path.stem}: {line}"
        for berth in fleet.berths
        for path in berth.logs
        for line in path.read_text(errors="replace").splitlines()
        if job_id in line
    ]
    return sorted(lines, key=lambda line: line.partition(": ")[2])[-SHOWN_LOG_LINES:]
