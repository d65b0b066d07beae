"""What a process has cost: its CPU time by the kernel's books, its round trips by the server's."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from redis import Redis


@dataclass(frozen=True)
class Reading:
    """Sums so far: CPU in milliseconds of a worker's main process and of its children; round trips of all clients."""

    main_ms: float
    child_ms: float
    round_trips: int

    def since(self, earlier: Reading, jobs: int) -> dict[str, float]:
        """Per job."""
        return {
            "main_cpu_ms": round((self.main_ms - earlier.main_ms) / jobs, 3),
            "child_cpu_ms": round((self.child_ms - earlier.child_ms) / jobs, 3),
            "worker_cpu_ms": round((self.main_ms + self.child_ms - earlier.main_ms - earlier.child_ms) / jobs, 3),
            "worker_round_trips": round((self.round_trips - earlier.round_trips) / jobs, 2),
        }


class Meter:
    """Reads one worker's pids and one server.

    A round trip is one batch of commands that a client sends and waits for: the server counts the reads from its
    clients' sockets (`total_reads_processed`). A pipeline is one, and so is a script, whatever it does inside. This
    meter's own calls are left out.
    """

    def __init__(self, client: Redis, main_pid: int, children: list[int]) -> None:
        self._redis = client
        self._main_pid = main_pid
        self._children = children
        self._own_calls = 0

    def read(self) -> Reading:
        """The sums now."""
        child_ms = sum(cpu_milliseconds(pid) for pid in self._children)
        return Reading(cpu_milliseconds(self._main_pid), child_ms, self.round_trips())

    def round_trips(self) -> int:
        """Of all clients but this one."""
        self._own_calls += 1
        facts: Any = self._redis.info("stats")
        return int(facts["total_reads_processed"]) - self._own_calls

    def get(self, key: str) -> str | None:
        """A key's value, asked for outside the count."""
        self._own_calls += 1
        value: Any = self._redis.get(key)
        return None if value is None else str(value)


def cpu_milliseconds(pid: int) -> float:
    """CPU time of a process's threads that live."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e6


def hardware() -> dict[str, Any]:
    """The machine, in words and numbers."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / 1024**2
    return {"cpu": models[0] if models else platform.machine(), "cores": os.cpu_count(), "memory_gib": round(memory, 1)}


def versions(client: Redis) -> dict[str, str]:
    """Of what takes part."""
    facts: Any = client.info("server")
    found = {name: version(name) for name in ("celery", "kombu", "redis")}
    return {
        "python": platform.python_version(),
        **found,
        "server": str(facts.get("valkey_version", facts["redis_version"])),
    }
