"""A backend's own Celery app, which shares our Redis: its steps stand before and after ours in chains and chords."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

app = Celery("backend", broker=os.environ["REDIS_URL"], backend=os.environ["REDIS_URL"])
app.conf.update(
    broker_transport_options={"global_keyprefix": "diarize:"},
    result_backend_transport_options={"global_keyprefix": "diarize:"},
    task_default_queue="backend",
)


@app.task
def url_of(name: str) -> str:
    """A step before ours."""
    return f"http://stand.in/turns/10/{name}"


@app.task
def count_speakers(results: Any) -> Any:
    """A step after ours: of one result, or of a chord's."""
    if isinstance(results, dict):
        return len(results["speakers"])
    return [len(result["speakers"]) for result in results]


@app.task
def note(result: Any, key: str) -> None:
    """A callback."""
    app.backend.client.rpush(key, "called")


@app.task
def note_error(task_id: str, key: str) -> None:
    """An errback. Celery hands one that our worker does not know the failed task's id alone."""
    app.backend.client.rpush(key, task_id)
