"""The canary: a job of ten seconds that keeps a quiet endpoint awake, and shows whether it still works.

RunPod lowers the max workers of an endpoint without requests: after three days to 2, after seven to 0, where they stay
until somebody raises them (https://docs.runpod.io/serverless/endpoints/endpoint-configurations). An endpoint for
overflow is quiet by nature. So where no run has been seen for OVERFLOW_CANARY_HOURS, as in a fleet that has just been
set up, the leading bridge submits a job like any other, pinned to RunPod, with a recording that every worker has and
whose answer is known. It is priced, counts on the budget, and its cold start is measured as any run's.

An endpoint that fails it gets no jobs but the next canary, until that is right: when the breaker, which the failure
opens, lets it. It is open for twice as long after each canary in a row that failed, also where RunPod accepts them all:
else a day's budget would go on canaries.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any

from celery.utils import uuid
from redis import Redis

from diarization import __version__, canary
from diarization.turns import Diarization
from tasks.overflow.breaker import Breaker, open_seconds_after
from tasks.record import State
from tasks.records import Records
from tasks.runpod.api import max_workers
from tasks.runpod_bridge import diarize_on_runpod
from tasks.server import reachable
from tasks.settings import Settings
from tasks.stored import Stored

logger = logging.getLogger(__name__)

DEADLINE_SECONDS = 3600.0
"""For budget, a place in flight and a worker; a canary that has none by then has failed."""


@dataclass(frozen=True)
class Sighting(Stored):
    """The last canary. Times are seconds since 1970, by the server's clock.

    Attributes:
        job_id: The job's; empty where none could be sent.
        sent_at: When it was submitted.
        ended_at: When its end was seen; None while it is under way.
        failure: Why RunPod gets no jobs; None where it may have them. It stays until a later canary is right.
        failures: So many in a row have failed.
        note: What the operator should know though it works.
    """

    job_id: str
    sent_at: float
    ended_at: float | None = None
    failure: str | None = None
    failures: int = 0
    note: str | None = None


class Canary:
    """One for the fleet, as its leader sees it.

    Every method raises `QueueUnavailable` where Redis cannot be reached.
    """

    def __init__(self, client: Redis, settings: Settings) -> None:
        self._redis = client
        self._settings = settings
        self._key = settings.redis_key_prefix + "fleet:canary"
        self._records = Records(settings)
        self._breaker = Breaker(client, settings)

    def last(self) -> Sighting | None:
        """The last one; None before the first."""
        with reachable():
            stored: Any = self._redis.get(self._key)
        return Sighting.parse(stored) if stored else None

    def round(self, now: float, last_run_at: float) -> str | None:
        """Look after the one that is under way, or send the next where it is time.

        Args:
            now: By the server's clock.
            last_run_at: When a run of any job was over.

        Returns:
            Why RunPod gets no jobs: the last one has failed. None where it may have them.
        """
        settings = self._settings
        if not settings.overflow_canary_hours or settings.overflow_dry_run or not settings.overflow_budget_usd_per_day:
            return None
        last = self.last()
        if last is not None and last.ended_at is None:
            last = self._look_after(last, now)
        elif self._is_time(last, now, last_run_at):
            last = self._send(last, now)
        return last.failure if last else None

    def _is_time(self, last: Sighting | None, now: float, last_run_at: float) -> bool:
        if last is not None and last.failure:
            return self._breaker.state() is None
        quiet_since = max(last_run_at, last.sent_at if last else 0.0)
        return now - quiet_since >= self._settings.overflow_canary_hours * 3600

    def _send(self, before: Sighting | None, now: float) -> Sighting:
        """What stands in Redis before the job does is a canary without a record, should this process die in between."""
        begun = Sighting("", now)
        if before:
            begun = replace(begun, failure=before.failure, failures=before.failures)
        if max_workers(self._settings) == 0:
            return self._failed(begun, now, "its max workers are 0: raise them in RunPod's console")
        sighting = self._note(replace(begun, job_id=uuid()))
        asked = {"expected_audio_seconds": canary.AUDIO_SECONDS, "deadline_seconds": DEADLINE_SECONDS}
        diarize_on_runpod.apply_async((canary.URL,), asked, task_id=sighting.job_id)
        logger.info("canary %s is on its way to RunPod", sighting.job_id)
        return sighting

    def _look_after(self, sighting: Sighting, now: float) -> Sighting | None:
        record = self._records.get(sighting.job_id)
        if record is None:  # it was not submitted, or Redis has lost it
            if sighting.failure:
                # What the one before has shown still holds, until another one is right.
                return self._note(replace(sighting, ended_at=now))
            with reachable():
                self._redis.delete(self._key)
            return None
        if not record.state.ended:
            return sighting
        if record.state is State.DEAD:
            # What there is to say is said here: it is no dead letter that anybody should replay.
            if self._records.delete(record.id, State.DEAD) == "untold":
                return sighting
            error = record.error or {}
            return self._failed(sighting, now, f"{error.get('code')}: {error.get('message')}")
        if record.state is not State.DONE:
            return self._note(replace(sighting, ended_at=now))
        answer = Diarization.from_json(record.result)
        if wrong := canary.complaint(answer):
            return self._failed(sighting, now, f"it answers wrongly: {wrong}")
        theirs, note = answer.provenance.versions.get("diarize-queue"), None
        if theirs != __version__:
            note = f"RunPod's image is of version {theirs}, this bridge of {__version__}: rebuild the endpoint"
            logger.warning(note)
        logger.info("canary %s is right, for %.4f USD at most", sighting.job_id, answer.provenance.cost_usd)
        return self._note(replace(sighting, ended_at=now, failure=None, failures=0, note=note))

    def _failed(self, sighting: Sighting, now: float, why: str) -> Sighting:
        failure, failures = f"the canary failed, {why}", sighting.failures + 1
        self._breaker.trip(failure, open_seconds_after(failures))
        return self._note(replace(sighting, ended_at=now, failure=failure, failures=failures, note=None))

    def _note(self, sighting: Sighting) -> Sighting:
        with reachable():
            self._redis.set(self._key, sighting.to_json())
        return sighting
