"""Whether this Redis is one that jobs can be trusted to."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

from redis.exceptions import NoPermissionError, OutOfMemoryError, ReadOnlyError, ResponseError

from tasks.checks.connection import CANNOT_SAVE, FORBIDDEN, ask
from tasks.checks.finding import Check, Fault, Finding, Subject, counted, fine, risk
from tasks.server import saves_snapshots, server_time

OLDEST = (6, 2)
"""The first with ZRANGE … BYSCORE, by which the records are read."""
PINGS = 20
SLOW_SECONDS = 0.02
"""A job takes some thirty round trips; with more than this each, Redis is far away or overloaded."""
NEARLY_FULL, FULL = 0.8, 1.0
SKEW_SECONDS = 2.0
KEYS_WALKED = 20_000

OLD = Fault("redis_old", "it is older than 6.2", "upgrade to Redis 7 or Valkey")
EVICTS = Fault(
    "redis_evicts",
    "it throws keys away when it is full, jobs among them; workers refuse to start",
    "set maxmemory-policy noeviction in redis.conf (at once: CONFIG SET maxmemory-policy noeviction)",
)
KEEPS_NOTHING = Fault(
    "redis_unpersisted",
    "a restart of Redis loses every job",
    "set appendonly yes in redis.conf (at once: CONFIG SET appendonly yes), on a disk that outlives the container",
)
SNAPSHOTS_ONLY = risk(
    "redis_snapshots",
    "a crash of Redis loses minutes of jobs",
    "set appendonly yes in redis.conf, beside the snapshots",
)
UNSYNCED = risk("redis_fsync", "a power failure loses half a minute of jobs", "set appendfsync everysec in redis.conf")
FILLING = risk(
    "redis_filling",
    "little memory is left",
    "give Redis more memory (maxmemory), or keep ended jobs for a shorter time (QUEUE_RETENTION_DAYS)",
)
IS_FULL = Fault(
    "redis_full",
    "it is full: no job can be submitted, workers wait with their results",
    "give Redis more memory at once: CONFIG SET maxmemory; then lower QUEUE_RETENTION_DAYS",
)
SLOW = risk(
    "redis_slow",
    "a round trip takes long",
    "bring workers and Redis nearer to each other, and look at SLOWLOG GET and Redis's CPU",
)
SKEW = risk("clock_skew", "this host's clock is off", "run an NTP client on this host and on Redis's (timedatectl)")
BAD_SKEW = Fault(
    "clock_skew_bad",
    "this host's clock is so far off that deliveries of others look dead to it",
    "run an NTP client on this host and on Redis's (timedatectl), then restart the workers",
)
READ_ONLY = Fault(
    "redis_read_only", "it takes no writes", "point REDIS_URL at the primary, not at a replica of it; see Redis's log"
)
OTHER_PREFIX = risk(
    "other_prefix",
    "workers announce themselves under another prefix, and none under this one",
    "set the same REDIS_KEY_PREFIX for all producers and workers of one fleet",
)
CLOCK_FAULTS = (SKEW, BAD_SKEW)


def version(subject: Subject) -> Finding:
    """Whether it knows the commands that we use."""
    with ask(subject) as client:
        said = str(client.info("server").get("redis_version", ""))
    number = tuple(int(part) for part in said.split(".")[:2] if part.isdigit())
    if len(number) == 2 and number < OLDEST:
        return OLD.found(f"it has the commands of Redis {said}, and 6.2 is needed")
    return fine(f"has the commands of Redis {said}")


def eviction(subject: Subject) -> Finding:
    """Whether it throws keys away."""
    with ask(subject) as client:
        policy = client.info("memory").get("maxmemory_policy", "noeviction")
    return fine("noeviction") if policy == "noeviction" else EVICTS.found(f"maxmemory-policy is {policy}")


def persistence(subject: Subject) -> Finding:
    """Whether jobs survive a restart of Redis, and whether its disk takes them."""
    with ask(subject) as client:
        facts: Any = client.info("persistence")
        snapshots = saves_snapshots(client)
        try:
            fsync = client.config_get("appendfsync").get("appendfsync")
        except ResponseError:  # managed servers forbid CONFIG
            fsync = None
    appends = bool(facts.get("aof_enabled"))
    failed = [name for name in ("aof_last_write_status", "aof_last_bgrewrite_status") if facts.get(name, "ok") != "ok"]
    if snapshots and facts.get("rdb_last_bgsave_status", "ok") != "ok":
        failed.append("rdb_last_bgsave_status")
    if failed:
        return CANNOT_SAVE.found(f"{', '.join(failed)}: not ok")
    if not appends:
        return (
            SNAPSHOTS_ONLY.found("snapshots, no append-only file")
            if snapshots
            else KEEPS_NOTHING.found("neither append-only file nor snapshots")
        )
    if fsync == "no":
        return UNSYNCED.found("append-only file with appendfsync no")
    return fine("append-only file, its last writes are ok")


def memory(subject: Subject) -> Finding:
    """How much of its memory is used."""
    with ask(subject) as client:
        facts: Any = client.info("memory")
    used, limit = facts.get("used_memory", 0), facts.get("maxmemory", 0) or facts.get("total_system_memory", 0)
    if not limit:
        return fine(f"{_megabytes(used)} used; the server names no limit")
    of = "maxmemory" if facts.get("maxmemory") else "the host's memory, with no maxmemory set"
    says = f"{_megabytes(used)} used, {used / limit:.0%} of {of}"
    if used >= FULL * limit:
        return IS_FULL.found(says)
    return FILLING.found(says) if used >= NEARLY_FULL * limit else fine(says)


def latency(subject: Subject) -> Finding:
    """How long a round trip takes."""
    with ask(subject) as client:
        client.ping()  # the connection's own time is not a round trip's
        times = []
        for _ in range(PINGS):
            began = time.perf_counter()
            client.ping()
            times.append(time.perf_counter() - began)
    says = f"a round trip takes {median(times) * 1e3:.1f} ms (longest of {PINGS}: {max(times) * 1e3:.1f} ms)"
    return SLOW.found(says) if median(times) > SLOW_SECONDS else fine(says)


def clock(subject: Subject) -> Finding:
    """How far this host's clock is from Redis's, which the fleet goes by."""
    with ask(subject) as client:
        client.ping()
        before = time.time()
        server = server_time(client)
        after = time.time()
    return skew((before + after) / 2 - server, "this host", subject)


def skew(ahead_seconds: float, who: str, subject: Subject) -> Finding:
    """What a clock that is so far ahead of Redis's means.

    Celery's transport compares a delivery's time, by its worker's clock, with the clock of whoever looks for dead ones;
    `expires=` and `eta=` are times of the producer.
    """
    says = f"{who} is {abs(ahead_seconds):.1f} s {'ahead of' if ahead_seconds > 0 else 'behind'} Redis"
    if abs(ahead_seconds) > subject.settings.queue_lease_seconds / 2:
        return BAD_SKEW.found(says)
    return SKEW.found(says) if abs(ahead_seconds) > SKEW_SECONDS else fine(f"{who} and Redis agree")


def writes(subject: Subject) -> Finding:
    """Whether a script may write a key of ours; it is gone after a moment."""
    key = f"{subject.settings.redis_key_prefix}doctor"
    with ask(subject) as client:
        try:
            client.eval("return redis.call('SET', KEYS[1], '1', 'PX', 1000)", 1, key)
        except OutOfMemoryError:
            return IS_FULL.found("a write is refused: out of memory")
        except NoPermissionError as error:
            return FORBIDDEN.found(f"a script that writes {key} is refused: {error}")
        except (ReadOnlyError, ResponseError) as error:
            return READ_ONLY.found(f"a write is refused: {error}")
    return fine("a script may write")


def prefix(subject: Subject) -> Finding:
    """Under which prefix this host's jobs stand, and whether a fleet works under it."""
    own, found = subject.settings.redis_key_prefix, set()
    with ask(subject) as client:
        cursor, walked = 0, 0
        while walked < KEYS_WALKED:
            cursor, keys = client.scan(cursor, match="*fleet:workers_seen", count=1000)
            found |= {str(key).removesuffix("fleet:workers_seen") for key in keys}
            walked += 1000
            if not cursor:
                break
    others = sorted(found - {own})
    if others and own not in found:
        return OTHER_PREFIX.found(f"{own!r} has no worker, {', '.join(map(repr, others[:3]))} has")
    return fine(f"{own!r}" + (f"; {counted(len(others), 'other fleet')} in this database" if others else ""))


def _megabytes(count: float) -> str:
    return f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.1f} GB"


CHECKS = tuple(
    Check("redis", name, looks_at, look, faults, needs="connection")
    for name, looks_at, look, faults in (
        ("version", "INFO", version, (OLD,)),
        ("eviction", "maxmemory-policy", eviction, (EVICTS,)),
        (
            "persistence",
            "append-only file, snapshots",
            persistence,
            (KEEPS_NOTHING, SNAPSHOTS_ONLY, UNSYNCED, CANNOT_SAVE),
        ),
        ("memory", "used_memory", memory, (FILLING, IS_FULL)),
        ("writes", "a script that writes a key", writes, (FORBIDDEN, READ_ONLY, IS_FULL)),
        ("latency", "twenty PINGs", latency, (SLOW,)),
        ("clock", "this host's clock beside Redis's", clock, CLOCK_FAULTS),
        ("key prefix", "REDIS_KEY_PREFIX", prefix, (OTHER_PREFIX,)),
    )
)
