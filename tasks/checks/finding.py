"""The words of the doctor: a check looks at a subject and gives a finding; a fault can be found, and has a cure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from tasks.settings import Settings


class Role(StrEnum):
    """What a host is for: it runs the model, hands jobs to RunPod, or only submits."""

    GPU = "gpu"
    BRIDGE = "bridge"
    PRODUCER = "producer"


EVERYBODY, WORKERS, GPU = frozenset(Role), frozenset({Role.GPU, Role.BRIDGE}), frozenset({Role.GPU})


class Mark(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARNING = "warn"
    FAILED = "fail"
    SKIPPED = "skip"


@dataclass(frozen=True)
class Fault:
    """Something that can be wrong.

    Attributes:
        code: Its name for programs; it stays.
        means: What is wrong, for the table in the docs.
        cure: What to do about it.
        mark: Whether jobs suffer from it (FAILED), or may yet (WARNING).
    """

    code: str
    means: str
    cure: str
    mark: Mark = Mark.FAILED

    def found(self, says: str) -> Finding:
        """A finding of this fault; `says` is the case in hand, with its figures."""
        return Finding(self.mark, says, self)


def risk(code: str, means: str, cure: str) -> Fault:
    """A fault that is worth a warning."""
    return Fault(code, means, cure, Mark.WARNING)


@dataclass(frozen=True)
class Finding:
    """What a check has found.

    Attributes:
        mark: How it came out.
        says: What is the case, on one line.
        fault: What is wrong, where something is.
    """

    mark: Mark
    says: str
    fault: Fault | None = None


def fine(says: str) -> Finding:
    """Nothing is wrong."""
    return Finding(Mark.OK, says)


def counted(count: int, noun: str) -> str:
    """`1 job`, `2 jobs`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def skipped(why: str) -> Finding:
    """It was not looked at."""
    return Finding(Mark.SKIPPED, why)


@dataclass(frozen=True)
class Subject:
    """What is examined: this host, by its settings and by what it is for."""

    settings: Settings
    role: Role


@dataclass(frozen=True)
class Check:
    """One look at one thing.

    Attributes:
        group: Under which heading it stands.
        name: Its own; no other has it.
        looks_at: What it looks at, for the docs.
        look: May take `timeout_seconds` and may raise: either is a finding, too.
        faults: All that it can find.
        roles: Hosts that it is for.
        needs: Another check, without whose success there is nothing to see.
    """

    group: str
    name: str
    looks_at: str
    look: Callable[[Subject], Finding]
    faults: tuple[Fault, ...]
    roles: frozenset[Role] = EVERYBODY
    needs: str | None = None
    timeout_seconds: float = 10.0
