"""What the worker's main process sees to while its children work: one that hangs, and a stop that takes too long."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from diarization.errors import AttemptStalled
from tasks.delivered import DeliveredJob
from tasks.pulse import stalled

logger = logging.getLogger(__name__)

LATECOMERS_SECONDS = 1.0
"""Between looks, once the grace is over, for a job that its child accepts only then."""


class Watch:
    """Over the children of one worker."""

    def __init__(self, folder: Path, jobs: Callable[[], Iterable[Any]], grace_seconds: float) -> None:
        """Begin.

        Args:
            folder: Where the children keep their pulse.
            jobs: The requests that the children run now.
            grace_seconds: How long a stop may take.
        """
        self._folder = folder
        self._jobs = jobs
        self._grace_seconds = grace_seconds
        self._handed_back: set[str] = set()

    def look(self) -> None:
        """End the children that hang; their jobs are taken anew."""
        for stall in stalled(self._folder):
            for job in self._running():
                if job.worker_pid == stall.pid and job.id == stall.job_id:
                    reason = f"no progress for {stall.silent_seconds:.0f} s in {stall.stage}"
                    logger.error("job %s: %s: its process is ended", job.id, reason)
                    job.end_child(AttemptStalled(reason))

    def stop_in_time(self) -> None:
        """The worker has been told to stop: hand back what still runs when the grace is over, or begins later."""
        self._hand_back_in(self._grace_seconds)

    def _hand_back_in(self, seconds: float) -> None:
        timer = threading.Timer(seconds, self._hand_back)
        timer.daemon = True
        timer.start()

    def _hand_back(self) -> None:
        for job in self._running():
            if job.id not in self._handed_back:
                logger.warning("job %s: the grace of %g s is over, it is handed back", job.id, self._grace_seconds)
                self._handed_back.add(job.id)
                job.end_child(None)
        self._hand_back_in(LATECOMERS_SECONDS)

    def _running(self) -> list[DeliveredJob]:
        return [job for job in self._jobs() if isinstance(job, DeliveredJob)]
