"""Memory admission: a recording that its worker has no memory for is sent on, rather than take the machine down."""

from __future__ import annotations

from diarization.errors import DoesNotFit, NoRoom, QueueUnavailable
from diarization.memory import available_bytes, needed_bytes, resident_bytes
from tasks.pulse import Pulse
from tasks.registry import Registry

GIGABYTE = 1e9


class Room:
    """Hears, while a recording is decoded, how long it is, and refuses it once it is clear that it does not fit."""

    def __init__(self, registry: Registry, pulse: Pulse | None, known_bytes: int | None) -> None:
        """Begin an attempt.

        Args:
            registry: Who else could take the job.
            pulse: Knows of the worker's other children; None where there are none.
            known_bytes: What an earlier attempt found that the job needs.

        Raises:
            NoRoom: There is too little memory for now.
            DoesNotFit: No worker has as much.
        """
        self._registry = registry
        self._pulse = pulse
        self._held_bytes = resident_bytes()
        if known_bytes is not None:
            self._check(known_bytes)

    def __call__(self, stage: str, done: int, total: int) -> None:
        """See `diarization.diarizer.Report`; what is decoded counts, not what a header promises.

        Raises:
            NoRoom: There is too little memory for now; the job waits, for this worker or another one.
            DoesNotFit: No worker has as much.
        """
        if stage == "decode":
            self._check(needed_bytes(done))

    def _check(self, needed: int) -> None:
        taken = max(0, resident_bytes() - self._held_bytes)
        claims = self._pulse.claims() if self._pulse else []
        free = available_bytes() - sum(claims)
        if needed - taken <= free:
            return
        try:
            workers = self._registry.alive().values()
            most = max((worker.room_bytes for worker in workers if worker.role == "gpu"), default=0)
        except QueueUnavailable:
            most = needed  # nobody can be asked: it is looked at again
        says = f"the recording needs {needed / GIGABYTE:.1f} GB of memory"
        if most < needed:
            raise DoesNotFit(f"{says}, the largest worker has {most / GIGABYTE:.1f} GB")
        error = NoRoom(f"{says}, {(free + taken) / GIGABYTE:.1f} GB are free here")
        # A quarter more, as far as that exists: the next look, with a little more free, shall not decode for nothing.
        error.needed_bytes = min(needed * 5 // 4, max(needed, most))
        if claims:
            error.wait_seconds = 0.0  # in the line, where it comes next once they have ended: see `tasks.intake`
        raise error
