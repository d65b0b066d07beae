"""What a Redis has written, in order, from its append-only file: a witness that misses nothing and asks nobody.

Every write of every script is in there, across kill -9 and restarts, as long as the file is not rewritten (start the
server with `NEVER_REWRITTEN`). So "ended once" is read off what was written, not off what a poll happened to see.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Self

from tasks.record import State

NEVER_REWRITTEN = ("--auto-aof-rewrite-percentage", "0")
ENDED = frozenset(state.value for state in State if state.ended)
FINAL = frozenset({"SUCCESS", "FAILURE", "REVOKED"})


@dataclass
class JobHistory:
    """Of one job: `states` its record went through, `answers` (status, result) that Celery stored as final."""

    states: list[str] = field(default_factory=list)
    answers: list[tuple[str, str]] = field(default_factory=list)
    shown: str = ""

    @property
    def end(self) -> int | None:
        """Where in `states` its first end stands."""
        return next((place for place, state in enumerate(self.states) if state in ENDED), None)

    @property
    def after_its_end(self) -> list[str]:
        """States that were written when it had ended: there must be none."""
        return [] if self.end is None else self.states[self.end + 1 :]


@dataclass
class History:
    """Of all jobs, by their id."""

    jobs: dict[str, JobHistory] = field(default_factory=lambda: defaultdict(JobHistory))

    @classmethod
    def read(cls, folder: Path, prefix: str) -> Self:
        """From the files of the server that runs in `folder`."""
        history = cls()
        for path in sorted(folder.glob("appendonlydir/*.incr.aof"), key=lambda path: int(path.name.split(".")[-3])):
            with path.open("rb") as stream:
                for command in _commands(stream):
                    history.note(command, prefix)
        return history

    def note(self, command: Sequence[str], prefix: str) -> None:
        """Take in one write."""
        name, key, *rest = (*command, "", "")
        record, answer = f"{prefix}job:", f"{prefix}celery-task-meta-"
        if name.upper() in ("HSET", "HMSET") and key.startswith(record):
            job = self.jobs[key.removeprefix(record)]
            fields = dict(zip(rest[::2], rest[1::2], strict=False))
            job.shown = fields.get("shown", job.shown)
            if "state" in fields:
                job.states.append(fields["state"])
        elif name.upper() in ("SET", "SETEX") and key.startswith(answer):
            stored = json.loads(rest[1] if name.upper() == "SETEX" else rest[0])
            if stored["status"] in FINAL:
                told = (stored["status"], json.dumps(stored["result"], sort_keys=True))
                self.jobs[key.removeprefix(answer)].answers.append(told)


def _commands(stream: BinaryIO) -> Iterator[list[str]]:
    """The commands of an append-only file. The last one may be cut off where the server was killed while writing it."""
    while head := stream.readline():
        if head.startswith(b"#"):
            continue
        command = []
        for _ in range(int(head[1:])):
            length = int(stream.readline()[1:] or 0)
            word = stream.read(length + 2)
            if not word or len(word) < length + 2:
                return
            command.append(word[:-2].decode(errors="replace"))
        yield command
