"""The patient: real workers and a real server that writes every change to disk, and the ways to hurt them."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from benchmarks.history import NEVER_REWRITTEN
from benchmarks.runs import Span
from tasks.job import ANYWHERE, LOCAL
from tasks.tickets import PRIORITY_STEPS
from tasks.valkey import EmbeddedValkey
from tests.processes import Worker

SEMAPHORES = "/dev/shm/sem.mp-"
START_TIMEOUT_SECONDS = 90.0
STOP_TIMEOUT_SECONDS = 90.0


class Berth:
    """A place for a worker, as a service of compose is: who dies is started again, under the same name."""

    def __init__(self, name: str, folder: Path, environment: Mapping[str, str], children: int) -> None:
        self.name = name
        self._folder = folder
        self._environment = dict(environment)
        self._children = children
        self._generation = 0
        self._ready = False
        self.taken = False
        """Whether a fault is busy with it."""
        self.worker = self._spawn()

    @property
    def ready(self) -> bool:
        """Whether its worker takes jobs."""
        self._ready = self._ready or "@test ready" in self.worker.log
        return self._ready and self.alive

    @property
    def alive(self) -> bool:
        """Whether its worker has not ended."""
        return self.worker.process.poll() is None

    @property
    def pids(self) -> list[int]:
        """Of its worker: the main process, then the pool children."""
        return [self.worker.process.pid, *self.worker.children] if self.alive else []

    @property
    def logs(self) -> list[Path]:
        """Of all the workers that it has had."""
        return sorted(self._folder.glob(f"{self.name}.*.log"))

    def start(self) -> None:
        """A new worker, once the one before has ended."""
        self.worker = self._spawn()

    def signal(self, number: signal.Signals) -> None:
        """To the worker's main process and its pool children, all at once."""
        os.killpg(self.worker.process.pid, number)

    def kill(self) -> None:
        """The whole process group by SIGKILL; also the semaphores that nobody is left to remove."""
        # The pool children map them, not the main process.
        maps = [word for pid in self.pids for word in Path(f"/proc/{pid}/maps").read_text().split()]
        self.signal(signal.SIGKILL)
        self.worker.process.wait()
        for path in {word for word in maps if word.startswith(SEMAPHORES)}:
            Path(path).unlink(missing_ok=True)

    def _spawn(self) -> Worker:
        self._generation += 1
        self._ready = False
        log = self._folder / f"{self.name}.{self._generation:02d}.log"
        return Worker(log, self.name, self._environment, ("-A", "tasks"), ("-c", str(self._children)))


class Fleet:
    """The server and the workers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = EmbeddedValkey(folder, persistent=True, arguments=NEVER_REWRITTEN)
        self.berths: list[Berth] = []
        self.frozen: dict[int, list[Span]] = defaultdict(list)

    def start(self, environment: Mapping[str, str], children: list[int]) -> None:
        """Workers of so many children each; returns once they take jobs."""
        for number, count in enumerate(children):
            self.berths.append(Berth(f"w{number}", self.folder, environment, count))
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not all(berth.ready for berth in self.berths):
            if time.monotonic() > deadline or not all(berth.alive for berth in self.berths):
                raise RuntimeError(f"the workers did not start, see {self.folder}")
            time.sleep(0.1)

    def freeze(self, berth: Berth) -> Callable[[], None]:
        """Let a worker stand still, as a machine does that swaps or is migrated; the answer lets it go on."""
        pids, began = berth.pids, time.monotonic()
        berth.signal(signal.SIGSTOP)

        def thaw() -> None:
            for pid in pids:
                self.frozen[pid].append((began, time.monotonic()))
            berth.signal(signal.SIGCONT)

        return thaw

    def server_answers(self) -> bool:
        """Whether it does, at once."""
        try:
            with Redis.from_url(self.server.url, socket_timeout=0.5, retry=Retry(NoBackoff(), 0)) as client:
                return bool(client.ping())
        except RedisError:
            return False

    def messages(self, prefix: str) -> dict[str, int]:
        """What the broker and the queue's own lists still hold, where they hold anything."""
        lists = [prefix + queue + step for queue in (ANYWHERE, LOCAL) for step in PRIORITY_STEPS]
        with Redis.from_url(self.server.url, decode_responses=True) as client:
            counts = {key.replace("\x06\x16", ":"): int(client.llen(key)) for key in lists}
            counts["unacked"] = int(client.hlen(prefix + "unacked"))
            counts |= {
                name: int(client.zcard(prefix + name)) for name in ("unacked_index", "due", "leases", "jobs:unanswered")
            }
        return {key: count for key, count in counts.items() if count}

    def cut(self) -> None:
        """Close all connections of everybody."""
        with Redis.from_url(self.server.url) as client:
            for kind in ("normal", "pubsub"):
                client.client_kill_filter(_type=kind, skipme=True)

    def stop(self) -> list[str]:
        """End all in order; what did not end as it should."""
        complaints = []
        for berth in self.berths:
            if berth.alive:
                berth.signal(signal.SIGCONT)
                berth.worker.process.terminate()
        for berth in self.berths:
            # Not asked twice: Celery takes a second SIGTERM for a kill.
            try:
                berth.worker.process.wait(STOP_TIMEOUT_SECONDS)
            except subprocess.TimeoutExpired:
                berth.kill()
            if berth.worker.process.returncode:
                complaints.append(f"{berth.name} ended with {berth.worker.process.returncode} after SIGTERM")
        return complaints
