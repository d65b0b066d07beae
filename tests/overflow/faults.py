"""The rows of the fault matrix: what goes wrong, in which phase of a job's way to RunPod and back."""

from __future__ import annotations

from dataclasses import dataclass

from tests.emulator import Fault

PINNED, BUSY, ALONE = "pinned", "GPU busy", "no GPU"
MODES = (PINNED, BUSY, ALONE)
"""A job that only RunPod may do; one that a GPU worker would do too late; one for which there is no GPU worker."""


@dataclass(frozen=True)
class Row:
    """One fault.

    Attributes:
        phase: Of the job.
        name: Of the fault.
        faults: What the emulator is told.
        dies_at: Where the bridge kills itself (`tests.hasty`).
        act: What the test does once the job is at RunPod: `restart redis`, `silence`, `expire`, `cancel`.
        path: What the stand-in does at RunPod.
        unknown: Whether nobody can know what RunPod did: then it is booked, and may be done a second time elsewhere.
    """

    phase: str
    name: str
    faults: tuple[Fault, ...] = ()
    dies_at: str = ""
    act: str = ""
    path: str = "turns/5/1"
    unknown: bool = False

    @property
    def id(self) -> str:
        return f"{self.phase}: {self.name}"


def _status(code: int, at: str, times: int = 1, **more: str) -> Fault:
    return Fault(at, "status", status=code, times=times, **more)  # type: ignore[arg-type]


BEFORE = (
    Row("before POST", "bridge killed, thought", dies_at="thought"),
    Row("before POST", "bridge killed, reserved", dies_at="reserved"),
    Row("before POST", "bridge killed, intended", dies_at="intended", unknown=True),
)
DURING = (
    Row("POST", "429", (_status(429, "run", retry_after="1"),)),
    Row("POST", "400", (_status(400, "run"),)),
    Row("POST", "401", (_status(401, "run"),)),
    Row("POST", "404", (_status(404, "run"),)),
    Row("POST", "500", (_status(500, "run"),), unknown=True),
    Row("POST", "html", (Fault("run", "html"),), unknown=True),
    Row("POST", "drip", (Fault("run", "drip", seconds=0.01),)),
    Row("POST", "truncated", (Fault("run", "truncate"),), unknown=True),
    Row("POST", "reset before", (Fault("run", "reset-before"),), unknown=True),
    Row("POST", "reset after", (Fault("run", "reset-after"),), unknown=True),
    Row("POST", "bridge killed", dies_at="posted", unknown=True),
)
AFTER = (
    Row("after POST", "bridge killed", dies_at="stored"),
    Row("after POST", "lost by RunPod", (Fault("job", "lost"),)),
    Row("after POST", "Redis restarted", act="restart redis", path="sleep/2"),
    Row("after POST", "RunPod silent", act="silence", path="sleep/2"),
    Row("after POST", "cancelled by the caller", act="cancel", path="wait/never"),
)
POLLING = (
    Row("polling", "429", (_status(429, "status", 2, retry_after="1"),)),
    Row("polling", "401", (_status(401, "status", 2),)),
    Row("polling", "404", (_status(404, "status", 2),)),
    Row("polling", "500", (_status(500, "status", 3),)),
    Row("polling", "html", (Fault("status", "html", times=3),)),
    Row("polling", "drip", (Fault("status", "drip", seconds=0.005),)),
    Row("polling", "truncated", (Fault("status", "truncate", times=2),)),
    Row("polling", "reset", (Fault("status", "reset-before", times=3),)),
    Row("polling", "stuck in the queue", (Fault("job", "stuck-queued"),)),
    Row("polling", "stuck in progress", (Fault("job", "stuck-running"),)),
    Row("polling", "never started", (Fault("job", "timed-out"),)),
    Row("polling", "unknown status", (Fault("job", "odd"),)),
)
RESULT = (
    Row("result", "no output", (Fault("job", "empty"),)),
    Row("result", "garbled", (Fault("job", "garbled"),)),
    Row("result", "handler raised", (Fault("job", "raised"),)),
    Row("result", "overtaken by progress", (Fault("job", "overtaken"),)),
    Row("result", "run twice", (Fault("job", "twice"),)),
    Row("result", "expired", act="expire", path="sleep/1"),
    Row("result", "bridge killed, ended", dies_at="ended"),
    Row("result", "bridge killed, settled", dies_at="settled"),
)
FOUND = frozenset({("before POST: bridge killed, reserved", ALONE), ("POST: 400", ALONE)})
"""What the whole matrix has found: run every time."""
ROWS = (*BEFORE, *DURING, *AFTER, *POLLING, *RESULT)


def cases(*, every: bool) -> list[tuple[Row, str]]:
    """Faults with modes: all, or each fault once and each phase with each mode."""
    if every:
        return [(row, mode) for row in ROWS for mode in MODES]
    chosen = [(row, MODES[index % len(MODES)]) for index, row in enumerate(ROWS)]
    chosen += [(row, mode) for row in ROWS for mode in MODES if (row.id, mode) in FOUND]
    have = {(row.phase, mode) for row, mode in chosen}
    for row in ROWS:
        for mode in MODES:
            if (row.phase, mode) not in have:
                chosen.append((row, mode))
                have.add((row.phase, mode))
    return chosen
