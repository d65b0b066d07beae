"""What stands in a queue and is no message of a job is thrown away; its sender is told, where it says who that is.

Anybody may write a message (docs/produce.md), and Celery and kombu 5.7 take each for one of their own making: one
without an id, with a body of another shape or that is no JSON ends the worker that meets it, goes back into the queue,
and ends the next one.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from celery import Celery, bootsteps
from celery.worker.consumer.tasks import Tasks
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from diarization.errors import InvalidJob, QueueUnavailable
from diarization.turns import first_complaint
from tasks.records import Records
from tasks.server import reachable
from tasks.settings import current_settings

logger = logging.getLogger(__name__)

Decode = Callable[[Mapping[str, Any]], Any]
"""The body of an envelope, as Python objects; raises whatever it likes."""


class _Headers(BaseModel):
    task: str
    id: str = Field(min_length=1, max_length=200)
    timelimit: tuple[float | None, float | None] | None = None
    expires: datetime | None = None
    eta: datetime | None = None
    diarize_ticket: int | None = None


class _DeliveryInfo(BaseModel):
    exchange: str
    routing_key: str


class _Properties(BaseModel):
    delivery_tag: str
    delivery_info: _DeliveryInfo
    body_encoding: Literal["base64", "utf-8"] | None = None


class _Envelope(BaseModel):
    """What Celery 5.7 and kombu 5.7 read of a message before they know whose it is; more is passed over."""

    headers: _Headers
    properties: _Properties
    body: str


_BODY: TypeAdapter[Any] = TypeAdapter(tuple[list[Any], dict[str, Any], dict[str, Any] | None])
"""Positional arguments, keyword arguments, and callbacks and the like."""


@dataclass(frozen=True)
class Refusal:
    """Why a message is none; `job_id` where its sender may wait for an answer under that."""

    reason: str
    job_id: str | None = None


def refusal(raw: bytes, decode: Decode) -> Refusal | None:
    """Why Celery could make no task of what stood in a queue; None where it can. No value of it is repeated."""
    try:
        envelope = json.loads(raw)
    except ValueError:
        return Refusal("it is not JSON")
    try:
        headers = _Envelope.model_validate(envelope).headers
    except ValidationError as error:
        return Refusal(first_complaint(error), _id_in(envelope))
    try:
        _BODY.validate_python(decode(envelope))
    except ValidationError as error:
        return Refusal(f"body: {first_complaint(error)}", headers.id)
    except Exception as error:  # noqa: BLE001 - base64, compression, encoding, content type: each fails in its own way
        return Refusal(
            f"body: must be JSON, and the content-type application/json ({type(error).__name__})", headers.id
        )
    return None


class SieveStep(bootsteps.StartStopStep):
    """Looks at what the broker gives before kombu does."""

    requires = (Tasks,)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._records = Records(current_settings())

    def start(self, parent: Any) -> None:
        """Celery's hook; it comes again with each new connection, which has a channel of its own."""
        # The channel reads once more when it is closed: by then the consumer is gone.
        channel, accept, app = parent.task_consumer.channel, parent.task_consumer.accept, parent.app
        read = channel.client.parse_response

        def decode(envelope: Mapping[str, Any]) -> Any:
            return channel.Message(envelope, channel=channel, accept=accept).decode()

        def sieved(connection: Any, command: str, **options: Any) -> Any:
            answer = read(connection, command, **options)
            found = refusal(answer[1], decode) if command == "BRPOP" and answer else None
            if found is None:
                return answer
            _refuse(app, self._records, found)
            return None  # as if the queue were empty

        channel.client.parse_response = sieved


def _refuse(app: Celery, records: Records, found: Refusal) -> None:
    logger.error("a message in the queue is thrown away, since it is none of a job: %s", found.reason)
    if found.job_id is None:
        return
    try:
        if records.get(found.job_id) is not None:
            return  # that job ends by its record, and gets another ticket where this was meant to be one
        with reachable():
            app.backend.mark_as_failure(found.job_id, InvalidJob(f"the message is none of a job: {found.reason}"))
    except QueueUnavailable as error:
        logger.warning("the sender of %s cannot be told: %s", found.job_id, error)


def _id_in(envelope: Any) -> str | None:
    headers = envelope.get("headers") if isinstance(envelope, dict) else None
    job_id = headers.get("id") if isinstance(headers, dict) else None
    return job_id if isinstance(job_id, str) and 0 < len(job_id) <= 200 else None
