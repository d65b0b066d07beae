"""A worker's consumer lets go of a connection whose broker is gone, and of its own when it stops."""

from __future__ import annotations

import gc
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kombu import Connection, Consumer, Exchange, Queue

from tasks.celery import app
from tasks.consumer import LastingConsumer
from tasks.sieve import SieveStep
from tasks.valkey import EmbeddedValkey

logger = logging.getLogger(__name__)


@pytest.fixture(autouse=True)
def what_kombu_lets_go_of_is_gone(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Sockets in cycles: they are collected here, and not in a test that counts what is open."""
    yield
    caplog.get_records("call").clear()  # of errors whose frames hold them
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def deliver(server: EmbeddedValkey) -> tuple[Connection, Any, Any]:
    """A connection, its channel, and a message that has been handed out and not been acknowledged."""
    connection = Connection(server.url)
    channel = connection.default_channel
    queue = Queue("jobs")(channel)
    queue.declare()
    connection.Producer(channel).publish({}, routing_key="jobs", exchange="")
    message = queue.get(no_ack=False)
    assert message is not None
    return connection, channel, message


@pytest.mark.filterwarnings("ignore::celery.exceptions.CPendingDeprecationWarning")
def test_the_broker_goes_away_while_one_child_works_and_another_is_idle(tmp_path: Path) -> None:
    """The channel holds a message and asks for another one; a second channel, as remote control has it, fails first."""
    with EmbeddedValkey(tmp_path) as server:
        connection, channel, _ = deliver(server)
        control = Queue("control", Exchange("control", type="fanout"), auto_delete=True)
        Consumer(connection.channel(), [control]).consume()
        channel.basic_consume("jobs", False, lambda message: None, "tag")
        channel.connection.cycle.on_poll_start()
        server.kill()
        consumer = LastingConsumer.__new__(LastingConsumer)
        consumer.app, consumer.connection = app, connection
        consumer.on_connection_error_after_connected(ConnectionRefusedError())
        assert consumer.connection is None


def test_a_message_of_a_connection_that_is_gone_cannot_be_acknowledged_and_ends_nobody(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path) as server:
        connection, channel, message = deliver(server)
        channel.connection.client, channel._pool = None, None  # as Celery leaves it when it connects anew
        with pytest.raises(AttributeError):
            message.ack_log_error(logger, ())
        due: list[Callable[[], None]] = []
        consumer = LastingConsumer.__new__(LastingConsumer)
        consumer.hub = SimpleNamespace(call_soon=due.append)
        consumer.call_soon_ack(message.ack_log_error, logger, ())
        due[0]()
        channel.connection.client = connection  # so that it can be closed in order
        connection.release()


def test_a_job_that_is_read_while_the_channel_closes_goes_back_into_the_queue(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Celery takes the consumer away first, and kombu then reads the answer to the question that is under way."""
    with EmbeddedValkey(tmp_path) as server, Connection(server.url) as connection:
        channel = connection.default_channel
        consumer = Consumer(channel, [Queue("jobs")], accept=["json"])
        consumer.consume()
        parent = SimpleNamespace(task_consumer=consumer, app=app)
        SieveStep(parent).start(parent)
        channel.connection.cycle.on_poll_start()
        with Connection(server.url) as other:
            other.Producer().publish([[], {}, None], headers={"task": "a", "id": "b"}, routing_key="jobs", exchange="")
            parent.task_consumer = consumer.cancel()
            channel.close()
            assert other.default_channel.queue_declare("jobs", passive=True).message_count == 1
    assert "thrown away" not in caplog.text
