"""What a worker's main process says of itself in a file, and what to make of it: the health check of containers.

A file, because it can be read in no time and without Redis: an outage there must not have workers restarted. It is
written by the thread that sends the heartbeat, so it grows old where that hangs, or the whole process stands still.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tasks.stored import Stored

FILE = "vitals"
BYTES = 2048
LOADING, READY, STOPPING, BROKEN = "loading", "ready", "stopping", "broken"
_FINALITY = {LOADING: 0, READY: 0, STOPPING: 1, BROKEN: 2}


@dataclass(frozen=True)
class Vitals(Stored):
    """What the file says. Moments are monotonic seconds, which all processes of a machine share.

    Attributes:
        worker: Its full name, as records have it.
        role: `gpu` or `bridge`.
        pid: Of the main process.
        born: The kernel's mark of when that began, which tells it from a later process of that pid; 0 if unknown.
        started_at: When it began, in seconds since 1970.
        stale_after_seconds: The loop hangs where it has not turned for so long.
        phase: `loading` (also again, after its process died), `ready`, `stopping`, or `broken`, which it will end by.
        why: Of the phase, where there is something to say.
        refuses: Why it takes no jobs now; empty where it does.
        turned_at: When the heartbeat's loop last turned.
        asked_at: When the main loop last asked the broker for a job, or saw a reason not to.
        answered_at: When Redis last answered the heartbeat; None if it never has.
        answering_since: Since when it has answered each time; None where it did not, the last time.
    """

    worker: str
    role: str
    pid: int
    born: int
    started_at: float
    stale_after_seconds: float
    phase: str = LOADING
    why: str = ""
    refuses: str = ""
    turned_at: float = 0.0
    asked_at: float = 0.0
    answered_at: float | None = None
    answering_since: float | None = None

    def verdict(self, now: float, process: str | None) -> tuple[bool, str]:
        """Whether the worker is well, and what was seen, in one line.

        Args:
            now: In monotonic seconds.
            process: The kernel's letter for its state (`R`, `S`, `T` …), empty where unknown; None if it is gone.
        """
        age_seconds = now - self.turned_at
        if process is None or process in "ZX":
            return self._says(False, "gone", "its process has ended without a word")
        if process in "Tt":
            return self._says(False, "frozen", "its process has been stopped (SIGSTOP)")
        if self.phase == LOADING:
            return self._says(False, LOADING, self.why or "the model is not loaded yet")
        if self.phase != READY:
            return self._says(False, self.phase, self.why or "it is about to end")
        turned = f"its heartbeat was {age_seconds:.0f} s ago"
        if age_seconds > self.stale_after_seconds:
            return self._says(False, "hung", f"{turned}, at most {self.stale_after_seconds:.0f} s are well")
        # While Redis is away the main loop waits for it, and is not to blame.
        idle_seconds = 0.0 if self.answering_since is None else now - max(self.asked_at, self.answering_since)
        if idle_seconds > self.stale_after_seconds:
            return self._says(False, "stuck", f"it has not asked for a job for {idle_seconds:.0f} s, and Redis answers")
        silence = "Redis has never answered" if self.answered_at is None else ""
        if self.answered_at is not None and now - self.answered_at > self.stale_after_seconds:
            silence = f"Redis has not answered for {now - self.answered_at:.0f} s, which no restart mends"
        refuses = f"it takes no jobs: {self.refuses}" if self.refuses else ""
        return self._says(True, "ok", ", ".join(filter(None, ("its gate is open", turned, silence, refuses))))

    def _says(self, well: bool, word: str, text: str) -> tuple[bool, str]:
        return well, f"{word}: {self.worker}: {text}"


class VitalSigns:
    """The writing side, for one worker's main process; its threads share it."""

    def __init__(self, folder: Path, worker: str, role: str, stale_after_seconds: float) -> None:
        self._file, self._part = folder / FILE, folder / f"{FILE}.part"
        self._changes = threading.Lock()
        self._answered = False
        pid = os.getpid()
        _, born = process_state(pid) or ("", 0)
        self._vitals = Vitals(worker, role, pid, born, time.time(), stale_after_seconds)

    def enter(self, phase: str, why: str = "") -> None:
        """The worker is in that phase now; it does not come back from one that ends it."""
        with self._changes:
            before = self._vitals
            if _FINALITY[phase] >= _FINALITY[before.phase] and (phase, why) != (before.phase, before.why):
                self._write(phase=phase, why=why)

    def turn(self, *, asked_at: float = 0.0, refuses: str = "") -> None:
        """The heartbeat's loop turns; Redis is asked next."""
        with self._changes:
            since = self._vitals.answering_since if self._answered else None
            self._answered = False
            self._write(turned_at=time.monotonic(), asked_at=asked_at, refuses=refuses, answering_since=since)

    def answered(self) -> None:
        """Redis has answered."""
        now = time.monotonic()
        with self._changes:
            self._answered = True
            since = self._vitals.answering_since
            self._write(turned_at=now, answered_at=now, answering_since=now if since is None else since)

    def _write(self, **changes: Any) -> None:
        self._vitals = replace(self._vitals, **changes)
        data = self._vitals.to_json().encode().ljust(BYTES)
        try:
            self._part.write_bytes(data)
            self._part.replace(self._file)
        except OSError:
            # On a full disk what is there can still be overwritten. Where that fails, too, the file grows old.
            with suppress(OSError), self._file.open("r+b") as file:
                file.write(data)
                file.truncate()


def read(base: Path) -> Iterator[Vitals]:
    """What the workers say that have their folders in `base`."""
    for path in sorted(base.glob(f"*/{FILE}")):
        with suppress(OSError, ValueError, TypeError):  # it has just been removed, or is no worker's
            yield Vitals.parse(path.read_text())


def examine(vitals: Vitals) -> tuple[bool, str]:
    """Look at the worker that said so: whether it is well, and what was seen."""
    found = process_state(vitals.pid)
    is_it = found is not None and found[1] in (vitals.born, 0)
    return vitals.verdict(time.monotonic(), found[0] if found and is_it else None)


def process_state(pid: int) -> tuple[str, int] | None:
    """The kernel's letter for a process's state, and its mark of when that began; None where there is none.

    Where there is no /proc, the letter is empty and the mark 0.
    """
    if Path("/proc/self/stat").exists():
        try:
            # The name, in brackets, may hold anything; state is the 3rd field, the start the 22nd (proc_pid_stat(5)).
            after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return after_name[0], int(after_name[19])
    return ("", 0) if lives(pid) else None


def lives(pid: int) -> bool:
    """Whether there is such a process, whoever's it is."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
