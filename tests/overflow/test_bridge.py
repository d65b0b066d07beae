"""The bridge between a real worker and an emulated RunPod: submitted once, found again, settled, cancelled."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis

from diarization.errors import OverflowRejected, RecordingNotFound, UrlNotAllowed
from tasks.diarize import diarize
from tasks.record import State
from tasks.runpod_bridge import diarize_on_runpod
from tests.bridge import emulated, ledger, start_bridge
from tests.emulator import Emulator, Fault
from tests.jobs import record
from tests.processes import Worker, wait_until

Start = Callable[..., Worker]


@pytest.fixture
def emulator(tmp_path: Path) -> Iterator[Emulator]:
    with emulated(tmp_path) as running:
        yield running


def submissions(emulator: Emulator) -> int:
    return len(emulator.submissions)


def test_a_pinned_job_is_done_by_runpod(redis: Redis, start_worker: Start, emulator: Emulator) -> None:
    start_bridge(start_worker, emulator)
    job = diarize_on_runpod.delay("http://stand.in/turns/60/3?signature=CANARY", num_speakers=3, headers={"X-Key": "k"})
    result = job.get(timeout=60)
    assert len(result["speakers"]) == 3
    provenance = result["provenance"]
    assert (provenance["provider"], provenance["attempts"]) == ("runpod", 1)
    assert emulator.submissions[0].input == {
        "task": "diarization",
        "audio_url": "http://stand.in/turns/60/3?signature=CANARY",
        "num_speakers": 3,
        "headers": {"X-Key": "k"},
    }
    today = ledger(redis).today()
    assert (today.in_flight, today.reserved_usd) == (0, 0.0)
    assert today.spent_usd == pytest.approx(provenance["cost_usd"])
    assert 0 < provenance["cost_usd"] < 0.1
    assert record(job).remote is None


def test_an_error_of_the_recording_ends_the_job(redis: Redis, start_worker: Start, emulator: Emulator) -> None:
    start_bridge(start_worker, emulator)
    job = diarize_on_runpod.delay("http://stand.in/fail/recording_not_found")
    with pytest.raises(RecordingNotFound):
        job.get(timeout=60)
    assert submissions(emulator) == 1
    assert ledger(redis).today().in_flight == 0


def test_a_recording_that_runpod_cannot_fetch_is_refused_at_once() -> None:
    for url in ("http://10.0.0.1/a.wav", "file:///a.wav", "http://recorder.local/a.wav"):
        with pytest.raises(UrlNotAllowed, match="RunPod cannot fetch"):
            diarize_on_runpod.delay(url)


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_a_bridge_that_ends_leaves_its_run_to_the_next(
    redis: Redis, start_worker: Start, emulator: Emulator, tmp_path: Path, how: str
) -> None:
    first = start_bridge(start_worker, emulator, QUEUE_LEASE_SECONDS=3)
    job = diarize_on_runpod.delay("http://stand.in/wait/go")
    wait_until(lambda: record(job).remote is not None and record(job).stage == "at runpod")
    if how == "killed":
        first.process.send_signal(signal.SIGKILL)
        first.process.wait()
    else:
        assert first.stop() == 0
    second = start_bridge(start_worker, emulator, QUEUE_LEASE_SECONDS=3)
    wait_until(lambda: f"job {job.id} is found again as run" in second.log)
    (tmp_path / "go").touch()
    assert job.get(timeout=60)["provenance"]["attempts"] == 1
    assert submissions(emulator) == 1
    assert ledger(redis).today().in_flight == 0


def test_a_cancel_stops_the_run(redis: Redis, start_worker: Start, emulator: Emulator) -> None:
    bridge = start_bridge(start_worker, emulator)
    job = diarize_on_runpod.delay("http://stand.in/wait/go")
    wait_until(lambda: record(job).stage == "at runpod")
    job.revoke()
    wait_until(lambda: record(job).state is State.CANCELLED)
    (run,) = emulator.jobs.values()
    assert run.status == "CANCELLED"
    today = ledger(redis).today()
    assert (today.in_flight, today.reserved_usd) == (0, 0.0)
    assert today.spent_usd > 0
    assert f"job {job.id} cancelled" in bridge.log


def test_a_cancel_while_no_bridge_is_up_stops_the_run(redis: Redis, start_worker: Start, emulator: Emulator) -> None:
    first = start_bridge(start_worker, emulator)
    job = diarize_on_runpod.delay("http://stand.in/wait/go")
    wait_until(lambda: record(job).stage == "at runpod")
    assert first.stop() == 0
    assert record(job).state in (State.DUE, State.QUEUED), "it waits; the bridge may have issued it on its way out"
    job.revoke()
    assert not record(job).state.ended, "it runs at RunPod, who has to be told"
    start_bridge(start_worker, emulator)
    wait_until(lambda: record(job).state is State.CANCELLED)
    (run,) = emulator.jobs.values()
    assert run.status == "CANCELLED"


@pytest.mark.parametrize("what", ["reset-after", "html", "truncate"])
def test_an_unknown_outcome_is_never_submitted_again(
    redis: Redis, start_worker: Start, emulator: Emulator, what: str
) -> None:
    """Without a GPU of our own the job waits until the run is over for certain."""
    emulator.script(Fault("run", what))  # type: ignore[arg-type]
    bridge = start_bridge(start_worker, emulator)
    job = diarize.apply_async(("http://stand.in/turns/5/1",), {"provider": "runpod"})
    wait_until(lambda: "nobody can know whether RunPod has the job" in bridge.log)
    wait_until(lambda: record(job).state is State.DUE)
    waiting = record(job)
    assert waiting.due_at is not None
    assert waiting.due_at - waiting.submitted_at > 1800
    today = ledger(redis).today()
    assert (today.in_flight, today.spent_usd) == (0, pytest.approx(waiting.cost_usd))
    assert today.spent_usd > 0.1, "all that was reserved"
    assert submissions(emulator) <= 1


def test_no_budget_is_said_and_waited_for(redis: Redis, start_worker: Start, emulator: Emulator) -> None:
    start_bridge(start_worker, emulator, OVERFLOW_BUDGET_USD_PER_DAY=0.01)
    job = diarize_on_runpod.delay("http://stand.in/turns/5/1")
    wait_until(lambda: (record(job).last_error or {}).get("code") == "overflow_closed")
    assert "today's budget" in (record(job).last_error or {})["message"]
    assert (record(job).state, record(job).attempts) == (State.DUE, 0)
    assert submissions(emulator) == 0


def test_past_its_deadline_a_pinned_job_is_a_dead_letter(redis: Redis, start_worker: Start, emulator: Emulator) -> None:
    start_bridge(start_worker, emulator, OVERFLOW_BUDGET_USD_PER_DAY=0)
    job = diarize_on_runpod.delay("http://stand.in/turns/5/1", deadline_seconds=1)
    with pytest.raises(OverflowRejected, match="deadline is over"):
        job.get(timeout=60)


@pytest.mark.parametrize(
    ("settings", "cure"),
    [
        ({"RUNPOD_API_KEY": "wrong"}, "check RUNPOD_API_KEY"),
        ({"RUNPOD_ENDPOINT_ID": "another"}, "check RUNPOD_ENDPOINT_ID and RUNPOD_ENDPOINT_BASE_URL"),
    ],
)
def test_a_wrong_key_or_endpoint_opens_the_breaker_with_one_alarm(
    redis: Redis, start_worker: Start, emulator: Emulator, settings: dict[str, str], cure: str
) -> None:
    bridge = start_bridge(start_worker, emulator, **settings)
    jobs = [diarize_on_runpod.delay(f"http://stand.in/turns/{n}/1") for n in range(5, 9)]
    wait_until(lambda: all((record(job).last_error or {}).get("code") == "overflow_unavailable" for job in jobs))
    assert sum("RunPod gets no jobs" in line and cure in line for line in bridge.log.splitlines()) == 1
    assert emulator.requests["run"] <= 3, "those that were under way at once"
    today = ledger(redis).today()
    assert (today.in_flight, today.spent_usd) == (0, 0.0)
