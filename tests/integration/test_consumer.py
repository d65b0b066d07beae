"""A worker's consumer lets go of a connection whose broker is gone."""

from __future__ import annotations

from pathlib import Path

import pytest
from kombu import Connection, Consumer, Exchange, Queue

from tasks.celery import app
from tasks.consumer import LastingConsumer
from tasks.valkey import EmbeddedValkey


@pytest.mark.filterwarnings("ignore::celery.exceptions.CPendingDeprecationWarning")
def test_the_broker_goes_away_while_one_child_works_and_another_is_idle(tmp_path: Path) -> None:
    """The channel holds a message and asks for another one; a second channel, as remote control has it, fails first."""
    with EmbeddedValkey(tmp_path) as server:
        connection = Connection(server.url)
        channel = connection.default_channel
        queue = Queue("jobs")(channel)
        queue.declare()
        connection.Producer(channel).publish({}, routing_key="jobs", exchange="")
        assert queue.get(no_ack=False)
        control = Queue("control", Exchange("control", type="fanout"), auto_delete=True)
        Consumer(connection.channel(), [control]).consume()
        channel.basic_consume("jobs", False, lambda message: None, "tag")
        channel.connection.cycle.on_poll_start()
        server.kill()
        consumer = LastingConsumer.__new__(LastingConsumer)
        consumer.app, consumer.connection = app, connection
        consumer.on_connection_error_after_connected(ConnectionRefusedError())
        assert consumer.connection is None
