"""The doctor: looks at everything side by side, waits for nothing too long, and has a cure for each fault.

A check that hangs or fails in a way that nobody thought of is a finding like any other. Nothing that is secret is in
what a finding says, whatever library it came from.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import SecretStr

from tasks.checks import connection, environment, fleet, gpu, host, model, overflow, redis_server, runpod
from tasks.checks.finding import Check, Fault, Finding, Mark, Role, Subject, skipped
from tasks.settings import Settings

HUNG = Fault("check_hung", "a check gives no answer in time", "look at what the check looks at: it hangs")
BROKEN = Fault("check_broken", "a check itself fails", "please report it, with this line")

ROOMS = (environment, connection, redis_server, fleet, host, model, gpu, runpod, overflow)
CHECKS: tuple[Check, ...] = tuple(check for room in ROOMS for check in room.CHECKS)
"""In the order in which they are told."""


@dataclass(frozen=True)
class Told:
    """A check with what it found."""

    check: Check
    finding: Finding
    seconds: float


def role_of(settings: Settings) -> Role:
    """What this host is for: as WORKER_ROLE says; where it does not, a GPU worker if torch is installed."""
    if "worker_role" in settings.model_fields_set:
        return Role(settings.worker_role)
    return Role.GPU if find_spec("torch") is not None else Role.PRODUCER


def examine(subject: Subject, checks: Sequence[Check] = CHECKS) -> Iterator[Told]:
    """Look at everything side by side; what was found, in the order of the checks, each as soon as it is known."""
    looks: dict[str, _Look] = {}
    for check in checks:
        looks[check.name] = _Look(check, subject, looks[check.needs] if check.needs else None)
    for look in looks.values():
        look.start()
    for look in looks.values():
        yield look.told()


class _Look(threading.Thread):
    """One check, in a thread that is left behind where it hangs: a daemon does not keep the process alive."""

    def __init__(self, check: Check, subject: Subject, needed: _Look | None) -> None:
        super().__init__(name=check.name, daemon=True)
        self._check, self._subject, self._needed = check, subject, needed
        begins_at = needed.deadline if needed else time.monotonic()
        self.deadline: float = begins_at + check.timeout_seconds
        self._lock = threading.Lock()
        self._told: Told | None = None

    def run(self) -> None:
        """The thread's body."""
        began = time.monotonic()
        self._tell(self._look(), time.monotonic() - began)

    def told(self) -> Told:
        """What was found; waits for it no longer than the check may take."""
        self.join(max(0.0, self.deadline - time.monotonic()))
        seconds = self._check.timeout_seconds
        return self._tell(HUNG.found(f"no answer within {seconds:.0f} s"), seconds)

    def _look(self) -> Finding:
        if self._subject.role not in self._check.roles:
            return skipped(f"a {self._subject.role} needs none")
        if self._needed is not None and (why := self._missing(self._needed.told().finding)):
            return skipped(why)
        try:
            return self._check.look(self._subject)
        except Exception as error:  # noqa: BLE001 - whatever it is, the other checks are worth knowing
            return BROKEN.found(f"{type(error).__name__}: {error}")

    def _missing(self, needed: Finding) -> str:
        if needed.mark is Mark.SKIPPED:
            return needed.says
        return f"`{self._check.needs}` comes first" if needed.mark is Mark.FAILED else ""

    def _tell(self, finding: Finding, seconds: float) -> Told:
        """The first that is told stands."""
        with self._lock:
            if self._told is None:
                says = scrub(" ".join(finding.says.split()), self._subject.settings)
                self._told = Told(self._check, replace(finding, says=says), seconds)
            return self._told


def scrub(text: str, settings: Settings) -> str:
    """`text` without any secret of the settings."""
    for secret in sorted(_secrets(settings), key=len, reverse=True):
        text = text.replace(secret, "...")
    return text


def _secrets(settings: Settings) -> set[str]:
    values = (getattr(settings, name) for name in type(settings).model_fields)
    found = {value.get_secret_value() for value in values if isinstance(value, SecretStr)}
    parts = urlsplit(settings.redis_url.get_secret_value())
    words = [parts.password or "", *parse_qs(parts.query).get("password", [])]
    found |= {*words, *map(unquote, words)}
    if not any(words):  # then it may be shown
        found.discard(settings.redis_url.get_secret_value())
    return found - {""}
