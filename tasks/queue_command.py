"""The command `queue`: how much waits, who works, and when all of it will be done."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from tasks import budget_command
from tasks.budget import Ledger
from tasks.console import duration, json_line, local_time, make_console, printable
from tasks.orders import Order
from tasks.output import print_line
from tasks.server import connect
from tasks.settings import current_settings
from tasks.snapshot import RunningJob, Snapshot
from tasks.valve import Valve

if TYPE_CHECKING:
    from tasks.canary import Sighting

NO_BRIDGE, NO_BRIDGE_TAKES = "off: no bridge is alive", "off: every bridge is drained"


def queue(
    json_object: Annotated[
        bool, typer.Option("--json", help="For programs: one JSON object, times since 1970.")
    ] = False,
) -> None:
    """Show the fleet: what waits and runs, the workers with their speed, and when all will be done."""
    # Celery takes half a second to import.
    from tasks.canary import Canary  # noqa: PLC0415
    from tasks.fleet import Fleet  # noqa: PLC0415

    settings = current_settings()
    with connect(settings, patient=False) as client:
        snapshot = Fleet(client, settings).snapshot()
        position, today = Valve(client, settings).position(), Ledger(client, settings).today()
        canary = Canary(client, settings).last()
    bridges = [snapshot.drain_state(name) for name, worker in snapshot.workers.items() if worker.role == "bridge"]
    has_bridge = bool(bridges)
    why = NO_BRIDGE if not bridges else NO_BRIDGE_TAKES if all(bridges) else position.why
    if json_object:
        valve = {"slots": position.slots, "why": why}
        last = asdict(canary) if canary else None
        budget = budget_command.as_json(today)
        print_line(json_line({**as_json(snapshot), "valve": valve, "budget": budget, "canary": last}))
        return
    console = make_console()
    overflow = {
        "overflow": why,
        "budget": budget_command.summary(today) if has_bridge or today.spent_usd or today.in_flight else "",
        "canary": _told(canary) if canary and has_bridge else "",
    }
    console.print(facts_text({**summary(snapshot), **overflow}), soft_wrap=True)
    for table in (workers_table(snapshot), running_table(snapshot)):
        if table.row_count:
            console.print()
            console.print(table)


def _told(canary: Sighting) -> str:
    """The last canary in one line."""
    if canary.ended_at is None:
        return f"on its way since {local_time(canary.sent_at)}" + (f"; {canary.failure}" if canary.failure else "")
    return f"{canary.failure or canary.note or 'right'}, {local_time(canary.ended_at)}"


def as_json(snapshot: Snapshot) -> dict[str, Any]:
    """The fleet for programs: keys that stay, times in seconds since 1970, None where there is nothing."""
    last_in_seconds = snapshot.last_in_seconds
    finish = snapshot.finish_in_seconds
    return {
        "at": snapshot.now,
        "waiting_jobs": snapshot.waiting_jobs,
        "waiting_audio_seconds": round(snapshot.waiting_audio_seconds, 3),
        "running_jobs": len(snapshot.running),
        "due_jobs": snapshot.due_jobs,
        "late_jobs": len(snapshot.late),
        "mean_audio_seconds": round(snapshot.mean_audio_seconds, 3),
        "finish_at": _moment(snapshot, last_in_seconds),
        "paused": _order_json(snapshot.orders.paused),
        "overflow_paused": _order_json(snapshot.orders.overflow_paused),
        "drained": {name: asdict(order) for name, order in snapshot.orders.drained.items()},
        "workers": [
            {
                "name": name,
                "role": facts.role,
                "children": facts.children,
                "device": facts.device or None,
                "gpu": facts.gpu,
                "model": facts.model or None,
                "seconds_per_audio_hour": facts.seconds_per_audio_hour,
                "drain": snapshot.drain_state(name) or None,
            }
            for name, facts in snapshot.workers.items()
        ],
        "running": [
            {
                "id": job.id,
                "worker": job.worker,
                "started_at": job.started_at,
                "audio_seconds": job.audio_seconds,
                "stage": job.stage,
                "percent": job.percent if job.stage else None,
                "seconds_left": snapshot.seconds_left.get(job.id),
            }
            for job in snapshot.running
        ],
        "first_in_line": [
            {
                "id": job.id,
                "queue": job.queue,
                "audio_seconds": job.audio_seconds,
                "deadline_at": job.deadline_at,
                "finish_at": _moment(snapshot, finish.get(job.id, math.inf)),
            }
            for job in snapshot.waiting
        ],
    }


def summary(snapshot: Snapshot) -> dict[str, str]:
    """The fleet in a few facts, by their names."""
    jobs, hours = snapshot.waiting_jobs, duration(snapshot.waiting_audio_seconds)
    late = f", {len(snapshot.late)} of them later than their deadline" if snapshot.late else ""
    at = _moment(snapshot, snapshot.last_in_seconds)
    finish = "when a GPU worker takes jobs: none does now" if at is None else f"{local_time(at)}"
    orders = snapshot.orders
    if orders.paused:
        finish = "when the queue is resumed"
    return {
        "PAUSED": f"{order_text(orders.paused)}; `resume` ends it" if orders.paused else "",
        "NO RUNPOD": f"{order_text(orders.overflow_paused)}; `resume --overflow` ends it"
        if orders.overflow_paused
        else "",
        "waiting": f"{jobs} jobs, {hours} of audio{late}" if jobs else "nothing",
        "running": f"{len(snapshot.running)} jobs" if snapshot.running else "nothing",
        "due later": f"{snapshot.due_jobs} jobs" if snapshot.due_jobs else "",
        "all done": finish if jobs or snapshot.running else "",
    }


def order_text(order: Order) -> str:
    """Who ordered it, since when, and why."""
    return printable(f"since {local_time(order.at)} {order}")


def facts_text(facts: Mapping[str, str]) -> Text:
    """Facts, a line each; those that say nothing are left out."""
    return Text("\n").join(Text(f"{name:<11}{value}") for name, value in facts.items() if value)


def workers_table(snapshot: Snapshot) -> Table:
    """The workers that live."""
    table = _table("WORKER", "ROLE", "DEVICE", "JOBS", "AN HOUR OF AUDIO TAKES")
    for name, facts in sorted(snapshot.workers.items()):
        running = sum(job.worker == name for job in snapshot.running)
        speed = facts.seconds_per_audio_hour
        takes = f"about {duration(snapshot.seconds_per_audio_hour(name))}, not measured yet" if speed is None else ""
        device = printable(facts.gpu or facts.device)
        jobs = snapshot.drain_state(name) or f"{running} of {facts.children}"
        table.add_row(printable(name), facts.role, device, jobs, takes or duration(speed or 0.0))
    return table


def running_table(snapshot: Snapshot) -> Table:
    """The jobs that run, those that began first first."""
    table = _table("JOB", "SINCE", "STAGE", "LEFT", "WORKER")
    for job in sorted(snapshot.running, key=lambda job: job.started_at):
        left = snapshot.seconds_left.get(job.id)
        says = "worker is silent" if left is None else duration(left)
        table.add_row(printable(job.id), local_time(job.started_at), _stage(job), says, printable(job.worker))
    return table


def _stage(job: RunningJob) -> str:
    return f"{printable(job.stage)} {job.percent:.0f} %" if job.stage else ""


def _order_json(order: Order | None) -> dict[str, Any] | None:
    return asdict(order) if order else None


def _moment(snapshot: Snapshot, in_seconds: float) -> float | None:
    return round(snapshot.now + in_seconds, 3) if math.isfinite(in_seconds) else None


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in columns:
        table.add_column(name, no_wrap=True)
    return table
