"""A job that is about to be written into its record, and what became of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from diarization.errors import DiarizationError
from tasks.job import JobRequest
from tasks.record import JobRecord, State, describe
from tasks.schedule import Schedule
from tasks.webhook import Webhook


@dataclass(frozen=True)
class Submission:
    """What became of a job that was to be written.

    Attributes:
        outcome: `created`; `exists` where a job of this id does; of an idempotency key that is known: `same` where its
            first job will do, `differs` where that is another request, `follows` where this job waits for it.
        job_id: Of this job or, where the key is known, of its first one.
    """

    outcome: str
    job_id: str


@dataclass(frozen=True)
class NewJob:
    """A job without a record.

    Attributes:
        id: Its id.
        request: What it asks for; None where that cannot be done.
        ticket: What is needed to publish its ticket.
        schedule: When it may start, and until when.
        rejected: Why a later step of a chain cannot be done: the job is kept, and fails by its own ticket.
        shares: Whether the first job of its idempotency key may stand for it.
    """

    id: str
    request: JobRequest | None
    ticket: Mapping[str, Any]
    schedule: Schedule = field(default_factory=Schedule)
    rejected: DiarizationError | None = None
    shares: bool = False

    def arguments(self, deadline_seconds: float) -> list[str | int]:
        """Those of `create.lua`, from its third on; `deadline_seconds` is for a request that names none."""
        request, schedule = self.request, self.schedule
        named = request.idempotency_key if request else None
        fields = self._fields(deadline_seconds)
        return [
            *map(seconds_text, (schedule.due_at, schedule.countdown, schedule.expires_in)),
            sha256(named.encode()).hexdigest() if named else "",
            request.fingerprint if request and named else "",
            int(self.shares),
            *(part for pair in fields.items() for part in pair),
        ]

    def record(self) -> JobRecord:
        """The record as it will stand there, as far as its first ticket needs it."""
        shown, options = (self.request.shown, self.request.shown_options()) if self.request else ("", {})
        return JobRecord(self.id, State.QUEUED, shown=shown, options=options, ticket=self.ticket)

    def _fields(self, deadline_seconds: float) -> dict[str, str]:
        fields: dict[str, str] = {"ticket": json.dumps(self.ticket)}
        if (request := self.request) is not None:
            fields["request"] = json.dumps(request.arguments())
            fields["options"] = json.dumps(request.shown_options())
            fields["shown"] = request.shown
            fields["deadline_seconds"] = seconds_text(request.deadline_seconds or deadline_seconds)
            if request.expected_audio_seconds is not None:
                fields["audio_seconds"] = seconds_text(request.expected_audio_seconds)
            if request.webhook is not None:
                fields["webhook"] = Webhook(request.webhook, request.webhook_result).to_json()
        if self.schedule.expires_at is not None:
            fields["expires_at"] = seconds_text(self.schedule.expires_at)
        if self.rejected is not None:
            fields["rejected"] = json.dumps(describe(self.rejected))
        return fields


def seconds_text(value: float | None) -> str:
    """Seconds as the scripts take them; empty where there are none."""
    return "" if value is None else f"{value:.3f}"
