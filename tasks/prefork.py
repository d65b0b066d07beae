"""The pool of a GPU worker's children. It forgets no job that it has given to one."""

from __future__ import annotations

from celery.concurrency.asynpool import AsynPool
from celery.concurrency.prefork import TaskPool


class _ChildrenPool(AsynPool):
    def flush(self) -> None:
        """Drop what no child has yet.

        Celery's hook for a stop and for a lost connection. It drops by `_accepted`, which is false until the child's
        answer has been read: a job given in the last milliseconds would run unseen, past the grace of a stop and
        without its lease, and the stop would wait 30 s for a child that waits for its result to be read (Celery 5.7).
        """
        given = [
            job
            for job in self._cache.values()  # type: ignore[attr-defined]  # the stubs lack it
            if not job._accepted and job._write_to and job._write_to._is_alive()
        ]
        for job in given:
            job._accepted = True
        super().flush()
        for job in given:
            job._accepted = False


class PreforkPool(TaskPool):
    """Celery's, with children that stay in sight."""

    Pool = _ChildrenPool
