"""A copy of a ticket that has no part in the job's end leaves what Celery says of it alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from celery.exceptions import TaskRevokedError
from redis import Redis

from diarization.errors import Cancelled, RecordingUndecodable
from tasks.diarize import diarize
from tasks.record import State
from tasks.tickets import publish
from tests.processes import Worker, wait_until


@pytest.mark.parametrize("path", ["fail/permanent", "wait/never"])
def test_a_stale_copy_of_a_job_that_has_not_ended_well_changes_nothing(
    redis: Redis, start_worker: Callable[..., Worker], path: str
) -> None:
    worker = start_worker()
    job = diarize.delay(f"http://stand.in/{path}")
    if path == "wait/never":
        wait_until(lambda: diarize.records.get(job.id).state is State.RUNNING)
        job.revoke()
    with pytest.raises((RecordingUndecodable, TaskRevokedError, Cancelled)):
        job.get(timeout=30)
    key = f"diarize:celery-task-meta-{job.id}"
    before = redis.get(key)
    wait_until(lambda: redis.hlen("diarize:unacked") == 0, what="the first ticket is acknowledged")
    ignored = worker.log.count(f"[{job.id}] ignored")
    record = diarize.records.get(job.id)
    publish(diarize, record, number=7)
    wait_until(lambda: worker.log.count(f"[{job.id}] ignored") > ignored, what="the copy is thrown away")
    assert redis.get(key) == before
