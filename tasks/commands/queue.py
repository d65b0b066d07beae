"""The command `queue`: how much waits, who works, and when all of it will be done."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from tasks.commands import budget as budget_command
from tasks.commands.console import json_line, local_time, make_console
from tasks.commands.output import print_line
from tasks.commands.queue_facts import Overflow
from tasks.commands.queue_view import QueueView
from tasks.commands.refresh import LEAST_SECONDS, is_screen, watch
from tasks.orders import Order
from tasks.overflow.budget import Ledger
from tasks.overflow.valve import Valve
from tasks.server import connect
from tasks.settings import Settings, current_settings
from tasks.snapshot import Snapshot

if TYPE_CHECKING:
    from redis import Redis

    from tasks.canary import Sighting

NO_BRIDGE, NO_BRIDGE_TAKES = "off: no bridge is alive", "off: every bridge is drained"


def queue(
    watched: Annotated[
        bool, typer.Option("--watch", "-w", help="Show it again and again, until Ctrl-C (exit code 0).")
    ] = False,
    every: Annotated[
        float | None,
        typer.Option(min=LEAST_SECONDS, max=3600, help="With --watch: so many seconds in between. Default: 2."),
    ] = None,
    json_object: Annotated[
        bool, typer.Option("--json", help="For programs: one JSON object, times since 1970; with --watch one a line.")
    ] = False,
) -> None:
    """Show the fleet: what waits and runs, the workers with their speed, and when all will be done."""
    if every is not None and not watched:
        raise typer.BadParameter("--every goes with --watch")
    settings, console = current_settings(), make_console()
    bars = is_screen(console)
    with connect(settings, patient=False) as client:
        if watched:

            def draw(look: Look, remark: str) -> QueueView | Text | None:
                if json_object:
                    return None if remark else Text(json_line(look.as_json()))
                return QueueView(look.snapshot, look.overflow, remark, bars=bars, clock=True)

            with suppress(KeyboardInterrupt):
                watch(console, lambda: Look.at(client, settings), draw, every or 2.0)
            return
        look = Look.at(client, settings)
    if json_object:
        print_line(json_line(look.as_json()))
    else:
        console.print(QueueView(look.snapshot, look.overflow, bars=bars), soft_wrap=True)


@dataclass(frozen=True)
class Look:
    """What one look at Redis has found."""

    snapshot: Snapshot
    overflow: Overflow
    canary: Sighting | None

    @classmethod
    def at(cls, client: Redis, settings: Settings) -> Look:
        """Look.

        Raises:
            QueueUnavailable: Redis cannot be reached.
        """
        # Celery takes half a second to import.
        from tasks.canary import Canary  # noqa: PLC0415
        from tasks.fleet import Fleet  # noqa: PLC0415

        snapshot = Fleet(client, settings).snapshot()
        position, today = Valve(client, settings).position(), Ledger(client, settings).today()
        canary = Canary(client, settings).last()
        drains = [snapshot.drain_state(name) for name, worker in snapshot.workers.items() if worker.role == "bridge"]
        why = NO_BRIDGE if not drains else NO_BRIDGE_TAKES if all(drains) else position.why
        told = _told(canary) if canary else ""
        return cls(snapshot, Overflow(position.slots, why, today, told, has_bridge=bool(drains)), canary)

    def as_json(self) -> dict[str, Any]:
        """For programs: keys that stay."""
        return {
            **as_json(self.snapshot),
            "valve": {"slots": self.overflow.slots, "why": self.overflow.why},
            "budget": budget_command.as_json(self.overflow.today),
            "canary": asdict(self.canary) if self.canary else None,
        }


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
                "recording": job.shown,
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
                "recording": job.shown,
                "queue": job.queue,
                "audio_seconds": job.audio_seconds,
                "deadline_at": job.deadline_at,
                "finish_at": _moment(snapshot, finish.get(job.id, math.inf)),
            }
            for job in snapshot.waiting
        ],
    }


def _order_json(order: Order | None) -> dict[str, Any] | None:
    return asdict(order) if order else None


def _moment(snapshot: Snapshot, in_seconds: float) -> float | None:
    return round(snapshot.now + in_seconds, 3) if math.isfinite(in_seconds) else None
