"""One run at RunPod, followed until it is over: looks that slow down, and what no answer may mean."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from diarization.diarizer import Report
from diarization.errors import OverflowClosed, OverflowLost
from diarization.turns import Diarization
from tasks.remote import QUEUED, UNDER_WAY, RemoteRun
from tasks.runpod.api import Kind, RunPodApi
from tasks.runpod.status import Look, Phase, read_status

logger = logging.getLogger(__name__)

FIRST_LOOK_SECONDS, SLOWEST_LOOK_SECONDS = 1.0, 10.0
"""Between looks; a result stays for 30 minutes, and a status may be asked for 200 times a second."""
SLOWEST_TROUBLED_SECONDS = 30.0
"""Between looks that show nothing."""
HEAR_SECONDS = 0.5
"""Between looks at whether the job has been cancelled, or this bridge is to stop."""
JUST_SUBMITTED_SECONDS = 30.0
"""So long after the submission an unknown run says nothing: it may have to become known first."""
SURE_LOOKS = 3
"""A run is gone when so many looks in a row do not find it, at an endpoint that there is."""
MARGIN_SECONDS = 60.0
"""Beyond the time that RunPod has for a run, until it is taken for stuck."""
STOP_TRIES = 5


@dataclass(frozen=True)
class Ended:
    """A run that is over: a result, or an error; and what it took, None where that cannot be known.

    Attributes:
        result: The diarization.
        error: Why there is none.
        comes_home: Whether the job is better done by the own GPUs now.
        delay_seconds: It waited for so long at RunPod.
        execution_seconds: It ran for so long.
    """

    result: Diarization | None = None
    error: Exception | None = None
    comes_home: bool = False
    delay_seconds: float | None = None
    execution_seconds: float | None = None


class Run:
    """A run that was submitted."""

    def __init__(
        self,
        remote: RemoteRun,
        api: RunPodApi,
        *,
        left_seconds: float,
        stopping: threading.Event,
        reclaimed: Callable[[], bool],
        alarm: Callable[[str], None],
    ) -> None:
        """Begin to follow it.

        Args:
            remote: The run.
            api: Its endpoint.
            left_seconds: Until RunPod has forgotten it for certain.
            stopping: Set when this bridge is to stop.
            reclaimed: Whether the job is wanted at home, as long as it only waits at RunPod.
            alarm: Told when the endpoint itself is in trouble.
        """
        self._run_id = remote.run_id or ""
        self._api = api
        self._execution_timeout_seconds = remote.execution_timeout_seconds
        self._gone_at = time.monotonic() + left_seconds + MARGIN_SECONDS
        age_seconds = remote.ttl_seconds - left_seconds
        self._known_from = time.monotonic() + JUST_SUBMITTED_SECONDS - age_seconds
        self._stopping = stopping
        self._reclaimed = reclaimed
        self._alarm = alarm
        self._stuck_at: float | None = None
        self._not_found = 0
        self._phase: Phase | None = None

    def follow(self, report: Report) -> Ended:
        """Look again and again, until it is over.

        Raises:
            OverflowClosed: This bridge stops; the run goes on.
            Cancelled: By `report`; the run goes on.
        """
        pause, troubled = FIRST_LOOK_SECONDS, False
        while True:
            look = read_status(self._api.status(self._run_id))
            if end := self._end(look):
                return end
            nothing = look.phase not in (Phase.QUEUED, Phase.RUNNING)
            if nothing and not troubled:
                logger.warning("run %s: %s; it is looked at again", self._run_id, look.says)
            troubled = nothing
            slowest = SLOWEST_TROUBLED_SECONDS if nothing else SLOWEST_LOOK_SECONDS
            self._wait(look.wait_seconds or min(slowest, pause) * random.uniform(0.8, 1.2), look.phase, report)  # noqa: S311
            pause = min(slowest, pause * 1.5)

    def stop(self) -> Ended:
        """Have it stopped; where RunPod does not say that it has, nobody knows what it costs."""
        for _ in range(STOP_TRIES):
            look = self._cancel()
            if look.phase in (Phase.STOPPED, Phase.DONE, Phase.FAILED):
                logger.info("run %s is stopped", self._run_id)
                ran = 0.0 if look.phase is Phase.STOPPED and self._phase is Phase.QUEUED else None
                return Ended(delay_seconds=look.delay_seconds, execution_seconds=look.execution_seconds or ran)
            if look.phase is Phase.GONE:
                break
            if self._stopping.wait(look.wait_seconds or FIRST_LOOK_SECONDS):
                break
        logger.error("run %s cannot be stopped: it may go on until its time is over", self._run_id)
        return Ended()

    def _cancel(self) -> Look:
        """Have it stopped, once; what is said then, and by the status if it can be, which knows how long it ran."""
        look = read_status(self._api.cancel(self._run_id))
        if look.phase is not Phase.STOPPED:
            return look
        confirmed = read_status(self._api.status(self._run_id))
        return confirmed if confirmed.phase in (Phase.STOPPED, Phase.DONE, Phase.FAILED) else look

    def _end(self, look: Look) -> Ended | None:
        """How the run has ended, if it has."""
        self._phase = look.phase
        self._not_found = self._not_found + 1 if look.phase is Phase.GONE else 0
        if look.phase in (Phase.DONE, Phase.FAILED):
            home = isinstance(look.error, OverflowLost)
            return Ended(look.result, look.error, home, look.delay_seconds, look.execution_seconds)
        if look.phase is Phase.STOPPED:
            error = OverflowLost("somebody cancelled the run at RunPod")
            return Ended(None, error, True, look.delay_seconds, look.execution_seconds)
        if look.phase is Phase.QUEUED and self._reclaimed():
            return self._come_home()
        if look.phase is Phase.DENIED:
            self._alarm(f"RunPod refuses the key while jobs are there: check RUNPOD_API_KEY ({look.says})")
        if look.phase is Phase.GONE and self._is_gone():
            return Ended(error=OverflowLost("RunPod knows the run no more"), comes_home=True)
        return self._overdue(look)

    def _come_home(self) -> Ended | None:
        """The job is wanted at home: only once RunPod has confirmed that it will not run."""
        look = self._cancel()
        if look.phase is not Phase.STOPPED:
            return None if look.phase not in (Phase.DONE, Phase.FAILED) else self._end(look)
        logger.info("run %s had not begun, and a GPU here is free: the job comes home", self._run_id)
        error = OverflowClosed("the job came home: RunPod had not begun it, and a GPU here was free")
        return Ended(None, error, False, look.delay_seconds, look.execution_seconds or 0.0)

    def _is_gone(self) -> bool:
        """Whether it is the run that is unknown, and not the endpoint, nor a run that is too young to be known."""
        if time.monotonic() < self._known_from or self._not_found < SURE_LOOKS:
            return False
        health = self._api.health()
        if health.status in (401, 403, 404):
            self._alarm(
                "RunPod knows the endpoint no more while jobs are there: check RUNPOD_ENDPOINT_ID and "
                f"RUNPOD_ENDPOINT_BASE_URL ({health.says})"
            )
        return health.kind is Kind.OK

    def _overdue(self, look: Look) -> Ended | None:
        """A run that should have ended by RunPod's own rules: it is stopped, and its job done elsewhere."""
        now = time.monotonic()
        if look.phase is Phase.RUNNING and self._stuck_at is None:
            self._stuck_at = now + self._execution_timeout_seconds + MARGIN_SECONDS
        if now < min(self._gone_at, self._stuck_at or self._gone_at):
            return None
        stopped = self.stop()
        error = OverflowLost("RunPod gave no end of the run within its time")
        return Ended(None, error, True, stopped.delay_seconds, stopped.execution_seconds)

    def _wait(self, seconds: float, phase: Phase, report: Report) -> None:
        """Until the next look, with an ear for a cancel and for the end of this bridge."""
        until = time.monotonic() + seconds
        while True:
            report(QUEUED if phase is Phase.QUEUED else UNDER_WAY, 0, 0)
            left = until - time.monotonic()
            if left <= 0:
                return
            if self._stopping.wait(min(left, HEAR_SECONDS)):
                stops = OverflowClosed("this bridge stops; the run goes on, and another bridge finds it")
                stops.wait_seconds = 0.0
                raise stops
