"""The app of a worker that is soon taken for ill, and can be made so: `celery -A tests.stuck worker`, then `hang`."""

from __future__ import annotations

import time
from typing import Any

from celery.worker.control import control_command

from tasks import worker
from tasks.celery import app as app  # what Celery looks for

worker.LEAST_STALE_SECONDS = 6.0


@control_command()
def hang(state: Any) -> None:
    """By remote control, which runs in the main loop; its other threads go on."""
    time.sleep(3600)
