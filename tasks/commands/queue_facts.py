"""The fleet in a word and in a few sentences."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tasks.commands import budget as budget_command
from tasks.commands.console import duration, local_time, printable
from tasks.orders import Order
from tasks.overflow.budget import Spend
from tasks.snapshot import Snapshot


@dataclass(frozen=True)
class Overflow:
    """How overflow stands.

    Attributes:
        slots: So many jobs may be at RunPod.
        why: In one sentence.
        today: What the day has cost.
        canary: How the last canary went; empty where there was none.
        has_bridge: Whether one lives.
    """

    slots: int
    why: str
    today: Spend
    canary: str = ""
    has_bridge: bool = False


def standing(snapshot: Snapshot) -> tuple[str, str]:
    """How the fleet stands, in a word, and the colour of that."""
    if snapshot.orders.paused:
        return "PAUSED", "yellow"
    busy = bool(snapshot.waiting_jobs or snapshot.running)
    if not snapshot.workers:
        return "NO WORKERS", "red" if busy else "yellow"
    if snapshot.late:
        return "LATE", "yellow"
    return ("BUSY", "green") if busy else ("IDLE", "cyan")


def summary(snapshot: Snapshot) -> dict[str, str]:
    """The fleet in a few facts, by their names."""
    jobs, hours = snapshot.waiting_jobs, duration(snapshot.waiting_audio_seconds)
    late = f", {len(snapshot.late)} of them later than their deadline" if snapshot.late else ""
    finish, orders = "when a GPU worker takes jobs: none does now", snapshot.orders
    if orders.paused:
        finish = "when the queue is resumed"
    elif math.isfinite(snapshot.last_in_seconds):
        finish = f"{local_time(snapshot.now + snapshot.last_in_seconds)}, in {duration(snapshot.last_in_seconds)}"
    no_runpod = orders.overflow_paused
    return {
        "PAUSED": f"{order_text(orders.paused)}; `resume` ends it" if orders.paused else "",
        "NO RUNPOD": f"{order_text(no_runpod)}; `resume --overflow` ends it" if no_runpod else "",
        "waiting": f"{jobs:,} jobs, {hours} of audio{late}" if jobs else "nothing",
        "running": f"{len(snapshot.running):,} jobs" if snapshot.running else "nothing",
        "due later": f"{snapshot.due_jobs:,} jobs" if snapshot.due_jobs else "",
        "all done": finish if jobs or snapshot.running else "",
    }


def overflow_facts(overflow: Overflow) -> dict[str, str]:
    """Overflow in a few facts, likewise."""
    costs = overflow.has_bridge or overflow.today.spent_usd or overflow.today.in_flight
    return {
        "overflow": printable(overflow.why),
        "budget": budget_command.summary(overflow.today) if costs else "",
        "canary": printable(overflow.canary) if overflow.has_bridge else "",
    }


def order_text(order: Order) -> str:
    """Who ordered it, since when, and why."""
    return printable(f"since {local_time(order.at)} {order}")
