"""Flower for our app: its own server and pages, with what it leaves open shut.

Flower 2.2 asks for no password at `/metrics`, starts without one, ends its patience with Redis after each outage a
little later, and trusts each handler to heed `read_only`. Here the password and read-only are checked before any
handler is chosen, so that a route which a later Flower adds is behind them, too.
"""

from __future__ import annotations

import ast
import dbm
import hmac
import logging
import signal
import time
from base64 import b64decode
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from celery import Celery
from celery.events import EventReceiver
from flower.app import Flower
from flower.events import Events
from flower.options import default_options as options
from flower.urls import settings as flower_settings
from flower.utils import prepend_url
from flower.views.tasks import TASK_COLUMNS
from tornado.httputil import HTTPHeaders, HTTPServerRequest
from tornado.ioloop import IOLoop
from tornado.web import OutputTransform, RequestHandler

logger = logging.getLogger(__name__)

RETRY_SECONDS = 2.0
SAVE_EVERY_SECONDS = 60
"""How much of the history a Flower that is killed loses at most."""
PURGE_WORKERS_SECONDS = 86400
"""A worker in a container has a new name with each start; those that have gone would fill page and metrics."""
COLUMNS = "state,args,exception,worker,runtime,received,started,uuid,name"
READING = ("GET", "HEAD")
HEADERS = {
    # Flower brings all that its pages need; 'unsafe-inline' is for the scripts that stand in them.
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'unsafe-inline'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'; form-action 'self'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class MonitorOptions:
    """How Flower runs.

    Attributes:
        credentials: `user:password`, each of which opens every page.
        address: Of the interface it listens at; empty for all.
        port: 0 for any that is free.
        url_prefix: The path below which a reverse proxy shows it, without slashes at its ends; empty for none.
        history: File that keeps the jobs seen over a restart; None keeps them in memory.
        max_jobs: Jobs remembered; the oldest goes first.
        allow_control: Whether jobs can be started and revoked, and workers stopped, from the pages and the API.
    """

    credentials: tuple[str, ...]
    address: str = "127.0.0.1"
    port: int = 5555
    url_prefix: str = ""
    history: Path | None = None
    max_jobs: int = 10_000
    allow_control: bool = False


def run_monitor(app: Celery, chosen: MonitorOptions) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        OSError: The address cannot be listened at.
    """
    # Flower reads results by whatever app is the process's own, in threads as well.
    app.set_current()
    app.set_default()
    _apply(chosen)
    loop = IOLoop(make_current=True)
    monitor = Monitor(app, loop, chosen)
    port = monitor.start_http_server()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.asyncio_loop.add_signal_handler(number, loop.stop)
    logger.info(
        "Flower is at http://%s:%d%s (%s)",
        chosen.address or "0.0.0.0",  # noqa: S104 - said, not bound
        port,
        f"/{chosen.url_prefix}/" if chosen.url_prefix else "/",
        "may control workers and jobs" if chosen.allow_control else "read-only",
    )
    monitor.start()
    monitor.stop()
    logger.info("Flower has stopped")


def _apply(chosen: MonitorOptions) -> None:
    """Set Flower's own options, which it keeps for the process and reads in many places."""
    options.basic_auth = list(chosen.credentials)
    options.address, options.port, options.url_prefix = chosen.address, chosen.port, chosen.url_prefix
    options.max_tasks = chosen.max_jobs
    options.read_only = not chosen.allow_control
    options.purge_offline_workers = PURGE_WORKERS_SECONDS
    options.tasks_columns = COLUMNS
    options.format_task = show_recording
    TASK_COLUMNS.update(args="Recording", name="Task", uuid="Job", exception="Error")


def show_recording(task: Any) -> Any:
    """Flower's copy of a task, with the recording's URL in place of the tuple that a ticket shows."""
    try:
        shown = ast.literal_eval(task.args or "")
    except (ValueError, SyntaxError, TypeError):
        return task
    if isinstance(shown, tuple) and len(shown) == 1 and isinstance(shown[0], str):
        task.args = shown[0]
    return task


class Monitor(Flower):  # type: ignore[misc]
    """Flower's application behind one gate."""

    def __init__(self, app: Celery, loop: IOLoop, chosen: MonitorOptions) -> None:
        served = dict(flower_settings)
        if chosen.url_prefix:
            for name in ("login_url", "static_url_prefix"):
                served[name] = prepend_url(served[name], chosen.url_prefix)
        super().__init__(options, app, LastingEvents(app, loop, chosen), loop, **served)
        self._credentials = tuple(one.encode() for one in chosen.credentials)
        self._allow_control = chosen.allow_control
        below = f"/{chosen.url_prefix}" if chosen.url_prefix else ""
        self._open_path = below + "/healthcheck"
        self._table_path = below + "/tasks/datatable"  # a question, asked by POST for its length
        self.add_transform(Headers)

    def find_handler(self, request: HTTPServerRequest, **options: Any) -> Any:
        """Tornado's hook: who answers a request."""
        status = 0
        if request.path != self._open_path and not self._knows(request.headers.get("Authorization", "")):
            status = 401
        elif not (self._allow_control or request.method in READING or self._asks_table(request)):
            status = 403
        if status:
            return self.get_handler_delegate(request, Refusal, {"status": status})
        return super().find_handler(request, **options)

    def _asks_table(self, request: HTTPServerRequest) -> bool:
        return request.method == "POST" and request.path == self._table_path

    def _knows(self, header: str) -> bool:
        scheme, _, encoded = header.partition(" ")
        if scheme.lower() != "basic":
            return False
        try:
            given = b64decode(encoded, validate=True)
        except ValueError:
            return False
        return any(hmac.compare_digest(given, known) for known in self._credentials)


class Refusal(RequestHandler):
    """Answers what the gate does not let through."""

    def initialize(self, status: int) -> None:
        """Tornado's hook."""
        self._status = status

    def check_xsrf_cookie(self) -> None:
        """Tornado's hook: a refusal needs no protection, and must not become another one."""

    def prepare(self) -> None:
        """Tornado's hook: whatever the method."""
        self.set_status(self._status)
        self.set_header("Content-Type", "text/plain; charset=UTF-8")
        if self._status == 401:
            self.set_header("WWW-Authenticate", 'Basic realm="flower", charset="UTF-8"')
            self.finish("a user and a password are needed\n")
        else:
            self.finish("Flower is read-only here\n")


class Headers(OutputTransform):
    """Adds HEADERS to every answer, as far as it has none of its own."""

    def transform_first_chunk(
        self, status_code: int, headers: HTTPHeaders, chunk: bytes, finishing: bool
    ) -> tuple[int, HTTPHeaders, bytes]:
        """Tornado's hook."""
        for name, value in HEADERS.items():
            headers.setdefault(name, value)
        return status_code, headers, chunk


class LastingEvents(Events):  # type: ignore[misc]
    """Hears what workers say, through outages of Redis, and keeps it as far as the disk allows.

    Flower's own doubles its wait with each failure and never comes back sooner, writes a line each time, and lets a
    full disk end in a traceback.
    """

    def __init__(self, app: Celery, loop: IOLoop, chosen: MonitorOptions) -> None:
        super().__init__(
            app,
            loop,
            db=str(chosen.history) if chosen.history else None,
            persistent=chosen.history is not None,
            # Our workers send events unasked; to ask them is a command, which a reader has no business to send.
            enable_events=False,
            state_save_interval=SAVE_EVERY_SECONDS * 1000,
            max_tasks_in_memory=chosen.max_jobs,
            max_workers_in_memory=options.max_workers,
        )

    def run(self) -> None:
        """The thread."""
        waits = False
        while True:
            try:
                with self.capp.connection() as connection:
                    receiver = EventReceiver(connection, handlers={"*": self.on_event}, app=self.capp)
                    if waits:
                        logger.info("hears from Redis again")
                    waits = False
                    receiver.capture(limit=None, timeout=None, wakeup=True)
            except Exception as error:  # noqa: BLE001 - whatever it was, the pages must not stand still for ever
                if not waits:
                    logger.warning("waits for Redis, and shows what it knew: %s", error or type(error).__name__)
                waits = True
                time.sleep(RETRY_SECONDS)

    def save_state(self) -> None:
        """Write the history anew."""
        try:
            super().save_state()
        except (OSError, *dbm.error) as error:
            logger.error("the history cannot be kept in %s: %s", self.db, error)
