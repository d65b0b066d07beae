"""Celery's consumer, which a broker that goes away at a bad moment does not end."""

from __future__ import annotations

import logging

from celery.worker.consumer import Consumer

logger = logging.getLogger(__name__)


class LastingConsumer(Consumer):
    """What `worker_consumer` names."""

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Let go of the broken connection; Celery then makes another.

        Where the broker refuses connections, one child works and another is idle, kombu 5.7 closes the channel once
        more when it belongs to no connection any longer. Celery does not expect that AttributeError: the worker ends.
        """
        try:
            super().on_connection_error_after_connected(exc)
        except AttributeError as error:
            logger.warning("the broken connection could not be closed in order: %s", error)
            self.connection = None
