"""The commands `pause`, `resume` and `drain`: what the operator wants of the fleet, until it is taken back."""

from __future__ import annotations

import getpass
import socket
import time
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Annotated

import typer

from diarization.errors import QueueUnavailable
from tasks.commands.console import json_line, local_time, make_console, printable
from tasks.commands.output import print_line
from tasks.orders import OVERFLOW, QUEUE, OrderBook, node_name
from tasks.registry import Registry
from tasks.server import connect
from tasks.settings import Settings, current_settings
from tasks.snapshot import Snapshot

REASON_CHARACTERS = 300
LOOK_EVERY_SECONDS = 0.2
CONFIRM_SECONDS = 10.0
"""A worker looks for its orders each second, and says at once that it obeys; one that is frozen says nothing."""

_NAMES = {QUEUE: "queue", OVERFLOW: "overflow"}

JsonObject = Annotated[bool, typer.Option("--json", help="For programs: one JSON object, or one for each worker.")]
Reason = Annotated[str, typer.Option(help="Kept, and shown by `queue`.", show_default=False)]
Workers = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="WORKER", help="As `queue` shows it, with or without its pid; `'*@host'` for all of a host."
    ),
]


def pause(
    overflow: Annotated[bool, typer.Option("--overflow", help="Only keep anything new from going to RunPod.")] = False,
    reason: Reason = "",
    json_lines: JsonObject = False,
) -> None:
    """Take no new jobs; those that run go on, and submitting goes on. Lasts until `resume`."""
    what = OVERFLOW if overflow else QUEUE
    _book().pause(what, _clean(reason), _who())
    if json_lines:
        silent = [] if overflow else _still_taking()
        print_line(json_line({"what": _NAMES[what], "paused": True, "reason": _clean(reason), "unconfirmed": silent}))
        return
    if overflow:
        print_line("paused: nothing new goes to RunPod, until `diarize-queue resume --overflow`")
        return
    print_line("paused: no worker takes a new job, until `diarize-queue resume`")
    if silent := _still_taking():
        text = printable(f"warning: not confirmed yet by {', '.join(silent)}")
        make_console(stderr=True).print(text, soft_wrap=True)


def resume(
    workers: Workers = None,
    overflow: Annotated[bool, typer.Option("--overflow", help="Let jobs go to RunPod again.")] = False,
    json_lines: JsonObject = False,
) -> None:
    """Take jobs again: all of the queue, RunPod, or the drained workers that are named."""
    book = _book()
    if workers:
        if overflow:
            raise typer.BadParameter("name workers, or give --overflow")
        names = _matching(workers, book.read().drained, "drained workers")
        book.undrain(names)
        for name in names:
            says = {"worker": name, "drain": None}
            print_line(json_line(says) if json_lines else f"{name} takes jobs again")
        return
    what = OVERFLOW if overflow else QUEUE
    was_paused = book.resume(what)
    if json_lines:
        print_line(json_line({"what": _NAMES[what], "paused": False, "was_paused": was_paused}))
    elif was_paused:
        print_line("resumed: jobs may go to RunPod again" if overflow else "resumed: workers take jobs again")
    else:
        print_line("overflow was not paused" if overflow else "the queue was not paused")


def drain(
    workers: Workers = None,
    reason: Reason = "",
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait until they have ended what they run.")] = False,
    timeout: Annotated[float | None, typer.Option(min=0, help="Wait for at most so many seconds.")] = None,
    json_lines: JsonObject = False,
) -> None:
    """Let workers end what they run and take nothing more, before maintenance; they stay up until they are stopped.

    Lasts for the worker's node name, so through a restart, until `resume WORKER`, or for 30 days.
    """
    settings = current_settings()
    if not workers:
        raise typer.BadParameter("name the workers, as `queue` shows them")
    if timeout is not None and not wait:
        raise typer.BadParameter("--timeout goes with --wait")
    with connect(settings, patient=False) as client:
        book, registry = OrderBook(client, settings), Registry(client, settings)
        known = {node_name(name) for name in registry.known()} | set(book.read().drained)
    names = _matching(workers, known, "workers of the last hour")
    _book().drain(names, _clean(reason), _who())
    if not wait:
        for name in names:
            says = f"{name} takes nothing more, until `diarize-queue resume {name}`"
            print_line(json_line({"worker": name, "drain": "ordered"}) if json_lines else says)
    elif not _wait_for_drained(settings, names, timeout, json_lines=json_lines):
        raise typer.Exit(1)


def warn_if_paused() -> None:
    """One line on stderr, for who submits jobs that will wait."""
    try:
        paused = _book().read().paused
    except QueueUnavailable:  # the jobs are submitted; that they may wait is not worth an error
        return
    if paused:
        text = printable(f"warning: the queue is paused since {local_time(paused.at)} {paused}: jobs wait for `resume`")
        make_console(stderr=True).print(text, soft_wrap=True)


def _still_taking() -> list[str]:
    """GPU workers that have not said in time that they take nothing."""
    settings, deadline = current_settings(), time.monotonic() + CONFIRM_SECONDS
    with connect(settings, patient=False) as client:
        registry, order = Registry(client, settings), OrderBook(client, settings).read().paused
        while True:
            alive = registry.alive().items()
            taking = [name for name, facts in alive if order and facts.role == "gpu" and not facts.obeys(order)]
            if not taking or time.monotonic() > deadline:
                return taking
            time.sleep(LOOK_EVERY_SECONDS)


def _wait_for_drained(settings: Settings, names: Sequence[str], timeout: float | None, *, json_lines: bool) -> bool:
    """Say of each worker when it is drained, or gone; whether all are in time, and nobody has resumed one."""

    def say(name: str, drain: str) -> None:
        print_line(json_line({"worker": name, "drain": drain}) if json_lines else f"{name}: {drain}")

    from tasks.fleet import Fleet  # noqa: PLC0415 - Celery takes half a second to import

    left, all_drained, deadline = list(names), True, None if timeout is None else time.monotonic() + timeout
    with connect(settings, patient=False) as client:
        fleet = Fleet(client, settings)
        while True:
            snapshot = fleet.snapshot()
            for name in list(left):
                states = _states(snapshot, name)
                if "resumed" in states:
                    say(name, "resumed meanwhile")
                    all_drained = False
                    left.remove(name)
                elif all(state == "drained" for state in states):
                    say(name, "drained" if states else "not there")
                    left.remove(name)
            if not left:
                return all_drained
            if deadline is not None and time.monotonic() > deadline:
                for name in left:
                    say(name, ", ".join(_states(snapshot, name)))
                return False
            time.sleep(LOOK_EVERY_SECONDS)


def _states(snapshot: Snapshot, name: str) -> list[str]:
    """Of the workers of that node name that live; there may be several."""
    return [snapshot.drain_state(worker) or "resumed" for worker in snapshot.workers if node_name(worker) == name]


def _matching(given: Iterable[str], known: Iterable[str], what: str) -> list[str]:
    """Node names that are meant.

    Raises:
        BadParameter: One of those given fits none that is known.
    """
    known, found = sorted(known), []
    for one in given:
        fits = [name for name in known if fnmatchcase(name, node_name(one))]
        if not fits:
            raise typer.BadParameter(f"{one} is none of the {what}: {', '.join(known) or 'there are none'}")
        found += [name for name in fits if name not in found]
    return found


def _book() -> OrderBook:
    settings = current_settings()
    return OrderBook(connect(settings, patient=False), settings)


def _clean(reason: str) -> str:
    return printable(reason).strip()[:REASON_CHARACTERS]


def _who() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in many containers
        user = "somebody"
    return f"{user}@{socket.gethostname()}"
