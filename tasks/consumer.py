"""Celery's consumer, which a broker that goes away at a bad moment does not end."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

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

    def call_soon_ack(self, p: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Acknowledge or reject a message, from the main loop.

        Where the message's connection has been let go meanwhile, kombu 5.7 looks for the host of none. The worker would
        end by that AttributeError; the message is the broker's again anyway, and its copy meets the job's record.
        """

        def answer(*more: Any, **options: Any) -> Any:
            try:
                return p(*more, **options)
            except AttributeError as error:
                logger.warning("a message of a connection that is gone cannot be acknowledged: %s", error)

        return super().call_soon_ack(answer, *args, **kwargs)  # type: ignore[misc]  # since Celery 5.7
