"""The doctor before a Redis and a fleet that are ill in one way each: which fault it finds, and that it never hangs."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from redis import Redis

from tasks.checks import connection, fleet, redis_server
from tasks.checks.finding import Check, Fault, Finding, Mark, Role, Subject, fine
from tasks.diarize import diarize
from tasks.doctor import BROKEN, CHECKS, HUNG, examine
from tasks.orders import QUEUE, OrderBook
from tasks.registry import WorkerFacts
from tasks.settings import Settings
from tasks.valkey import EmbeddedValkey
from tasks.version import code_version
from tests.processes import Worker, run_cli, wait_until
from tests.servers import LOOPBACK, Conversation, free_port, make_certificate, serve, talk, tls_in_front_of

PASSWORD = "s3cret/pa55"
QUOTED = "s3cret%2Fpa55"


def subject(url: str, role: Role = Role.PRODUCER, **settings: Any) -> Subject:
    return Subject(Settings(redis_url=SecretStr(url), **settings), role)


def look(check: str, at: Subject) -> Finding:
    """One check as the doctor does it, without what it needs."""
    (one,) = (replace(one, needs=None) for one in CHECKS if one.name == check)
    (told,) = examine(at, [one])
    return told.finding


@contextmanager
def a_server(*arguments: str) -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey(arguments=arguments) as running:
        yield running


def configure(server: EmbeddedValkey, **settings: str) -> None:
    with Redis.from_url(server.url) as client:
        for name, value in settings.items():
            client.config_set(name.replace("_", "-"), value)


def test_a_redis_that_is_well(server: EmbeddedValkey, redis: Redis) -> None:
    at = subject(server.url)
    found = {told.check.name: told.finding for told in examine(at) if told.check.group == "redis"}
    # The tests' server leaves it to the kernel when what it has written goes to disk.
    assert found.pop("persistence").fault is redis_server.UNSYNCED
    assert {finding.mark for finding in found.values()} == {Mark.OK}, found
    assert redis.get("diarize:doctor") in ("1", None)
    wait_until(lambda: not redis.keys("*"), what="the doctor leaves nothing behind")


@pytest.mark.parametrize(
    ("check", "settings", "fault"),
    [
        ("eviction", {"maxmemory_policy": "allkeys-lru"}, redis_server.EVICTS),
        ("persistence", {}, redis_server.KEEPS_NOTHING),
        ("persistence", {"save": "3600 1"}, redis_server.SNAPSHOTS_ONLY),
        ("memory", {"maxmemory": "1300000"}, redis_server.FILLING),
        ("memory", {"maxmemory": "1"}, redis_server.IS_FULL),
        ("writes", {"maxmemory": "1"}, redis_server.IS_FULL),
        ("writes", {"replicaof": f"{LOOPBACK} 1"}, redis_server.READ_ONLY),
    ],
)
def test_a_redis_that_is_ill(check: str, settings: dict[str, str], fault: Fault) -> None:
    with a_server() as server:
        if check == "memory" and fault is redis_server.FILLING:
            with Redis.from_url(server.url) as client:
                settings = {"maxmemory": str(int(client.info("memory")["used_memory"] * 1.1))}
        if "replicaof" in settings:
            with Redis.from_url(server.url) as client:
                client.replicaof(*settings["replicaof"].split())
        else:
            configure(server, **settings)
        assert look(check, subject(server.url)).fault is fault


def test_a_disk_that_takes_nothing_is_found(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path, arguments=("--save", "3600 1")) as server:
        with Redis.from_url(server.url) as client:
            client.set("key", "value")
            (tmp_path / "dump.rdb").mkdir()  # root writes everywhere, but not a file over a folder
            client.bgsave()
            wait_until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err")
        assert look("connection", subject(server.url)).fault is connection.CANNOT_SAVE, "it refuses even a PING then"
        configure(server, stop_writes_on_bgsave_error="no")
        assert look("persistence", subject(server.url)).fault is connection.CANNOT_SAVE
        configure(server, save="")  # else it would try once more before it ends


def test_why_there_is_no_connection(tmp_path: Path) -> None:
    assert look("connection", subject(f"redis://{LOOPBACK}:{free_port()}/0")).fault is connection.REFUSED
    assert look("connection", subject("redis://no-such-host.invalid/0")).fault is connection.NO_HOST
    assert look("connection", subject(f"redis://{LOOPBACK}/0?socket_timeotu=1")).fault is connection.BAD_OPTION
    with serve(lambda request: request.send_error(400)) as site:
        assert look("connection", subject(f"redis://{LOOPBACK}:{site.port}/0")).fault is connection.NO_REDIS
    with talk(lambda conversation: conversation.wait_for_peer_to_go(), reads_request=False) as site:
        assert look("connection", subject(f"redis://{LOOPBACK}:{site.port}/0")).fault is connection.SILENT


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (b"-LOADING Redis is loading the dataset in memory\r\n", connection.LOADING),
        (b"-ERR max number of clients reached\r\n", connection.CROWDED),
        (b"-CLUSTERDOWN The cluster is down\r\n", connection.ODD),
    ],
)
def test_a_redis_that_answers_and_serves_nobody(answer: bytes, fault: Fault) -> None:
    def refuse(conversation: Conversation) -> None:
        while conversation.sock.recv(65536):
            conversation.send(answer)

    with talk(refuse, reads_request=False) as site:
        assert look("connection", subject(f"redis://{LOOPBACK}:{site.port}/0")).fault is fault


def test_a_redis_that_is_old_or_slow(server: EmbeddedValkey, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_server, "OLDEST", (99, 0))
    monkeypatch.setattr(redis_server, "SLOW_SECONDS", 0.0)
    assert look("version", subject(server.url)).fault is redis_server.OLD
    assert look("latency", subject(server.url)).fault is redis_server.SLOW


def test_a_frozen_redis_is_silent_and_the_rest_is_skipped() -> None:
    with a_server() as server:
        server.process.send_signal(signal.SIGSTOP)
        told = [one for one in examine(subject(server.url)) if one.check.group in ("redis", "fleet")]
    assert told[0].finding.fault is connection.SILENT
    assert {one.finding.mark for one in told[1:]} == {Mark.SKIPPED}


def test_passwords_and_users() -> None:
    with a_server() as server:
        configure(server, requirepass=PASSWORD)
        bare = server.url.removeprefix("redis://")
        finding = look("connection", subject(server.url))
        assert (finding.fault, "REDIS_URL has none" in finding.says) == (connection.DENIED, True)
        finding = look("connection", subject(f"redis://:wr0ng@{bare}"))
        assert (finding.fault, "refused" in finding.says) == (connection.DENIED, True)
        assert look("connection", subject(f"redis://:{QUOTED}@{bare}")).mark is Mark.OK
        assert look("connection", subject(f"redis://:{QUOTED}@{bare}99")).fault is connection.NO_DATABASE
        with Redis.from_url(server.url, password=PASSWORD) as client:
            client.acl_setuser(
                "reader", enabled=True, passwords=["+x"], keys=["*"], categories=["+@read", "+@connection"]
            )
        assert look("writes", subject(f"redis://reader:x@{bare}")).fault is connection.FORBIDDEN


def test_tls_on_one_side_alone_or_with_a_certificate_nobody_trusts(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    with a_server() as server, tls_in_front_of(server.url, certificate) as site:
        trusting = f"?ssl_ca_certs={certificate.certificate}"
        assert look("connection", subject(f"rediss://{LOOPBACK}:{site.port}/0{trusting}")).mark is Mark.OK
        assert look("connection", subject(f"rediss://{LOOPBACK}:{site.port}/0")).fault is connection.UNTRUSTED
        assert look("connection", subject(f"redis://{LOOPBACK}:{site.port}/0")).fault is connection.TLS_ONLY
        nowhere = "?ssl_ca_certs=/no/such/ca.pem"
        assert look("connection", subject(f"rediss://{LOOPBACK}:{site.port}/0{nowhere}")).fault is connection.NO_CA
        plain = server.url.replace("redis://", "rediss://")
        assert look("connection", subject(plain)).fault is connection.NO_TLS
    with a_server() as server, tls_in_front_of(server.url, certificate, asks_for_one=True) as site:
        asks = subject(f"rediss://{LOOPBACK}:{site.port}/0{trusting}")
        assert look("connection", asks).fault is connection.TLS_BROKEN
        elsewhere = make_certificate(tmp_path, names="DNS:redis.example")
    with a_server() as server, tls_in_front_of(server.url, elsewhere) as site:
        finding = look("connection", subject(f"rediss://{LOOPBACK}:{site.port}/0?ssl_ca_certs={elsewhere.certificate}"))
        assert (finding.fault, LOOPBACK in finding.says) == (connection.UNTRUSTED, True)


@pytest.mark.parametrize(
    ("ahead_seconds", "fault"),
    [(0.5, None), (-5, redis_server.SKEW), (5, redis_server.SKEW), (60, redis_server.BAD_SKEW)],
)
def test_what_a_clock_that_is_off_means(ahead_seconds: float, fault: Fault | None) -> None:
    assert redis_server.skew(ahead_seconds, "it", subject("redis://h")).fault is fault


def announce(redis: Redis, name: str, facts: WorkerFacts) -> None:
    """A worker that lives, as far as the registry knows."""
    seconds, microseconds = redis.time()
    redis.hset("diarize:fleet:workers", name, facts.to_json())
    redis.zadd("diarize:fleet:workers_seen", {name: seconds + microseconds / 1e6})


def test_a_fleet_that_is_well(redis: Redis, server: EmbeddedValkey, start_worker: Callable[..., Worker]) -> None:
    start_worker()
    at = subject(server.url)
    wait_until(lambda: look("workers", at).mark is Mark.OK)
    found = {told.check.name: told.finding for told in examine(at) if told.check.group == "fleet"}
    assert {finding.mark for finding in found.values()} == {Mark.OK}, found
    assert code_version() in found["versions"].says
    assert found["models"].says == "stand-in exact everywhere"
    diarize.delay("http://stand.in/fail/permanent?sig=s1gnature").get(timeout=20, propagate=False)
    finding = look("dead letters", at)
    assert finding.fault is fleet.DEAD_LETTERS
    assert "1 recording_undecodable" in finding.says
    assert "s1gnature" not in finding.says


def test_a_fleet_that_is_not_of_one_mind(redis: Redis, server: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "LEADER_WAIT_SECONDS", 0.0)
    at = subject(server.url)
    assert look("workers", at).fault is fleet.NOBODY
    announce(
        redis, "a", WorkerFacts(model="community-1", precision="exact", version=code_version(), said_at=time.time())
    )
    announce(
        redis, "b", WorkerFacts(model="community-1", precision="fast", version="0.0 (old)", said_at=time.time() - 9)
    )
    assert look("workers", at).mark is Mark.OK
    assert look("versions", at).fault is fleet.MIXED_VERSIONS
    assert look("models", at).fault is fleet.MIXED_MODELS
    finding = look("clocks", at)
    assert (finding.fault, finding.says.startswith("b is 9.0 s behind")) == (redis_server.SKEW, True)
    assert look("leader", at).fault is fleet.NO_LEADER
    announce(redis, "b", WorkerFacts(version=code_version(), said_at=time.time()))
    assert look("versions", at).mark is Mark.OK
    announce(redis, "b", WorkerFacts())
    finding = look("versions", at)
    assert (finding.fault, "does not say which" in finding.says) == (fleet.MIXED_VERSIONS, True)


def test_jobs_that_nobody_takes_and_a_fleet_under_another_prefix(redis: Redis, server: EmbeddedValkey) -> None:
    at = subject(server.url)
    assert look("line", at).mark is Mark.OK
    diarize.delay("http://stand.in/turns/60/2", provider="local")
    assert look("line", at).fault is fleet.UNSERVED
    announce(redis, "bridge", WorkerFacts(role="bridge"))
    assert look("line", at).fault is fleet.UNSERVED, "a bridge takes no job that must stay in the house"
    announce(redis, "gpu", WorkerFacts())
    assert look("line", at).mark is Mark.OK
    diarize.delay("http://stand.in/turns/60/2", expected_audio_seconds=36_000, deadline_seconds=1)
    assert look("line", at).fault is fleet.LATE
    OrderBook(redis, at.settings).pause(QUEUE, "new disks", "root@here")
    paused = look("line", at)
    assert (paused.fault, "paused by root@here: new disks" in paused.says) == (fleet.PAUSED, True)
    assert look("key prefix", at).mark is Mark.OK
    assert look("key prefix", subject(server.url, redis_key_prefix="other:")).fault is redis_server.OTHER_PREFIX


def test_what_hangs_or_breaks_is_a_finding_without_secrets() -> None:
    blocked = threading.Event()

    def hang(_: Subject) -> Finding:
        blocked.wait()
        return fine("late")

    def burst(_: Subject) -> Finding:
        raise RuntimeError(f"cannot parse redis://:{QUOTED}@h, password {PASSWORD},\nkey rp_key")

    checks = [
        Check("g", "hangs", "", hang, (), timeout_seconds=0.2),
        Check("g", "hangs, too", "", hang, (), timeout_seconds=0.2),
        Check("g", "needs it", "", hang, (), needs="hangs"),
        Check("g", "breaks", "", burst, ()),
        Check("g", "well", "", lambda _: fine("well"), ()),
    ]
    at = subject(f"redis://:{QUOTED}@h", runpod_api_key=SecretStr("rp_key"))
    told = [one.finding for one in examine(at, checks)]
    blocked.set()
    assert [one.fault for one in told] == [HUNG, HUNG, None, BROKEN, None]
    assert [one.mark for one in told[2:]] == [Mark.SKIPPED, Mark.FAILED, Mark.OK]
    assert told[3].says == "RuntimeError: cannot parse ..., password ..., key ..."


def test_every_check_is_its_own_and_every_fault_has_a_cure() -> None:
    names = [check.name for check in CHECKS]
    assert len(set(names)) == len(names)
    for index, check in enumerate(CHECKS):
        assert check.needs is None or check.needs in names[:index], "a check comes after what it needs"
    faults = {fault.code: fault for check in CHECKS for fault in check.faults}
    assert all(faults[fault.code] is fault for check in CHECKS for fault in check.faults), "a code is one fault's"
    assert all(fault.cure and fault.means for fault in faults.values())


def test_the_command_and_its_exit_codes(server: EmbeddedValkey, redis: Redis) -> None:
    done = run_cli("doctor", "--role", "producer", REDIS_URL=server.url)
    lines = done.stdout.splitlines()
    assert "This host is looked at as a producer." in lines
    assert any(line.startswith(f"ok    connection      {server.url} is Valkey 9") for line in lines)
    position = next(index for index, line in enumerate(lines) if line.startswith("warn  workers"))
    assert lines[position + 1].strip().startswith("cure: start one: celery -A tasks worker")
    assert any(line.startswith("skip  temp, room, ffmpeg, recordings, model, gpu, torch: a producer") for line in lines)
    assert "\x1b" not in done.stdout

    nobody = f"redis://:{QUOTED}@{LOOPBACK}:{free_port()}/0"
    done = run_cli("doctor", "--role", "producer", "--json", code=3, REDIS_URL=nobody)
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["check"] for one in told] == [check.name for check in CHECKS]
    assert {one["fault"] for one in told} >= {"redis_refused"}
    assert "s3cret" not in done.stdout + done.stderr

    done = run_cli("doctor", "--json", code=1, REDIS_URL=nobody, QUEUE_LEASE_SECOND="4", RUNPOD_ENDPOINT_ID="s3cret!")
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["fault"] for one in told] == ["bad_settings", "bad_settings"]
    assert "s3cret" not in done.stdout
    assert run_cli("doctor", "--role", "cook", code=2).stdout == ""
