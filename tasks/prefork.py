"""The pool of a GPU worker's children, which keeps the jobs that a child has and has yet to accept."""

from __future__ import annotations

from celery.concurrency.asynpool import AsynPool
from celery.concurrency.prefork import TaskPool
from celery.worker.state import task_reserved


class _ChildrenPool(AsynPool):
    def flush(self) -> None:
        """Drop what no child has.

        Celery's hook for a stop and for a lost connection. Celery 5.7 also drops, and forgets, what a child has and has
        yet to accept, as its answer has not been read. That job would run unseen: past the grace of a stop, without its
        lease, in a worker that takes another one; and a stop would wait 30 s for a child whose result nobody reads.
        """
        jobs, waiting = self._cache.values(), self.outbound_buffer  # type: ignore[attr-defined]  # the stubs lack them
        given = {
            job: job._write_to
            for job in jobs
            # After the death of its child a job waits for the next one, as whose it may be named already.
            if not job._accepted and job._write_to and job._write_to._is_alive() and job not in waiting
        }
        for job in given:
            job._accepted = True  # by this Celery tells what to drop, and whose child is busy
        super().flush()
        for job, child in given.items():
            job._accepted = False
            if child._is_alive():
                task_reserved(job._accept_callback.__self__)  # its request; the consumer has forgotten it, too
            else:
                job.discard()


class PreforkPool(TaskPool):
    """Celery's pool, with such children."""

    Pool = _ChildrenPool
