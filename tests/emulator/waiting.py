"""How the emulator waits for what it, or a test, changes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

LOOK_SECONDS = 0.02


async def until(condition: Callable[[], T], seconds: float) -> T:
    """What `condition` gives once it is true, or last gave when so many seconds were over."""
    deadline = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < deadline:
        await asyncio.sleep(LOOK_SECONDS)
    return value
