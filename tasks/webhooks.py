"""Webhooks: whoever asked for it is told of a job's end, signed, at least once, for hours where need be.

The end of a job puts its id into a set, in the same step (`finish` in `tasks/scripts/shared.lua`). Each worker's main
process takes from it what is due, in threads of its own: no GPU waits for a receiver. What is taken comes back by
itself where its worker dies, so a receiver may be told twice, by the same `webhook-id`.
"""

from __future__ import annotations

import json
import logging
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

from redis import Redis

from diarization.errors import UrlNotAllowed
from tasks.record import JobRecord
from tasks.records import Records
from tasks.server import server_time
from tasks.settings import Settings
from tasks.signature import secret_bytes, sign
from tasks.webhook_post import WHOLE_SECONDS, NotDelivered, post

logger = logging.getLogger(__name__)

AT_ONCE = 8
"""Deliveries of one worker at one time."""
CLAIM_SECONDS = int(4 * WHOLE_SECONDS)
"""One that was taken and of which nothing is heard comes back after this."""
SLOW_SECONDS = 5.0
"""A receiver that has taken nothing for so long costs others their place."""
PAUSE_SECONDS = 60.0
"""Such a one is tried by one delivery of a worker in so long, until it answers: the threads are for those that do."""
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 5.0, 3600.0
"""Before the second try; doubles with each one after."""


class Webhooks:
    """The deliveries of one worker. Every method raises `QueueUnavailable` where Redis cannot be reached."""

    def __init__(self, records: Records, client: Redis, settings: Settings) -> None:
        self._records = records
        self._redis = client
        self._waiting = settings.redis_key_prefix + "webhooks"
        self._networks = settings.webhook_allowed_networks
        # With the job's record goes its webhook: that is said, too.
        self._give_up_seconds = min(settings.webhook_give_up_hours * 3600, settings.queue_retention_days * 86400)
        known = (settings.webhook_secret, settings.webhook_secret_old)
        self._keys = [secret_bytes(one.get_secret_value()) for one in known if one]
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="webhook")
        self._said = False
        self._slow_until: dict[str, float] = {}
        self._slow_changes = threading.Lock()

    def round(self) -> None:
        """Deliver what is due, `AT_ONCE` at most, and pass over those whose receivers are slow."""
        if not self._keys:
            if not self._said and self._redis.zcard(self._waiting):
                logger.error("webhooks wait, and cannot be signed: set WEBHOOK_SECRET (diarize-queue webhooks secret)")
                self._said = True
            return
        while claimed := self._records.claim_webhooks(AT_ONCE, CLAIM_SECONDS):
            # `list`, so that what a thread raises is raised here.
            if any(list(self._threads.map(self._deliver, claimed))):
                return

    def _deliver(self, job_id: str) -> bool:
        """Whether it was tried; what was not comes back when its claim has run out."""
        record = self._records.get(job_id)
        if record is None or record.webhook is None or not record.state.ended:
            return False  # it has been replayed or deleted since: nothing is touched, its next end may be there by now
        webhook, host = record.webhook, urlsplit(record.webhook.url).hostname or ""
        if not self._may_try(host):
            return False
        began = time.monotonic()
        try:
            body = message(record, with_result=webhook.with_result)
            post(webhook.url, body, self._headers(message_id(record), body), self._networks)
        except UrlNotAllowed as error:
            self._give_up(record, error.message)
        except NotDelivered as error:
            self._note(host, slow=time.monotonic() - began > SLOW_SECONDS)
            self._later(record, str(error))
        else:
            self._note(host, slow=False)
            self._records.webhook_told(job_id, record.ended_at)
            logger.info("job %s: %s is told of its end (%s)", job_id, host, record.state)
        return True

    def _may_try(self, host: str) -> bool:
        """Whether that receiver answers, as far as is known, or this is the delivery that finds out."""
        now = time.monotonic()
        with self._slow_changes:
            if (until := self._slow_until.get(host)) is None:
                return True
            if now >= until:
                self._slow_until[host] = now + PAUSE_SECONDS
            return now >= until

    def _note(self, host: str, *, slow: bool) -> None:
        with self._slow_changes:
            if slow:
                self._slow_until[host] = time.monotonic() + PAUSE_SECONDS
            else:
                self._slow_until.pop(host, None)

    def _headers(self, named: str, body: bytes) -> dict[str, str]:
        sent_at = int(time.time())  # for the receiver, who has no other clock of ours
        return {
            "Content-Type": "application/json",
            "User-Agent": "diarize-queue",
            "Connection": "close",
            "webhook-id": named,
            "webhook-timestamp": str(sent_at),
            "webhook-signature": sign(named, sent_at, body, *self._keys),
        }

    def _later(self, record: JobRecord, why: str) -> None:
        tries = record.webhook_tries + 1
        wait_seconds = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2 ** min(tries - 1, 20))
        wait_seconds *= random.uniform(0.75, 1.0)  # noqa: S311
        since = record.webhook_again_at or record.ended_at or 0.0
        if server_time(self._redis) + wait_seconds - since > self._give_up_seconds:
            self._give_up(record, f"{why}, at try {tries}")
            return
        self._records.webhook_later(record.id, record.ended_at, why, wait_seconds)
        if tries == 1:
            logger.warning("job %s: its webhook was not taken, and is tried again: %s", record.id, why)

    def _give_up(self, record: JobRecord, why: str) -> None:
        self._records.webhook_given_up(record.id, record.ended_at, why)
        logger.error("job %s: its webhook is given up: %s", record.id, why)


def message_id(record: JobRecord) -> str:
    """The same for each delivery of one end, and another after a replay."""
    return f"{record.id}.{len(record.history)}"


def message(record: JobRecord, *, with_result: bool) -> bytes:
    """The body: how the job ended."""
    error = record.error or {}
    told: dict[str, Any] = {
        "job_id": record.id,
        "state": str(record.state),
        "code": error.get("code"),
        "message": error.get("message"),
        "advice": error.get("advice"),
        "recording": record.shown,
        "audio_seconds": record.audio_seconds,
        "attempts": record.attempts,
        "submitted_at": record.submitted_at,
        "ended_at": record.ended_at,
    }
    if with_result:
        told["result"] = record.result
    return json.dumps(told, allow_nan=False).encode()
