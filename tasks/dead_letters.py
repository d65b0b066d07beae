"""Jobs that have been given up, kept with their reason: replayed once the cause is gone, or discarded."""

from __future__ import annotations

from diarization.errors import InvalidJob
from tasks.producer import SubmittedTask
from tasks.record import JobRecord, State
from tasks.records import once_told

_OF_THE_OLD_GROUP = ("chord", "group_id", "group_index")
"""An old chord has counted the job as failed, and must not count it again."""


def replay(task: SubmittedTask, record: JobRecord) -> None:
    """Give a dead letter a new life: all attempts, its callbacks and the rest of its chain; its history is kept.

    Whoever asks for its result waits again. A worker issues its ticket within a second, first in line.

    Raises:
        InvalidJob: It is no dead letter (any more), or was none that could ever be done.
    """
    if record.request is None:
        raise InvalidJob(f"job {record.id} cannot be replayed: it was refused as it was submitted")
    options = record.ticket["options"]
    if record.state is State.DEAD and record.answered:
        # Else whoever waits would be given the old failure: it is the job's, and that of all steps after it.
        steps = (step.get("options", {}).get("task_id") for step in options.get("chain") or ())
        for job_id in filter(None, (record.id, *steps)):
            task.backend.forget(job_id)
    kept = {name: value for name, value in options.items() if name not in _OF_THE_OLD_GROUP}
    ticket = {**record.ticket, "options": kept}
    outcome = once_told(record.id, lambda: task.records.replay(record, ticket))
    if outcome != "due":
        raise InvalidJob(f"job {record.id} is no dead letter: {outcome}")


def discard(task: SubmittedTask, record: JobRecord) -> None:
    """Forget a dead letter, its URL and its error with it.

    Raises:
        InvalidJob: It is no dead letter (any more).
    """
    outcome = once_told(record.id, lambda: task.records.delete(record.id, State.DEAD))
    if outcome != "deleted":
        raise InvalidJob(f"job {record.id} is no dead letter: {outcome}")
    task.backend.forget(record.id)
