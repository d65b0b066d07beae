"""A bridge and an emulated RunPod for tests: what stands where, and what has been paid for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redis import Redis

from tasks.budget import Ledger
from tasks.settings import read_settings
from tests.emulator import Emulator, Settings
from tests.processes import Worker


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
        **settings,
    )


def ledger(redis: Redis) -> Ledger:
    """The ledger of the tests' Redis."""
    return Ledger(redis, read_settings())
