"""A bridge and an emulated RunPod for tests: what stands where, and what has been paid for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redis import Redis

from tasks.overflow.budget import Ledger
from tasks.settings import read_settings
from tests.emulator import Emulator, Settings
from tests.processes import Worker

HASTY = {
    "QUEUE_LEASE_SECONDS": "3",
    "QUEUE_RETRY_BASE_SECONDS": "0.2",
    "DIARIZATION_MAX_HOURS": "0.1",
    "OVERFLOW_COLD_START_SECONDS": "2",
    "OVERFLOW_SECONDS_PER_AUDIO_HOUR": "60",
}
"""Of a bridge whose app is `tests.hasty`: a run has 6 s, and is forgotten after 14."""


@contextmanager
def emulated(folder: Path, **settings: Any) -> Iterator[Emulator]:
    """An endpoint whose workers have the stand-in, with its journal in `folder`."""
    environment = {"DIARIZATION_DIARIZER": "tests.standin:load", "STANDIN_DIR": str(folder)}
    known: dict[str, Any] = {"active_workers": 1, **settings}
    with Emulator(folder, Settings(**known), environment=environment) as running:
        yield running


def start_bridge(start_worker: Callable[..., Worker], emulator: Emulator, **settings: Any) -> Worker:
    """A bridge to that endpoint; it looks at its runs as often as it always does."""
    return start_worker(
        WORKER_ROLE="bridge",
        RUNPOD_API_KEY=settings.pop("RUNPOD_API_KEY", emulator.settings.api_key),
        RUNPOD_ENDPOINT_ID=settings.pop("RUNPOD_ENDPOINT_ID", emulator.settings.endpoint_id),
        RUNPOD_ENDPOINT_BASE_URL=settings.pop("RUNPOD_ENDPOINT_BASE_URL", emulator.url),
        RUNPOD_MANAGEMENT_BASE_URL=settings.pop("RUNPOD_MANAGEMENT_BASE_URL", emulator.url),
        **settings,
    )


def ledger(redis: Redis) -> Ledger:
    """The ledger of the tests' Redis."""
    return Ledger(redis, read_settings())
