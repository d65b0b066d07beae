"""Whoever asked for it is told of a job's end: signed, at least once, whatever breaks, and nobody else."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from diarization.errors import InvalidJob
from tasks import webhook_post, webhooks
from tasks.diarize import diarize
from tasks.record import JobRecord, State
from tasks.records import Records
from tasks.settings import Settings, SettingsError, read_settings
from tasks.signature import new_secret, verify
from tasks.webhooks import AT_ONCE, Webhooks
from tests.jobs import die, record
from tests.processes import Worker, run_cli, wait_until
from tests.servers import LOOPBACK, in_thread

Start = Callable[..., Worker]

SECRET, OLD_SECRET = new_secret(), new_secret()
SETTINGS = {"WEBHOOK_SECRET": SECRET, "WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8"}
HASTY = ("-A", "tests.hasty")


@dataclass
class Receiver:
    """What came, and what it answers: the statuses in turn, then the last of them for ever."""

    url: str = ""
    statuses: list[int] = field(default_factory=lambda: [204])
    came: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)

    @property
    def ids(self) -> list[str]:
        return [headers["webhook-id"] for headers, _ in self.came]

    def events(self, *secrets: str) -> list[dict[str, Any]]:
        return [verify(headers, body, *(secrets or (SECRET,))) for headers, body in self.came]


@contextmanager
def receiving(*statuses: int, holds: bool = False) -> Iterator[Receiver]:
    receiver = Receiver(statuses=list(statuses) or [204])

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.came.append(({name.lower(): value for name, value in self.headers.items()}, body))
            if holds:
                receiver.release.wait(30)
            status = receiver.statuses.pop(0) if len(receiver.statuses) > 1 else receiver.statuses[0]
            self.send_response(status)
            if status in (301, 307):
                self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer((LOOPBACK, 0), Handler) as server, in_thread(server):
        receiver.url = f"http://{LOOPBACK}:{server.server_port}/hook?token=CANARYTOKEN"
        try:
            yield receiver
        finally:
            receiver.release.set()


@contextmanager
def delivering(redis: Redis, records: type[Records] = Records, **given: Any) -> Iterator[Records]:
    """This process delivers, as a worker does beside its jobs, until the block ends."""
    settings = Settings(**{name.lower(): value for name, value in SETTINGS.items()}, **given)
    known = records(settings)
    deliveries = Webhooks(known, redis, settings)
    deliveries.start()
    try:
        yield known
    finally:
        deliveries.stop()


def told(job: Any) -> bool:
    return record(job).webhook_told_at is not None


def ended(receiver: str, count: int = 1) -> list[str]:
    """Ids of so many jobs that have ended, and whose ends are to be told to that URL."""
    ids = [diarize.delay("http://stand.in/turns/5/2", webhook=receiver).id for _ in range(count)]
    for job_id in ids:
        die(job_id)
    return ids


def due_at(redis: Redis) -> dict[str, float]:
    """When each webhook is due that has yet to be taken."""
    waiting: Any = redis.zrange(read_settings().redis_key_prefix + "webhooks", 0, -1, withscores=True)
    return dict(waiting)


def test_each_way_to_end_is_told(redis: Redis, start_worker: Start) -> None:
    worker = start_worker(**SETTINGS)
    with receiving() as receiver:
        done = diarize.delay("http://stand.in/turns/60/3?signature=CANARYURL", webhook=receiver.url)
        dead = diarize.delay("http://stand.in/fail/recording_not_found", webhook=receiver.url)
        cancelled = diarize.apply_async(
            ("http://stand.in/turns/5/2",), {"webhook": receiver.url, "webhook_result": True}, countdown=600
        )
        cancelled.revoke()
        whole = diarize.delay("http://stand.in/turns/6/2", webhook=receiver.url, webhook_result=True)
        jobs = {job.id: job for job in (done, dead, cancelled, whole)}
        wait_until(lambda: all(map(told, jobs)), what="all are told")
        events = {event["job_id"]: event for event in receiver.events()}
        assert len(receiver.came) == len(events) == 4
        assert {event["state"] for event in events.values()} == {"done", "dead", "cancelled"}
        ended = events[done.id]
        assert (ended["state"], ended["code"], ended["audio_seconds"]) == ("done", None, 60.0)
        assert ended["recording"] == "http://stand.in/turns/60/3"
        assert "result" not in ended
        assert (events[dead.id]["code"], events[dead.id]["attempts"]) == ("recording_not_found", 1)
        assert events[dead.id]["advice"]
        assert events[cancelled.id]["code"] == "cancelled"
        assert events[whole.id]["result"] == whole.get(timeout=10)
        assert receiver.came[0][0]["content-type"] == "application/json"
    assert "CANARY" not in worker.log
    assert f"job {done.id}: 127.0.0.1 is told of its end (done)" in worker.log
    assert (record(done).webhook, record(dead).webhook is not None) == (None, True), "a dead letter may be replayed"
    assert not list(redis.scan_iter("*webhooks*"))


def test_a_receiver_that_fails_is_told_again_by_the_same_id(redis: Redis, start_worker: Start) -> None:
    worker = start_worker(arguments=HASTY, **SETTINGS)
    with receiving(500, 301, 429, 200) as receiver:
        job = diarize.delay("http://stand.in/turns/5/2", webhook=receiver.url)
        wait_until(lambda: told(job))
        assert receiver.ids == [f"{job.id}.0"] * 4
        assert record(job).webhook_tries == 3
        assert len({body for _, body in receiver.came}) == 1
    assert worker.log.count("its webhook was not taken, and is tried again: HTTP 500") == 1


def test_a_receiver_that_does_not_answer_holds_up_no_other(redis: Redis, start_worker: Start) -> None:
    with receiving(holds=True) as hangs, receiving() as answers:
        stuck, others = ended(hangs.url, 40), ended(answers.url, 40)
        worker = start_worker(**SETTINGS)
        wait_until(lambda: all(map(told, others)), what="all others are told")
        assert hangs.came, "they were first in line"
        assert due_at(redis).keys() == set(stuck), "each is still to be told"
        assert sorted(answers.ids) == sorted(f"{job_id}.0" for job_id in others), "once"
        hangs.release.set()
        wait_until(lambda: all(map(told, stuck)), what="that one as well, once it answers")
        assert "CANARY" not in worker.log


def test_receivers_share_the_places_and_leave_one_free(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_post, "WHOLE_SECONDS", 600.0)  # what is slow is not over before the others
    with receiving(holds=True) as slow, receiving(holds=True) as slow_too, receiving() as quick:
        ended(slow.url, 20), ended(slow_too.url, 20)
        others = ended(quick.url, 20)
        with delivering(redis):
            wait_until(lambda: all(map(told, others)))
            others = ended(quick.url, 20)
            wait_until(lambda: all(map(told, others)))
            assert [len(slow.came), len(slow_too.came)] == [AT_ONCE // 2, AT_ONCE // 4]


def test_a_line_of_a_receiver_that_has_its_share_hides_no_other(redis: Redis) -> None:
    ids, other = ended("http://slow.example.org:80/?q", 5), ended("https://Quick.example.org?q")
    line = [job_id for job_id in due_at(redis) if job_id in ids]  # not `ids`, where two ended in one millisecond

    def claim(*refused: str) -> tuple[str, str] | None:
        return diarize.records.claim_webhook(600, refused, 2, 600)

    assert claim("slow.example.org:80") == (other[0], "quick.example.org")
    assert claim("slow.example.org:80") is None
    soon = time.time() + 300
    assert [due_at(redis)[job_id] < soon for job_id in line] == [True, True, False, False, False]
    assert [claim(), claim(), claim()] == [(line[0], "slow.example.org:80"), (line[1], "slow.example.org:80"), None]


def test_a_stop_waits_for_no_receiver_and_leaves_its_webhooks_to_others(redis: Redis, start_worker: Start) -> None:
    with receiving(holds=True) as receiver:
        jobs = ended(receiver.url, 5)
        worker = start_worker(**SETTINGS)
        wait_until(lambda: len(receiver.came) == len(jobs))
        assert worker.stop() == 0
        assert [record(job_id).webhook_tries for job_id in jobs] == [0] * len(jobs), "none was waited for"
        assert due_at(redis).keys() == set(jobs)
        assert max(due_at(redis).values()) <= time.time(), "each is another's to deliver"
        receiver.release.set()
        start_worker(**SETTINGS)
        wait_until(lambda: all(map(told, jobs)))
        assert sorted(receiver.ids) == sorted(2 * [f"{job_id}.0" for job_id in jobs])


def test_a_delivery_that_cannot_be_noted_costs_its_place_no_longer(
    redis: Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(webhooks, "AT_ONCE", 1)
    with receiving(holds=True) as receiver, receiving() as other, delivering(redis):
        (first,), (second,) = ended(receiver.url), ended(other.url)
        wait_until(lambda: receiver.came)
        redis.client_pause(600_000, all=False)  # what writes
        try:
            receiver.release.set()
            wait_until(lambda: "webhooks cannot reach Redis" in caplog.text)
        finally:
            redis.client_unpause()
        wait_until(lambda: told(second))
        redis.zadd(read_settings().redis_key_prefix + "webhooks", {first: time.time()})
        wait_until(lambda: told(first))


def test_a_worker_that_dies_over_it_tells_it_again(redis: Redis, start_worker: Start) -> None:
    with receiving(holds=True) as receiver:
        worker = start_worker(arguments=HASTY, **SETTINGS)
        job = diarize.delay("http://stand.in/turns/5/2", webhook=receiver.url)
        wait_until(lambda: receiver.came)
        worker.kill()
        receiver.release.set()
        assert not told(job)
        assert due_at(redis)[job.id] > time.time() + 30, "it is another's only once that one has had its time"
        redis.zadd(read_settings().redis_key_prefix + "webhooks", {job.id: time.time()})
        start_worker(arguments=HASTY, **SETTINGS)
        wait_until(lambda: told(job))
        assert receiver.ids == [f"{job.id}.0"] * 2


def test_one_that_nobody_takes_is_kept_and_can_be_delivered_later(redis: Redis, start_worker: Start) -> None:
    worker = start_worker(arguments=HASTY, WEBHOOK_GIVE_UP_HOURS="0.001", **SETTINGS)
    with receiving(503) as receiver:
        job = diarize.delay("http://stand.in/turns/5/2", webhook=receiver.url)
        wait_until(lambda: f"job {job.id}: its webhook is given up: HTTP 503, at try" in worker.log)
        listed = run_cli("webhooks", "list")
        assert listed.stdout.startswith(f"{job.id}  done  ")
        assert "HTTP 503" in listed.stdout
        (given_up,) = map(json.loads, run_cli("webhooks", "list", "--json").stdout.splitlines())
        assert (given_up["id"], given_up["state"]) == (job.id, "done")
        assert "webhook    not taken" in run_cli("status", job.id).stdout
        receiver.statuses = [503, 200]  # it has all tries anew
        assert run_cli("webhooks", "replay", "--all").stdout == f"{job.id} due\n"
        wait_until(lambda: told(job))
        assert "none was given up" in run_cli("webhooks", "list").stderr
        run_cli("webhooks", "replay", job.id, code=1)


def test_one_whose_record_goes_before_its_next_try_is_given_up_and_not_lost_in_silence(redis: Redis) -> None:
    with receiving(503) as receiver:
        (job_id,) = ended(receiver.url)
        redis.hset(f"{read_settings().redis_key_prefix}job:{job_id}", "webhook_tries", 20)  # the next one is in an hour
        with delivering(redis, queue_retention_days=0.01) as records:
            wait_until(records.undelivered)
            assert [one.id for one in records.undelivered()] == [job_id]


def test_a_replayed_job_is_told_of_its_new_end(redis: Redis, start_worker: Start, tmp_path: Path) -> None:
    start_worker(**SETTINGS)
    with receiving() as receiver:
        job = diarize.delay("http://stand.in/fail/recording_undecodable/1", webhook=receiver.url)
        wait_until(lambda: told(job) and record(job).answered)
        run_cli("dead", "replay", job.id)
        wait_until(lambda: record(job).state is State.DONE and told(job))
        assert receiver.ids == [f"{job.id}.0", f"{job.id}.1"]
        assert [event["state"] for event in receiver.events()] == ["dead", "done"]


def test_an_end_that_comes_while_its_replay_is_looked_at_is_told(redis: Redis) -> None:
    class ReplayedMeanwhile(Records):
        def get(self, job_id: str) -> JobRecord | None:
            before = record(job_id)
            if before.history:
                return super().get(job_id)
            self.answered(job_id, before.taken_number or 0)
            assert self.replay(before, before.ticket) == "due"
            seen = super().get(job_id)
            die(job_id)
            return seen

    with receiving() as receiver:
        (job_id,) = ended(receiver.url)
        with delivering(redis, ReplayedMeanwhile):
            wait_until(lambda: told(job_id))
        assert receiver.ids == [f"{job_id}.1"]


def test_without_a_secret_it_waits_for_one(redis: Redis, start_worker: Start) -> None:
    worker = start_worker()
    with receiving() as receiver:
        job = diarize.delay("http://stand.in/turns/5/2", webhook=receiver.url)
        wait_until(lambda: "webhooks wait, and cannot be signed: set WEBHOOK_SECRET" in worker.log)
        assert receiver.came == []
        start_worker(WEBHOOK_SECRET_OLD=OLD_SECRET, **SETTINGS)
        wait_until(lambda: told(job))
        assert receiver.events(OLD_SECRET) == receiver.events(SECRET)


def test_inner_addresses_are_not_told_unless_they_are_allowed(redis: Redis, start_worker: Start) -> None:
    """That recordings may be fetched from there says nothing of webhooks."""
    worker = start_worker(WEBHOOK_SECRET=SECRET)
    with receiving() as receiver:
        job = diarize.delay("http://stand.in/turns/5/2", webhook=receiver.url)
        wait_until(lambda: f"job {job.id}: its webhook is given up: 127.0.0.1 is not a public address" in worker.log)
        assert receiver.came == []
        assert job.get(timeout=10)


def test_jobs_of_one_idempotency_key_tell_each_receiver(redis: Redis, start_worker: Start) -> None:
    with receiving() as receiver:
        options = {"idempotency_key": "k", "webhook": receiver.url}
        jobs = [diarize.delay("http://stand.in/turns/5/2", **options) for _ in range(2)]
        plain = diarize.delay("http://stand.in/turns/5/2", idempotency_key="k")
        assert len({job.id for job in jobs}) == 2
        assert plain.id == jobs[0].id
        start_worker(**SETTINGS)
        wait_until(lambda: all(map(told, jobs)))
        assert sorted(event["job_id"] for event in receiver.events()) == sorted(job.id for job in jobs)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"webhook": "ftp://example.com/"}, "webhook: scheme 'ftp'"),
        ({"webhook": "file:///etc/passwd"}, "webhook: must be an http or https URL"),
        ({"webhook": "bundled:canary"}, "webhook: must be an http or https URL"),
        ({"webhook": "https://user:CANARY@example.com/"}, "webhook: must be an http or https URL without a user"),
        ({"webhook": "https://"}, "webhook: the URL names no host"),
        ({"webhook": ""}, "webhook: a recording's URL must be"),
        ({"webhook_result": True}, "webhook_result: there is no webhook="),
    ],
)
def test_what_can_never_be_told_is_refused_at_once(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidJob, match=says) as refused:
        diarize.delay("http://stand.in/turns/5/2", **options)
    assert "CANARY" not in str(refused.value)


def test_a_secret_that_is_none_is_refused_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEBHOOK_SECRET", "hunter2hunter2")
    with pytest.raises(SettingsError, match="WEBHOOK_SECRET: must be whsec_") as refused:
        read_settings()
    assert "hunter2" not in str(refused.value)
