"""The command `flower`."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Annotated

import typer
from pydantic import SecretStr

from tasks.settings import current_settings

MIN_PASSWORD_LENGTH = 8
FORM = f"FLOWER_BASIC_AUTH=user:password, the password of {MIN_PASSWORD_LENGTH} characters or more"


class FlowerError(Exception):
    """Flower cannot be started like this. The message says what to do."""


def flower(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where it listens.")] = 5555,
    address: Annotated[str, typer.Option(help="Of which interface; 0.0.0.0 is all of them.")] = "127.0.0.1",
) -> None:
    """Show jobs and workers in a browser: Flower, behind a password, read-only unless FLOWER_ALLOW_CONTROL says so.

    Raises:
        FlowerError: There is no password, the history cannot be written, the port is taken, or Flower is not installed.
    """
    settings = current_settings()
    credentials = read_credentials(settings.flower_basic_auth)
    if settings.flower_db:
        _check_writable(settings.flower_db)
    try:
        from tasks.monitor import MonitorOptions, run_monitor  # noqa: PLC0415 - of an extra
    except ModuleNotFoundError as error:
        raise FlowerError(f"{error}: install it: pip install 'diarize-queue[flower]'") from None
    from tasks.diarize import diarize  # noqa: PLC0415 - Celery takes half a second to import

    chosen = MonitorOptions(
        credentials=credentials,
        address=address,
        port=port,
        url_prefix=settings.flower_url_prefix.strip("/"),
        history=settings.flower_db,
        max_jobs=settings.flower_max_tasks,
        allow_control=settings.flower_allow_control,
    )
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    # A line for each request would say what the pages show, and little else.
    logging.getLogger("tornado.access").setLevel(logging.CRITICAL)
    try:
        run_monitor(diarize.app, chosen)
    except OSError as error:
        raise FlowerError(f"cannot listen at {address or '*'}:{port}: {error.strerror}") from None


def read_credentials(given: SecretStr | None) -> tuple[str, ...]:
    """The pairs in FLOWER_BASIC_AUTH, which Flower separates by commas.

    Raises:
        FlowerError: There is none, or one is no pair or too easily guessed. The message does not repeat it.
    """
    pairs = tuple(pair.strip() for pair in given.get_secret_value().split(",")) if given else ()
    if not pairs:
        raise FlowerError(f"Flower does not start without a password: set {FORM}")
    for pair in pairs:
        user, colon, password = pair.partition(":")
        if not user or not colon:
            raise FlowerError(f"FLOWER_BASIC_AUTH is not understood (a comma separates users): set {FORM}")
        if len(password) < MIN_PASSWORD_LENGTH or password == user or len(set(password)) == 1:
            raise FlowerError(f"the password in FLOWER_BASIC_AUTH is too easily guessed: set {FORM}")
        if not pair.isascii() or not pair.isprintable():
            raise FlowerError("FLOWER_BASIC_AUTH has characters that browsers send in different ways: use ASCII")
    return pairs


def _check_writable(history: Path) -> None:
    folder = history.absolute().parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise FlowerError(f"FLOWER_DB: {folder} is no folder that can be written to: make it, or leave FLOWER_DB out")
