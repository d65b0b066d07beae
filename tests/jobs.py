"""What tests ask about a job, its record and how often the stand-in has begun it; and how one ends without a worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from diarization.errors import RecordingNotFound
from tasks.diarize import diarize
from tasks.record import JobRecord
from tests.standin import read_journal


def record(job: Any) -> JobRecord:
    """The record of a job that there is, by its result or its id."""
    found = diarize.records.get(job if isinstance(job, str) else job.id)
    assert found is not None
    return found


def die(job_id: str) -> None:
    """End a waiting job without a worker: a dead letter."""
    known = record(job_id)
    assert diarize.records.take(job_id, known.ticket_number, "w (1)") == "taken"
    assert diarize.records.give_up(job_id, known.token + 1, RecordingNotFound("no such file")) == "dead"


def starts(folder: Path, path: str) -> int:
    """How often a job whose URL ends with `path` was begun."""
    return sum(line["event"] == "start" and line["what"].endswith(path) for line in read_journal(folder))


def answers(redis: Redis) -> bool:
    """Whether the server is there, also while it is restarted."""
    try:
        return bool(redis.ping())
    except RedisError:
        return False
