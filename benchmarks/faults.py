"""The faults: each a short story told as a generator, which does something, then yields what it waits for.

It yields seconds, or a condition that has to become true. `draw` deals the faults of a soak from a shuffled deck: each
kind comes up as often as the others, and a seed always gives the same soak.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field

from benchmarks.fleet import Berth, Fleet
from benchmarks.witness import Witness

Story = Generator[float | Callable[[], bool], None, None]
PATIENCE_SECONDS = 90.0
"""No fault takes longer to heal: a worker that has not started, or not ended after SIGTERM, is a finding."""
HUNT_SECONDS = 3.0
"""So long a fault that needs a worker waits for one that runs a job."""
ALL = -1


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Attributes:
        name: As the table says it.
        story: What happens.
        seconds: Bounds of how long it lasts.
        victims: How many workers it needs; `ALL`: all at once.
        silences: Heartbeats stop meanwhile. Two such faults in a row would be one of twice the length.
        interrupts: It is meant to cut short the jobs that it meets.
    """

    name: str
    story: Callable[[Fleet, Injury], Story]
    seconds: tuple[float, float] = (0.3, 2.0)
    victims: int = 1
    silences: bool = False
    interrupts: bool = False


@dataclass(frozen=True)
class Fault:
    """One that is to come: when (seconds from the start), for how long, and where (0 to 1, of those there are)."""

    kind: Kind
    at: float
    seconds: float
    where: float


@dataclass
class Injury:
    """One that has come. Times are the machine's monotonic clock; no `pids` means that it touched all processes."""

    fault: Fault
    berths: list[Berth]
    at: float
    busy: frozenset[int]
    """Pool children that ran a job when it came."""
    pids: frozenset[int] = frozenset()
    healed_at: float | None = None
    complaint: str = ""
    _story: Story | None = field(default=None, repr=False)
    _wait: Callable[[], bool] | float = 0.0
    _waits_since: float = 0.0

    @property
    def name(self) -> str:
        """Of its kind."""
        return self.fault.kind.name

    def begin(self, fleet: Fleet) -> None:
        """Hurt."""
        self.pids = frozenset(pid for berth in self.berths for pid in berth.pids)
        self._story = self.fault.kind.story(fleet, self)
        for berth in self.berths:
            berth.taken = True
        self._go_on()

    def step(self) -> None:
        """Go on with the story where what it waits for has come."""
        waited = time.monotonic() - self._waits_since
        if callable(self._wait) and waited > PATIENCE_SECONDS:
            self.complaint = f"{self.name}: not healed within {PATIENCE_SECONDS:.0f} s"
            self._heal()
        elif self._wait() if callable(self._wait) else waited >= self._wait:
            self._go_on()

    def _go_on(self) -> None:
        assert self._story is not None
        try:
            self._wait, self._waits_since = next(self._story), time.monotonic()
        except StopIteration:
            self._heal()

    def _heal(self) -> None:
        self.healed_at = time.monotonic()
        for berth in self.berths:
            berth.taken = False


def _kill_mains(fleet: Fleet, injury: Injury) -> Story:
    for berth in injury.berths:
        os.kill(berth.worker.process.pid, signal.SIGKILL)
    yield from _start_again(injury)


def _kill_group(fleet: Fleet, injury: Injury) -> Story:
    injury.berths[0].kill()
    yield from _start_again(injury)


def _terminate(fleet: Fleet, injury: Injury) -> Story:
    process = injury.berths[0].worker.process
    process.terminate()
    yield lambda: process.poll() is not None
    if process.returncode:
        injury.complaint = f"{injury.berths[0].name} ended with {process.returncode} after SIGTERM"
    yield from _start_again(injury)


def _start_again(injury: Injury) -> Story:
    """A supervisor starts them anew after a while."""
    yield lambda: not any(berth.alive for berth in injury.berths)
    yield injury.fault.seconds
    for berth in injury.berths:
        berth.start()
    yield lambda: all(berth.ready for berth in injury.berths)


def _kill_child(fleet: Fleet, injury: Injury) -> Story:
    worker = injury.berths[0].worker
    yield lambda: bool(worker.children)
    busy = [pid for pid in worker.children if pid in injury.busy] or worker.children
    victim = busy[int(injury.fault.where * 97) % len(busy)]
    injury.pids = frozenset({victim})
    os.kill(victim, signal.SIGKILL)
    yield lambda: victim not in worker.children


def _freeze(fleet: Fleet, injury: Injury) -> Story:
    thaw = fleet.freeze(injury.berths[0])
    yield injury.fault.seconds
    thaw()


def _kill_server(fleet: Fleet, injury: Injury) -> Story:
    fleet.server.kill()
    yield injury.fault.seconds
    fleet.server.start()


def _restart_server(fleet: Fleet, injury: Injury) -> Story:
    fleet.server.stop()
    yield injury.fault.seconds
    fleet.server.start()


def _hang_server(fleet: Fleet, injury: Injury) -> Story:
    fleet.server.process.send_signal(signal.SIGSTOP)
    yield injury.fault.seconds
    fleet.server.process.send_signal(signal.SIGCONT)


def _cut(fleet: Fleet, injury: Injury) -> Story:
    yield fleet.server_answers
    injury.at = time.monotonic()
    fleet.cut()


def kinds(lease_seconds: float) -> list[Kind]:
    """All kinds of faults, for a queue with this lease."""
    outage = (1.0, min(4.0, 0.65 * lease_seconds))
    return [
        Kind("kill -9 of a worker's main process", _kill_mains, interrupts=True),
        Kind("kill -9 of a pool child", _kill_child, interrupts=True),
        Kind("kill -9 of a worker's process group", _kill_group, interrupts=True),
        Kind("kill -9 of all workers at once", _kill_mains, victims=ALL, interrupts=True),
        Kind("SIGTERM and restart of a worker", _terminate, (0.0, 0.5), interrupts=True),
        Kind("worker frozen, shorter than the lease", _freeze, (0.5, 0.5 * lease_seconds), silences=True),
        Kind("worker frozen, longer than the lease", _freeze, (lease_seconds + 1.5, lease_seconds + 4), silences=True),
        Kind("kill -9 of Redis", _kill_server, outage, victims=0, silences=True),
        Kind("SIGTERM and restart of Redis", _restart_server, (0.2, 1.0), victims=0, silences=True),
        Kind("Redis hung", _hang_server, outage, victims=0, silences=True),
        Kind("all connections cut", _cut, victims=0),
    ]


def draw(rng: random.Random, count: int, seconds: float, lease_seconds: float) -> list[Fault]:
    """So many faults, spread over so many seconds."""
    deck: list[Kind] = []
    faults = []
    for number in range(count):
        if not deck:
            deck = kinds(lease_seconds)
            rng.shuffle(deck)
        kind = deck.pop()
        at = (number + rng.random()) * seconds / count
        faults.append(Fault(kind, at, rng.uniform(*kind.seconds), rng.random()))
    return faults


class Storm:
    """The faults, one after the other and some at the same time."""

    def __init__(self, fleet: Fleet, faults: Iterable[Fault], lease_seconds: float, witness: Witness) -> None:
        self._fleet = fleet
        self._witness = witness
        self._coming = list(faults)
        # By then every worker that lives has renewed its leases.
        self._rest_seconds = lease_seconds / 2
        self._silent_until = 0.0
        self.injuries: list[Injury] = []

    @property
    def over(self) -> bool:
        """Whether all has come and all is healed."""
        return not self._coming and not self._open

    def step(self, elapsed: float) -> Injury | None:
        """What is to happen `elapsed` seconds after the start; the fault that began, if one did."""
        for injury in self._open:
            injury.step()
            if injury.healed_at is not None and injury.fault.kind.silences:
                self._silent_until = injury.healed_at + self._rest_seconds
        for fault in [fault for fault in self._coming if fault.at <= elapsed]:
            berths = self._choose(fault, patient=elapsed < fault.at + HUNT_SECONDS)
            if berths is not None:
                self._coming.remove(fault)
                injury = Injury(fault, berths, time.monotonic(), frozenset(self._witness.busy))
                self.injuries.append(injury)
                injury.begin(self._fleet)
                return injury
            if fault.kind.victims == ALL:  # nobody overtakes it, or it would never come
                break
        return None

    @property
    def _open(self) -> list[Injury]:
        return [injury for injury in self.injuries if injury.healed_at is None]

    def _choose(self, fault: Fault, *, patient: bool) -> list[Berth] | None:
        """The workers that it will meet, busy ones where there are; None where it must wait."""
        kind = fault.kind
        silent = any(injury.fault.kind.silences for injury in self._open) or time.monotonic() < self._silent_until
        if kind.silences and silent:
            return None
        free = [berth for berth in self._fleet.berths if not berth.taken and berth.ready]
        if kind.victims == ALL:
            return free if len(free) == len(self._fleet.berths) else None
        busy = [berth for berth in free if self._witness.busy.intersection(berth.pids)]
        if kind.victims and not (busy or (free and not patient)):
            return None
        there = busy or free
        return [there[int(fault.where * len(there))]] if kind.victims else []
