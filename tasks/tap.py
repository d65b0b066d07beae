"""A worker's tap: it takes jobs only while its intake lets it, and a bridge those that may run anywhere while the valve
lets it, too.
"""

from __future__ import annotations

import os
from typing import Any

from celery import bootsteps
from celery.worker.consumer.tasks import Tasks

from tasks.heartbeat import Beat
from tasks.intake import Intake
from tasks.job import ANYWHERE
from tasks.loading import loaded
from tasks.overseer import Overseer
from tasks.records import worker_name
from tasks.runpod.endpoint import Endpoint
from tasks.runpod_bridge import Bridge
from tasks.server import connect
from tasks.settings import current_settings

DECIDE_EVERY_SECONDS = 2.0
TURN_EVERY_SECONDS = 0.5


class IntakeStep(bootsteps.StartStopStep):
    """Asks the broker for nothing while the worker is to take nothing.

    The consumers stay: cancelled with a question under way, they would send its answer to the end of the line.
    """

    requires = (Tasks,)

    def start(self, parent: Any) -> None:
        """Celery's hook; it comes again with each new connection, which has a channel of its own."""
        intake, channel = parent.controller.intake, parent.task_consumer.channel
        has_room = channel.qos.can_consume  # Celery's, which knows how many jobs are held
        # kombu 5.7 asks the same of a new question and of the answer to one that is under way (`_in_poll`).
        channel.qos.can_consume = lambda: intake.may_read(bool(channel._in_poll)) and has_room()


class TapStep(bootsteps.StartStopStep):
    """Adds and cancels a bridge's consumer of the queue of jobs that may run anywhere.

    Redis is asked by threads of their own; the main loop, to which consumers belong, only looks at what they found.
    """

    requires = (IntakeStep,)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._lets = False
        self._timer: Any = None
        self._beats: list[Beat] = []

    def include_if(self, parent: Any) -> bool:
        """Celery's hook."""
        return current_settings().worker_role == "bridge"

    def start(self, parent: Any) -> None:
        """Celery's hook; it comes again after each loss of the broker's connection."""
        settings, bridge = current_settings(), loaded()
        assert isinstance(bridge, Bridge)
        overseer = Overseer(connect(settings, patient=False), settings, worker_name(parent.hostname, os.getpid()))
        self._beats = [
            Beat("valve", DECIDE_EVERY_SECONDS, overseer.round),
            Beat("tap", TURN_EVERY_SECONDS, lambda: self._look(parent.controller.intake, bridge.endpoint)),
        ]
        for beat in self._beats:
            beat.start()
        self._timer = parent.timer.call_repeatedly(TURN_EVERY_SECONDS, self._turn, (parent,))

    def stop(self, parent: Any) -> None:
        """Celery's hook."""
        if self._timer is not None:
            self._timer.cancel()
        self._lets = parent.controller.intake.holds = False
        parent.app.amqp.queues.deselect(ANYWHERE)  # the connection may be gone; a new one begins without it
        for beat in self._beats:
            beat.stop()

    def _look(self, intake: Intake, endpoint: Endpoint) -> None:
        """Whether one more job may be taken."""
        self._lets = intake.lets_overflow and not endpoint.stopping.is_set() and endpoint.lets_one_more()

    def _turn(self, parent: Any) -> None:
        is_open = ANYWHERE in parent.app.amqp.queues.consume_from
        closes = is_open and not self._lets
        # A job that comes when its consumer is gone would be sent behind all others: first let the question end.
        parent.controller.intake.holds = closes and bool(parent.task_consumer.channel._in_poll)
        if self._lets and not is_open:
            parent.add_task_queue(ANYWHERE)
        elif closes and not parent.controller.intake.holds:
            parent.cancel_task_queue(ANYWHERE)
