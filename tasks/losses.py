"""A pool child whose GPU has failed under a job: it can do no more, and another one takes its place.

A CUDA context that has met such an error never works again in its process, so the main process ends the child
(`tasks.delivered`). Where it happens to one that came after it, too, before any child has done a job, it is not the job
but the device: then the worker ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from diarization.errors import DeviceLost
from tasks.gate import Gate


class Losses:
    """A child's side."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._before = gate.about()
        self._follows_loss = gate.has_lost()

    def compare(self, about: Mapping[str, Any]) -> None:
        """See whether this child is on the device that those before it were on.

        Raises:
            DeviceLost: `auto` has fallen back to another one, on which jobs would take many times as long.
        """
        began, now = self._before.get("device"), about.get("device")
        if began and now and began != now:
            raise DeviceLost(f"this worker began on {began}, and only {now} is left")

    def learn(self, outcome: object) -> None:
        """An attempt has ended here: with a result, or an error."""
        if isinstance(outcome, DeviceLost):
            self._lost(outcome)
        elif not isinstance(outcome, Exception):
            self._works()

    def _lost(self, error: DeviceLost) -> None:
        """Tell the main process. Where the device is at fault, the attempt does not count: the job is due at once."""
        with suppress(OSError):  # a full disk; then it counts as any other error
            again = self._follows_loss and self._gate.has_lost()
            self._gate.lose()
            if again:
                self._gate.refuse(error)
                error.counts, error.wait_seconds = False, 0.0

    def _works(self) -> None:
        """A job is done: whatever was lost, the device was not."""
        self._gate.regain()
        self._follows_loss = False
