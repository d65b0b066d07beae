"""Watches the processes that run jobs: when each was last seen alive, and how late the machine lets the watch look."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

from benchmarks.runs import Span

EVERY_SECONDS = 0.05
STALL_SECONDS = 1.0


class Witness(threading.Thread):
    """Looks every 50 ms at each process that has written into the stand-in's journal."""

    def __init__(self, folder: Path) -> None:
        super().__init__(name="witness", daemon=True)
        (folder / "journal").touch()
        self._journal = (folder / "journal").open(encoding="utf-8")
        self._births: dict[int, str] = {}
        self._stopped = threading.Event()
        self.busy: set[int] = set()
        """Processes that run a job now."""
        self.last_alive: dict[int, float] = {}
        self.worst_delay_seconds = 0.0
        self.stalls: list[Span] = []
        """When it was kept from looking for longer than a second: the machine was starved, the workers as well."""

    def run(self) -> None:
        """The thread's body."""
        before = time.monotonic()
        while not self._stopped.wait(EVERY_SECONDS):
            now = time.monotonic()
            self.worst_delay_seconds = max(self.worst_delay_seconds, now - before - EVERY_SECONDS)
            if now - before > STALL_SECONDS:
                self.stalls.append((before, now))
            before = now
            self._look(now)

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        self.join()
        self._journal.close()

    def _look(self, now: float) -> None:
        for line in self._journal.readlines():
            entry = json.loads(line)
            pid = int(entry["pid"])
            self.busy = self.busy | {pid} if entry["event"] == "start" else self.busy - {pid}
            if pid not in self.last_alive:
                self._births[pid] = birth(pid)
                self.last_alive[pid] = 0.0
        for pid, born in list(self._births.items()):
            if born and birth(pid) == born:
                self.last_alive[pid] = now
            else:
                del self._births[pid]
                self.busy -= {pid}


def birth(pid: int) -> str:
    """When a living process started, which tells it from a later one of its pid; "" where it is dead or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if fields[0] in "ZX" else fields[19]
