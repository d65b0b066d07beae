"""Celery without a guard, for comparison: the broker settings of ours, the stand-in as its task, keys of its own.

celery -A benchmarks.plain worker -Q plain,plain.apart
"""

from __future__ import annotations

import time
from typing import Any

from celery import Celery

from diarization.recording import Recording
from diarization.turns import SpeakerHints
from tasks.celery import app as ours
from tasks.settings import current_settings
from tests.standin import load

PREFIX = "plain:"
ANYWHERE, APART = "plain", "plain.apart"
SAME = (
    *("broker_url", "redis_socket_timeout", "redis_socket_connect_timeout", "redis_socket_keepalive"),
    *("broker_connection_retry_on_startup", "worker_detect_quorum_queues", "task_acks_late", "task_track_started"),
    *("task_send_sent_event", "worker_send_task_events", "worker_prefetch_multiplier", "worker_disable_prefetch"),
    *("worker_pool", "worker_pool_start_method", "task_default_priority", "result_expires"),
)

app = Celery("plain", set_as_current=False)
app.conf.update({name: ours.conf[name] for name in SAME}, result_backend=ours.conf.broker_url)
app.conf.update(
    broker_transport_options={**ours.conf.broker_transport_options, "global_keyprefix": PREFIX},
    result_backend_transport_options={**ours.conf.result_backend_transport_options, "global_keyprefix": PREFIX},
    task_default_queue=ANYWHERE,
    worker_concurrency=1,
)


@app.task(name="plain.diarize", shared=False)
def diarize(url: str) -> dict[str, Any]:
    """The stand-in's answer, as the guarded task gives it, and when it began (seconds since 1970)."""
    started_at = time.time()
    diarizer = load(current_settings().diarizer_options())
    found = diarizer.diarize(Recording(url, {}), SpeakerHints(), lambda stage, done, total: None)
    return {**found.to_json(), "started_at": started_at}
