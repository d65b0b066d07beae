"""Webhooks: whoever asked for it is told of a job's end, signed, at least once, for hours where need be.

The end of a job puts its id into a set, in the same step (`finish` in `tasks/scripts/shared.lua`). Each worker's main
process takes from it what is due, in threads of its own: neither a GPU nor another receiver waits for a receiver, nor
does a worker that stops. What was taken comes back, at once from a stop and by itself where the worker dies; so a
receiver may be told twice, by the same `webhook-id`.
"""

from __future__ import annotations

import json
import logging
import random
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

from redis import Redis

from diarization.errors import UrlNotAllowed
from tasks.heartbeat import Beat
from tasks.record import JobRecord
from tasks.records import Records
from tasks.server import server_time
from tasks.settings import Settings
from tasks.signature import secret_bytes, sign
from tasks.webhook_post import WHOLE_SECONDS, BrokenOff, NotDelivered, post

logger = logging.getLogger(__name__)

AT_ONCE = 16
"""Deliveries of one worker at one time."""
CLAIM_SECONDS = int(4 * WHOLE_SECONDS)
"""One that was taken and of which nothing is heard comes back after this."""
LOOK_EVERY_SECONDS = 2.0
MOST_PASSED, PASSED_SECONDS = 1000, 10
"""A look passes over so many of receivers that have their share (Redis takes milliseconds), and puts off the others."""
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 5.0, 3600.0
"""Before the second try; doubles with each one after."""


class Webhooks(Beat):
    """The deliveries of one worker, until it is stopped.

    A receiver has at most as many under way as places are free: half of all where no other needs one, fewer where
    others do, and one stays free for whoever comes next. This is the dynamic threshold of Choudhury and Hahne (IEEE/ACM
    Transactions on Networking 6(2), 1998), with alpha = 1.
    """

    def __init__(self, records: Records, client: Redis, settings: Settings) -> None:
        super().__init__("webhooks", LOOK_EVERY_SECONDS, self._look)
        self._records = records
        self._redis = client
        self._waiting = settings.redis_key_prefix + "webhooks"
        self._networks = settings.webhook_allowed_networks
        # With the job's record goes its webhook: that is said, too.
        self._give_up_seconds = min(settings.webhook_give_up_hours * 3600, settings.queue_retention_days * 86400)
        known = (settings.webhook_secret, settings.webhook_secret_old)
        self._keys = [secret_bytes(one.get_secret_value()) for one in known if one]
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="webhook")
        self._under_way: dict[Future[None], str] = {}
        self._said = False

    def stop(self) -> None:
        """Take no more, and hand back what is under way: no receiver is waited for."""
        super().stop()
        self._threads.shutdown()

    def _look(self) -> None:
        """Begin what is due, as far as there are places; each delivery that ends lets it look again."""
        ended = [delivery for delivery in self._under_way if delivery.done()]
        for delivery in ended:
            del self._under_way[delivery]
        for delivery in ended:
            delivery.result()  # what a thread raises is raised here
        if not self._keys:
            if not self._said and self._redis.zcard(self._waiting):
                logger.error("webhooks wait, and cannot be signed: set WEBHOOK_SECRET (diarize-queue webhooks secret)")
                self._said = True
            return
        while not self._stopped.is_set() and (claimed := self._claim()):
            job_id, receiver = claimed
            delivery = self._threads.submit(self._deliver, job_id)
            self._under_way[delivery] = receiver
            delivery.add_done_callback(lambda _: self.wake())

    def _claim(self) -> tuple[str, str] | None:
        """A job to tell of, and its receiver; None where nothing is due, or no place is free."""
        under_way = Counter(self._under_way.values())
        free = AT_ONCE - under_way.total()
        if not free:
            return None
        have_their_share = [receiver for receiver, count in under_way.items() if count >= free]
        return self._records.claim_webhook(CLAIM_SECONDS, have_their_share, MOST_PASSED, PASSED_SECONDS)

    def _deliver(self, job_id: str) -> None:
        record = self._records.get(job_id)
        if record is None or record.webhook is None or not record.state.ended:
            return  # it has been replayed or deleted since: nothing is touched, its next end may be there by now
        webhook, host = record.webhook, urlsplit(record.webhook.url).hostname
        try:
            body = message(record, with_result=webhook.with_result)
            post(webhook.url, body, self._headers(message_id(record), body), self._networks, self._stopped)
        except BrokenOff:
            self._records.hand_back_webhook(job_id, record.ended_at)
        except UrlNotAllowed as error:
            self._give_up(record, error.message)
        except NotDelivered as error:
            self._later(record, str(error))
        else:
            self._records.webhook_told(job_id, record.ended_at)
            logger.info("job %s: %s is told of its end (%s)", job_id, host, record.state)

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
