"""The pulse: who is silent for too long, and how long that is."""

from __future__ import annotations

import multiprocessing
import os
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from diarization.memory import needed_bytes
from tasks import pulse as pulse_module
from tasks.pulse import QUIET_SHARE, Pulse, stalled
from tests.processes import wait_until


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(pulse_module, "time", type("Time", (), {"monotonic": clock}))
    return clock


def silence_allowed(folder: Path, clock: Clock) -> float:
    """For how many seconds from now the child may be silent."""
    began = clock.now
    while not stalled(folder):
        clock.now += 0.5
    allowed, clock.now = clock.now - began - 0.5, began
    return allowed


def test_a_child_without_a_job_never_hangs(tmp_path: Path, clock: Clock) -> None:
    pulse = Pulse(tmp_path, stall_seconds=10, download_stall_seconds=5)
    clock.now += 1e6
    assert stalled(tmp_path) == []
    with pulse.of("job"):
        pass
    clock.now += 1e6
    assert stalled(tmp_path) == []


def test_a_silent_child_is_named_with_its_job_and_stage(tmp_path: Path, clock: Clock) -> None:
    pulse = Pulse(tmp_path, stall_seconds=10, download_stall_seconds=5)
    with pulse.of("job-1"):
        pulse("segmentation", 1, 10)
        clock.now += 11
        (stall,) = stalled(tmp_path)
    assert (stall.pid, stall.job_id, stall.stage) == (os.getpid(), "job-1", "segmentation")
    assert stall.silent_seconds == pytest.approx(11)


def test_each_report_is_a_sign_of_life(tmp_path: Path, clock: Clock) -> None:
    pulse = Pulse(tmp_path, stall_seconds=10, download_stall_seconds=5)
    with pulse.of("job"):
        for done in range(100):
            clock.now += 9
            assert stalled(tmp_path) == []
            pulse("segmentation", done, 100)


def test_the_allowance_grows_with_the_recording_and_with_a_slow_server(tmp_path: Path, clock: Clock) -> None:
    pulse = Pulse(tmp_path, stall_seconds=10, download_stall_seconds=5)
    with pulse.of("job"):
        pulse("download", 1, 2)
        assert silence_allowed(tmp_path, clock) == 15
        pulse("decode", 600, 3600)
        assert silence_allowed(tmp_path, clock) == 10 + 600 * QUIET_SHARE
        pulse("decode", 3600, 3600)
        pulse("clustering", 0, 1)
        assert silence_allowed(tmp_path, clock) == 10 + 3600 * QUIET_SHARE
    with pulse.of("next job"):
        assert silence_allowed(tmp_path, clock) == 10, "the recording before is forgotten"


def test_a_file_that_is_being_made_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "77.pulse").touch()
    assert stalled(tmp_path) == []


def test_the_file_never_grows(tmp_path: Path) -> None:
    """On a full disk what has been written once can be written again."""
    pulse = Pulse(tmp_path, stall_seconds=10, download_stall_seconds=5)
    file = tmp_path / f"{os.getpid()}.pulse"
    size = file.stat().st_size
    with pulse.of("j" * 200):
        pulse("segmentation", 10**9, 10**9)
        assert file.stat().st_size == size
        assert stalled(tmp_path) == []


def rest(folder: Path, wakes: Event) -> None:
    """Another child, at a job of two hours."""
    pulse = Pulse(folder, stall_seconds=10, download_stall_seconds=5)
    with pulse.of("job"):
        pulse("decode", 7200, 7200)
        (folder / "decoded").touch()
        wakes.wait()
    (folder / "ended").touch()
    time.sleep(600)


def test_the_memory_of_another_childs_job_is_claimed_until_it_ends(tmp_path: Path) -> None:
    own = Pulse(tmp_path, stall_seconds=10, download_stall_seconds=5)
    (tmp_path / "1.pulse").touch()  # one that is just being made
    context = multiprocessing.get_context("spawn")
    wakes = context.Event()
    other = context.Process(target=rest, args=(tmp_path, wakes))
    with own.of("own job"):
        own("decode", 36_000, 36_000)
        assert own.claims() == []
        other.start()
        wait_until((tmp_path / "decoded").exists)
        assert own.claims() == [pytest.approx(needed_bytes(7200), rel=0.05)]
        wakes.set()
        wait_until((tmp_path / "ended").exists)
        assert own.claims() == []
    other.kill()
    other.join()


def test_a_child_that_was_killed_claims_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    never = context.Event()
    other = context.Process(target=rest, args=(tmp_path, never))
    other.start()
    wait_until((tmp_path / "decoded").exists)
    own = Pulse(tmp_path, stall_seconds=10, download_stall_seconds=5)
    assert len(own.claims()) == 1
    other.kill()
    other.join()
    assert own.claims() == []
    Pulse(tmp_path, stall_seconds=10, download_stall_seconds=5)
    assert [path.stem for path in tmp_path.glob("*.pulse")] == [str(os.getpid())], "its pid may be another's by now"
