"""A ticket published from a record: the Celery message of a job, without arguments; and the due-set's issuer."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from celery import Celery, Task
from kombu import Producer
from kombu.exceptions import KombuError, OperationalError
from kombu.utils.json import dumps

from diarization.errors import InvalidJob, QueueUnavailable
from tasks.job import ANYWHERE, LOCAL, RUNPOD
from tasks.record import JobRecord
from tasks.records import Records
from tasks.server import reachable

logger = logging.getLogger(__name__)

NUMBER_HEADER = "diarize_ticket"
FIRST_IN_LINE = 0
"""Celery's highest priority on Redis: for a job that has waited already."""
PRIORITY_STEPS = ("", "\x06\x163", "\x06\x166", "\x06\x169")
"""kombu keeps a list for each of Celery's priorities 0, 3, 6 and 9: the queue's name with one of these behind it."""

# What belongs to the process that publishes, to the record, or could carry the URL.
_NOT_KEPT = {
    *("producer", "connection", "publisher", "router", "result_cls", "retry", "retry_policy", "add_to_parent"),
    *("eta", "countdown", "expires", "task_id", "task_type", "argsrepr", "kwargsrepr"),
    # How the message is written is ours to say.
    *("serializer", "compression", "delivery_mode", "exchange", "routing_key", "immediate", "mandatory"),
}

# A message with anything else would end the worker that meets it, and then the next one.
_KINDS: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("time_limit", "soft_time_limit"), (int, float)),
    **dict.fromkeys(("priority", "group_index", "replaced_task_nesting"), (int,)),
    **dict.fromkeys(("shadow", "group_id", "root_id", "parent_id", "reply_to"), (str,)),
    **dict.fromkeys(("link", "link_error"), (dict, list, tuple)),
    **dict.fromkeys(("chain", "stamped_headers"), (list, tuple)),
    **dict.fromkeys(("headers", "chord"), (dict,)),
    "ignore_result": (bool,),
}


def describe_ticket(task_name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What is needed to publish the same ticket again: queue, priority, callbacks, chain, chord, group, ids, limits.

    Raises:
        InvalidJob: An option is of a kind that no worker could make sense of.
    """
    for name, kinds in _KINDS.items():
        value = options.get(name)
        if value is not None and (not isinstance(value, kinds) or (bool not in kinds and isinstance(value, bool))):
            raise InvalidJob(f"{name}= of apply_async cannot be a {type(value).__name__}")
    kept = {name: value for name, value in options.items() if value is not None and name not in _NOT_KEPT}
    try:
        # Signatures are dictionaries; kombu's JSON knows the rest of what Celery allows.
        return {"task": task_name, "options": json.loads(dumps(kept))}
    except (TypeError, ValueError) as error:
        raise InvalidJob(f"an option of apply_async cannot be kept: {error}") from None


def ticket_number(message: Any) -> int:
    """The number of a ticket, from its request in a worker or its message's headers; 0 of a message sent by name."""
    return int(message.get(NUMBER_HEADER) or 0)


def task_id(message: Mapping[str, Any]) -> str:
    """The task id in a message of the broker, which is the job's."""
    return str(message.get("headers", {}).get("id"))


def publish(
    task: Task[Any, Any],
    record: JobRecord,
    *,
    number: int | None = None,
    again: bool = False,
    at: float = 0.0,
    producer: Producer | None = None,
) -> None:
    """Publish the record's ticket.

    Args:
        task: The job's task.
        record: The job.
        number: The ticket's; None is the record's newest.
        again: Whether it is first in line.
        at: The server's clock, where a run at a provider that is over by then is no reason to go there.
        producer: By which it is published; None is one of the app's.

    Raises:
        QueueUnavailable: The broker did not take it. Whether it has it after all cannot be known.
    """
    options = dict(record.ticket["options"])
    if record.remote is not None and record.remote.is_sent and at <= record.remote.gone_at:
        options["queue"] = RUNPOD  # whoever takes it must find the try there
    elif record.stays_home and options.get("queue") == ANYWHERE:
        options["queue"] = LOCAL
    if again:
        options["priority"] = FIRST_IN_LINE
    headers = {**options.pop("headers", {}), NUMBER_HEADER: record.ticket_number if number is None else number}
    shown: dict[str, Any] = {"argsrepr": f"({record.shown!r},)", "kwargsrepr": repr(dict(record.options))}
    try:
        with reachable():
            # Celery's own method: the task's is where records are made.
            options.update(task_id=record.id, producer=producer, headers=headers, add_to_parent=False, **shown)
            Task.apply_async(task, (), {}, **options)
    except (OperationalError, QueueUnavailable, RuntimeError, OSError) as error:
        # RuntimeError is what Celery's result backend raises once it has given up reconnecting.
        raise QueueUnavailable(
            f"job {record.id} is recorded, but its ticket may not be published ({type(error).__name__}); "
            "submit again with this task_id"
        ) from None


def publish_many(task: Task[Any, Any], records: Sequence[JobRecord]) -> None:
    """Publish the tickets of new jobs, 500 of them in a round trip: kombu sends 1,000 commands at once, and with each
    ticket goes an event.

    Raises:
        QueueUnavailable: The broker did not take them. Which of them it has after all cannot be known; a worker
            publishes those that are missing.
    """
    if not records:
        return
    try:
        with task.app.producer_or_acquire() as producer, producer.batch():
            for record in records:
                publish(task, record, producer=producer)
    except (KombuError, QueueUnavailable, OSError) as error:
        raise QueueUnavailable(
            f"{len(records)} jobs are recorded, but their tickets may not be published ({type(error).__name__}); "
            "a worker publishes what is missing"
        ) from None


def issue_due(app: Celery, records: Records, limit: int = 100) -> int:
    """Publish the tickets of jobs whose time has come, or whose worker is gone; how many."""
    for job_id in records.lapse(limit):
        logger.warning("job %s: its worker has been silent for too long, it goes to another", job_id)
    claimed = records.claim_due(limit)
    for job_id in claimed:
        try:
            _issue(app, records, job_id)
        except QueueUnavailable:
            raise
        except Exception:
            # Of this job alone; the others are due as well. It is tried again when its claim has run out.
            logger.exception("job %s is due, but its ticket cannot be published", job_id)
    return len(claimed)


def _issue(app: Celery, records: Records, job_id: str) -> None:
    record = records.get(job_id)
    if record is not None:
        # What has been started before, or has waited for another job, has waited long enough.
        again = record.token > 0 or record.follows is not None
        publish(app.tasks[record.ticket["task"]], record, again=again)
        records.issued(job_id, record.ticket_number)
        logger.info("job %s was due and is queued (attempt %d next)", job_id, record.attempts + 1)
