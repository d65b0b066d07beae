"""The Redis that all of the queue stands in: how it is connected to, and whether it is fit for the job."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from diarization.errors import QueueUnavailable
from tasks.settings import Settings

if TYPE_CHECKING:
    from redis import Redis
    from redis.commands.core import Script


def connect(settings: Settings, *, patient: bool) -> Redis:
    """A client of the queue's Redis; a `patient` one (a worker's) waits out short outages, others fail in seconds."""
    # A quarter of the time that a backend takes to import the task would be the client's.
    from redis import Redis  # noqa: PLC0415
    from redis.backoff import NoBackoff  # noqa: PLC0415
    from redis.exceptions import ConnectionError as RedisConnectionError  # noqa: PLC0415
    from redis.retry import Retry  # noqa: PLC0415

    return Redis.from_url(
        settings.redis_url.get_secret_value(),
        decode_responses=True,
        socket_timeout=5 if patient else 2,
        socket_connect_timeout=5 if patient else 2,
        socket_keepalive=True,
        health_check_interval=10,
        # A connection that went stale while idle is worth one more try; one that hangs is not. Who is patient tries
        # again by itself: tries of the client's nest in those of its connections, and would last for minutes.
        retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
    )


@contextmanager
def reachable() -> Iterator[None]:
    """Turns the client's errors into ours.

    Raises:
        QueueUnavailable: Redis cannot be reached or refuses to answer.
    """
    from redis.exceptions import OutOfMemoryError, RedisError  # noqa: PLC0415 - see `connect`

    try:
        yield
    except OutOfMemoryError:
        raise QueueUnavailable(
            "Redis is full: give it more memory (maxmemory), or wait for its old jobs to go"
        ) from None
    except RedisError as error:
        # The client's messages name host and port, never the password.
        raise QueueUnavailable(f"Redis cannot be used: {error or type(error).__name__}") from None


def load_scripts(client: Redis, folder: Path, *above: Path) -> dict[str, Script]:
    """The Lua scripts of a folder by their names; `shared.lua` of the folders above and its own begins each of them."""
    shared = "".join((one / "shared.lua").read_text() for one in (*above, folder))
    return {
        path.stem: client.register_script(shared + path.read_text())
        for path in folder.glob("*.lua")
        if path.stem != "shared"
    }


def server_time(client: Redis) -> float:
    """The server's clock, which is the fleet's: seconds since 1970."""
    seconds, microseconds = client.time()
    return float(seconds + microseconds / 1e6)


def lead(client: Redis, key: str, worker: str, seconds: int) -> Literal["taken", "kept"] | None:
    """Lead, for so many seconds: whether that worker has taken the lock now, or had it; None where another leads."""
    if client.set(key, worker, nx=True, ex=seconds):
        return "taken"
    return "kept" if client.get(key) == worker and client.expire(key, seconds) else None


class RedisUnfit(Exception):
    """This Redis would lose jobs by its configuration. The message says how to mend it."""


def check_server(client: Redis) -> list[str]:
    """What an operator should know of this Redis before jobs are trusted to it.

    Raises:
        RedisUnfit: It throws keys away when its memory is full.
        RedisError: It cannot be asked.
    """
    facts: Any = client.info()
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise RedisUnfit(
            f"Redis throws keys away when it is full (maxmemory-policy {policy}), jobs among them: "
            "set maxmemory-policy noeviction"
        )
    if facts.get("aof_enabled") or facts.get("role") == "slave" or saves_snapshots(client):
        return []
    return ["Redis keeps nothing on disk, so a restart loses every job: set appendonly yes"]


def saves_snapshots(client: Redis) -> bool:
    """Whether it saves snapshots; taken for granted where CONFIG is forbidden, as with managed servers."""
    from redis.exceptions import ResponseError  # noqa: PLC0415 - see `connect`

    try:
        settings: Any = client.config_get("save")
    except ResponseError:
        return True
    return bool(settings.get("save"))
