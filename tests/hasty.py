"""The app of a worker that does not wait for long, and that dies where it is told: `celery -A tests.hasty worker`.

`DIES_AT` names the point at which it kills itself by SIGKILL, once:

    thought     the record says that there may be a run
    reserved    its budget is reserved
    intended    the record says that it is about to be
    posted      RunPod has the job, and its id is nowhere else
    stored      the record has the id
    ended       RunPod has said how the run ended
    settled     the ledger knows what it has cost

Without its patience a fault takes seconds instead of minutes; what happens then, and in which order, stays the same.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tasks import webhook_post, webhooks
from tasks.celery import app as app  # what Celery looks for
from tasks.overflow import breaker, price
from tasks.overflow.budget import Ledger
from tasks.runpod import diarizer as runpod_diarizer
from tasks.runpod import run as runpod_run
from tasks.runpod.api import RunPodApi
from tasks.runpod.diarizer import RemoteDiarizer
from tasks.runpod.run import Run

runpod_run.FIRST_LOOK_SECONDS, runpod_run.SLOWEST_LOOK_SECONDS, runpod_run.SLOWEST_TROUBLED_SECONDS = 0.2, 0.5, 0.5
runpod_run.JUST_SUBMITTED_SECONDS = 1.0
runpod_run.MARGIN_SECONDS = 2.0
price.SHORTEST_TIMEOUT_SECONDS = 6.0
price.QUEUE_SECONDS = 6.0
runpod_diarizer.PINNED_WAIT_SECONDS = 0.5
breaker.FIRST_SECONDS = 1.0
webhooks.FIRST_WAIT_SECONDS = 0.2
webhook_post.WHOLE_SECONDS = 3.0


def _dies_after(owner: Any, name: str, when: Callable[..., bool] = lambda *_args, **_options: True) -> None:
    original: Callable[..., Any] = getattr(owner, name)

    def deadly(*args: Any, **options: Any) -> Any:
        result = original(*args, **options)
        said = Path(os.environ["STANDIN_DIR"]) / "bridge-died"
        if when(*args, **options) and not said.exists():
            said.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, deadly)


def _notes(is_sent: bool, has_id: bool) -> tuple[Any, str, Callable[..., bool]]:
    def fits(_self: Any, remote: Any, **_options: Any) -> bool:
        return remote is not None and (remote.is_sent, remote.run_id is not None) == (is_sent, has_id)

    return RemoteDiarizer, "_note", fits


POINTS: dict[str, tuple[Any, str, Callable[..., bool]]] = {
    "reserved": (Ledger, "reserve", lambda *_: True),
    "thought": _notes(is_sent=False, has_id=False),
    "intended": _notes(is_sent=True, has_id=False),
    "posted": (RunPodApi, "run", lambda *_: True),
    "stored": _notes(is_sent=True, has_id=True),
    "ended": (Run, "follow", lambda *_: True),
    "settled": (Ledger, "settle", lambda *_: True),
}

if point := os.environ.get("DIES_AT"):
    _dies_after(*POINTS[point])
