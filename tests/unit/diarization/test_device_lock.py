"""One process at a time in a block, whoever dies or gives up waiting."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from diarization.device_lock import DeviceLock
from diarization.errors import Cancelled


def hold(path: Path, holds: Event, ends: Event) -> None:
    with DeviceLock(path).held(lambda: None):
        holds.set()
        ends.wait()


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[tuple[multiprocessing.process.BaseProcess, Event]]:
    """Another process that holds the lock, and what lets it end."""
    context = multiprocessing.get_context("spawn")
    holds, ends = context.Event(), context.Event()
    process = context.Process(target=hold, args=(tmp_path / "lock", holds, ends))
    process.start()
    assert holds.wait(60)
    yield process, ends
    process.kill()
    process.join()


def calls(then: Callable[[], None]) -> tuple[list[int], Callable[[], None]]:
    """A list that grows with each call of the function; at the second, it does what is to happen then."""
    seen: list[int] = []

    def waits() -> None:
        seen.append(len(seen))
        if len(seen) == 2:
            then()

    return seen, waits


def test_who_waits_is_told_so_and_comes_next(
    tmp_path: Path, holder: tuple[multiprocessing.process.BaseProcess, Event]
) -> None:
    process, ends = holder
    seen, waits = calls(ends.set)
    with DeviceLock(tmp_path / "lock").held(waits):
        assert len(seen) >= 2
        process.join(60)
        assert process.exitcode == 0


def test_a_process_that_is_killed_leaves_nothing_locked(
    tmp_path: Path, holder: tuple[multiprocessing.process.BaseProcess, Event]
) -> None:
    process, _ = holder
    seen, waits = calls(process.kill)
    with DeviceLock(tmp_path / "lock").held(waits):
        assert len(seen) >= 2


def test_a_wait_ends_by_what_is_raised_in_it(
    tmp_path: Path, holder: tuple[multiprocessing.process.BaseProcess, Event]
) -> None:
    lock, (_, ends) = DeviceLock(tmp_path / "lock"), holder

    def cancel() -> None:
        raise Cancelled("no longer wanted")

    with pytest.raises(Cancelled), lock.held(cancel):
        pytest.fail("the other process holds it")
    ends.set()
    with lock.held(lambda: None), DeviceLock(None).held(cancel):
        pass


def test_a_block_that_fails_lets_the_next_one_in(tmp_path: Path) -> None:
    first, second = DeviceLock(tmp_path / "lock"), DeviceLock(tmp_path / "lock")
    with pytest.raises(RuntimeError), first.held(lambda: None):
        raise RuntimeError
    (tmp_path / "lock").unlink()  # whoever clears the folder
    with second.held(lambda: pytest.fail("nobody holds it")):
        pass
