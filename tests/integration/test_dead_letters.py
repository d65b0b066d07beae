"""Jobs that were given up are kept with their reason; replayed, they live anew; discarded, they are gone."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from celery import chain, chord
from celery.exceptions import ChordError
from celery.utils import uuid
from redis import Redis

from diarization.errors import InvalidJob, RecordingFetchFailed, RecordingUndecodable
from tasks.dead_letters import replay
from tasks.diarize import diarize
from tasks.record import State
from tests.foreign import count_speakers, note, note_error
from tests.jobs import record
from tests.processes import Worker, run_cli, wait_until


@pytest.fixture(scope="module", autouse=True)
def worker(module_redis: Redis, start_module_worker: Callable[..., Worker]) -> Worker:
    start_module_worker(arguments=("-A", "tests.foreign"), DIARIZATION_DIARIZER="unused:unused")
    return start_module_worker(QUEUE_MAX_ATTEMPTS=2, QUEUE_RETRY_BASE_SECONDS=0.1)


def dead(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    return run_cli("dead", *arguments, code=code)


def give_up(path: str, **options: Any) -> str:
    """A job that dies; its id."""
    job = diarize.apply_async((f"http://stand.in/{path}?sig=CANARY",), **options)
    wait_until(lambda: record(job.id).state is State.DEAD and record(job.id).answered, what="the job is given up")
    return str(job.id)


def test_list_and_show_say_what_happened_and_what_to_do(module_redis: Redis) -> None:
    job_id = give_up("fail/permanent")
    line = next(json.loads(line) for line in dead("list", "--json").stdout.splitlines() if job_id in line)
    assert line["state"] == "dead"
    assert line["error"] == {
        "code": "recording_undecodable",
        "message": "attempt 1 was told to fail",
        "advice": RecordingUndecodable.advice,
    }
    assert line["attempts"] == 1
    assert line["worker"].startswith("w1@test")
    assert line["submitted_at"] <= line["started_at"] <= line["ended_at"]
    shown = dead("show", job_id).stdout
    for part in (job_id, "recording_undecodable", RecordingUndecodable.advice, "http://stand.in/fail/permanent"):
        assert part in shown
    assert job_id in dead("list").stdout
    assert job_id in dead("list", "--code", "recording_undecodable").stdout
    assert job_id not in dead("list", "--code", "device_lost").stdout
    assert "CANARY" not in shown + dead("list").stdout + json.dumps(line)


def test_a_replay_is_a_new_life_with_the_old_history(worker: Worker, module_redis: Redis) -> None:
    """All attempts anew; who waits for the result waits again; its link is called, its errback not once more."""
    key = uuid()
    job_id = give_up(
        f"fail/transient/3/{key}",
        link=note.s(key).set(queue="backend"),
        link_error=note_error.s(key + "-errors").set(queue="backend"),
    )
    first_life = record(job_id)
    assert first_life.attempts == 2
    assert dead("replay", job_id).stdout == f"{job_id} replayed\n"
    result = answer(job_id)
    assert result["provenance"]["attempts"] == 2, "the third try fails, too, and is the first of this life"
    again = record(job_id)
    assert again.state is State.DONE
    assert [life["error"] for life in again.history] == [first_life.error]
    assert again.history[0]["attempts"] == 2
    assert again.history[0]["ended_at"] == first_life.ended_at
    wait_until(lambda: module_redis.llen(key) == 1)
    assert module_redis.llen(key + "-errors") == 1


def answer(job_id: str) -> Any:
    """The result after a replay; not by `get`, as this process may still hold the message of the failure before."""
    wait_until(lambda: record(job_id).state is State.DONE and record(job_id).answered)
    result = diarize.AsyncResult(job_id)
    assert result.state == "SUCCESS"
    return result.result


def test_a_job_may_die_again_and_be_replayed_again() -> None:
    job_id = give_up("fail/permanent/2")
    replay(diarize, record(job_id))
    wait_until(lambda: record(job_id).state is State.DEAD and record(job_id).answered)
    with pytest.raises(RecordingUndecodable):
        diarize.AsyncResult(job_id).get(timeout=5)
    replay(diarize, record(job_id))
    assert answer(job_id)["segments"]
    assert len(record(job_id).history) == 2
    assert "2 attempts" not in (shown := run_cli("status", job_id).stdout)
    assert shown.count("1 attempts: recording_undecodable") == 2


def test_a_replay_does_not_count_in_the_old_chord(module_redis: Redis) -> None:
    member_id, key = uuid(), uuid()
    header = [
        diarize.s("http://stand.in/turns/5/1"),
        diarize.s(f"http://stand.in/fail/permanent/1/{member_id}").set(task_id=member_id),
    ]
    body = chord(header)(note.s(key).set(queue="backend"))
    wait_until(lambda: body.state == "FAILURE")
    assert isinstance(body.result, ChordError)
    wait_until(lambda: record(member_id).answered)
    replay(diarize, record(member_id))
    wait_until(lambda: record(member_id).state is State.DONE and record(member_id).answered)
    assert diarize.AsyncResult(member_id).state == "SUCCESS"
    assert not {"chord", "group_id", "group_index"} & record(member_id).ticket["options"].keys()
    assert body.state == "FAILURE"
    assert module_redis.llen(key) == 0


def test_a_replayed_step_goes_on_with_its_chain() -> None:
    url = f"http://stand.in/fail/permanent/1/{uuid()}"
    steps = chain(diarize.s(url), count_speakers.s().set(queue="backend")).apply_async()
    step_id = steps.parent.id
    wait_until(lambda: steps.state == "FAILURE" and record(step_id).answered)
    replay(diarize, record(step_id))
    assert diarize.AsyncResult(steps.id).get(timeout=20) == 2


def test_replay_and_discard_of_some_and_of_all(module_redis: Redis) -> None:
    module_redis.flushall()
    once = [give_up(f"fail/permanent/1/{uuid()}") for _ in range(2)]
    other = give_up("fail/disk_full")
    assert set(dead("replay", "--all", "--code", "recording_undecodable").stdout.split()) == {*once, "replayed"}
    for job_id in once:
        answer(job_id)
    assert record(other).state is State.DEAD
    assert "give job ids, or --all" in dead("discard", code=2).stderr
    assert "give job ids, or --all" in dead("discard", other, "--all", "--yes", code=2).stderr
    assert not dead("discard", "--all", code=1).stdout.strip(), "it asks first, and nobody says yes"
    assert dead("discard", "--all", "--yes").stdout == f"{other} discarded\n"
    assert diarize.records.get(other) is None
    assert dead("list").stdout == "no dead letters\n"
    assert "there are none" in dead("replay", "--all").stderr
    keys = " ".join(module_redis.scan_iter("*"))
    assert other not in keys, "nothing of it is left"


def test_what_is_no_dead_letter_is_refused() -> None:
    job = diarize.delay("http://stand.in/turns/5/1")
    job.get(timeout=20)
    for command in ("show", "replay", "discard"):
        assert f"job {job.id} is no dead letter: done" in dead(command, job.id, code=2).stderr
        assert "there is no such job" in dead(command, "no-such-job", code=2).stderr
    refused = chain(diarize.s("http://stand.in/turns/5/1"), diarize.si("ftp://stand.in/x")).apply_async()
    wait_until(lambda: diarize.records.get(refused.id) is not None and record(refused.id).answered)
    with pytest.raises(InvalidJob, match="it was refused as it was submitted"):
        replay(diarize, record(refused.id))


def test_a_dead_letter_is_kept_for_its_retention(module_redis: Redis) -> None:
    job_id = give_up("fail/permanent/9")
    assert 6.9 * 86400 < module_redis.ttl(f"diarize:job:{job_id}") <= 7 * 86400
    replay(diarize, record(job_id))
    wait_until(lambda: record(job_id).state is State.DEAD and record(job_id).history)
    assert 6.9 * 86400 < module_redis.ttl(f"diarize:job:{job_id}") <= 7 * 86400


def test_attempts_that_failed_are_named(tmp_path: Path) -> None:
    job_id = give_up("fail/transient")
    assert record(job_id).last_error == {
        "code": "recording_fetch_failed",
        "message": "attempt 1 was told to fail",
        "advice": RecordingFetchFailed.advice,
    }
    assert "attempt 2 was told to fail" in (shown := dead("show", job_id).stdout)
    assert "attempt 1 was told to fail" in shown
