"""Whether a worker takes jobs now: the one place where all that may forbid it comes together.

The main loop asks before each take, and must not wait for an answer; threads find out, and say so here.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from tasks.orders import OrderBook, Orders

logger = logging.getLogger(__name__)


class Intake:
    """Of one worker. Until it has heard its orders, it takes nothing: it may have been drained before it started.

    Attributes:
        is_closed: Nothing has been on its way from the broker since the main loop has known that it is to take nothing.
        asked_at: When the main loop last asked for a job, or saw a reason not to, in monotonic seconds.
        holds: For the main loop: ask nothing more for the moment, because the consumers are about to change.
    """

    def __init__(self, worker: str, *, role: str, held: Callable[[], int]) -> None:
        """Begin.

        Args:
            worker: Its full name.
            role: `gpu` or `bridge`.
            held: How many jobs it has.
        """
        self._worker = worker
        self._is_bridge = role == "bridge"
        self._held = held
        self._others_idle = True
        self._is_full = False
        self._orders: Orders | None = None
        self._broken = ""
        self._said = ""
        self.is_closed = True
        self.asked_at = 0.0
        self.holds = False

    def look(self, book: OrderBook) -> None:
        """Hear what the operator wants now; while Redis is away, what was wanted last still holds."""
        self._orders = book.read()
        self._say(self.refuses)

    def look_round(self, others_idle: Callable[[str], bool]) -> None:
        """See whether another GPU worker has nothing to do: a job would start later here, beside one that runs.

        Until the first look after this worker's first job has begun, another one may have.
        """
        self._others_idle = not self._held() or others_idle(self._worker)

    def fills(self) -> None:
        """A job that was taken beside others has found no memory: none is until they have ended, when it comes next."""
        self._is_full = True

    def breaks(self, why: str) -> None:
        """Nothing can be done here now, for that reason; an empty one takes it back."""
        self._broken = why
        self._say(self.refuses)

    @property
    def refuses(self) -> str:
        """Why no job is taken now; empty where jobs are.

        A pause does not close a bridge: a run at RunPod that another bridge has left must be found again, and what is
        new is refused where it would be sent (`tasks.runpod.diarizer`).
        """
        if self._broken or self._orders is None:
            return self._broken or "its orders are not known yet"
        if drained := self._orders.drain_of(self._worker):
            return f"drained {drained}"
        if self._orders.paused and not self._is_bridge:
            return f"paused {self._orders.paused}"
        return ""

    @property
    def heard_at(self) -> float:
        """When the latest order was given that this worker has heard."""
        return self._orders.latest_at if self._orders else 0.0

    @property
    def lets_overflow(self) -> bool:
        """Whether anything new may go to RunPod."""
        return not self.refuses and self._orders is not None and self._orders.halted is None

    def may_read(self, awaits_answer: bool) -> bool:
        """For the main loop: whether to ask the broker for a job, or read its answer.

        An answer that is on its way may hold a job, which is then in no queue any more: it is read in any case.
        """
        self.is_closed = bool(self.refuses) and not awaits_answer
        if not awaits_answer:
            self.asked_at = time.monotonic()
        is_busy = not self._is_bridge and self._held() > 0
        self._is_full = self._is_full and is_busy
        leaves_it = is_busy and (self._others_idle or self._is_full)
        return awaits_answer or not (self.is_closed or self.holds or leaves_it)

    def _say(self, why: str) -> None:
        if why != self._said and (self._broken or self._orders is not None):
            logger.info("takes no jobs: %s" if why else "takes jobs again%s", why)
            self._said = why
