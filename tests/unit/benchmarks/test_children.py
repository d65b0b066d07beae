"""What a benchmark hears of its processes, the real ones: all that they tell, and at once that one of them has died."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue

import pytest

from benchmarks.children import ChildDied, watched

SPAWN = multiprocessing.get_context("spawn")
LONG_SECONDS = 600


def tell(told: Queue[int], *numbers: int) -> None:
    for number in numbers:
        told.put(number)


def fail(_: Queue[int]) -> None:
    os._exit(3)  # quietly


def be_killed(_: Queue[int]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hang(_: Queue[int]) -> None:
    time.sleep(LONG_SECONDS)


def children(told: Queue[int], *targets: Callable[..., None]) -> list[BaseProcess]:
    return [SPAWN.Process(target=target, args=(told,), daemon=True) for target in targets]


def test_all_that_they_tell_is_heard_and_they_end_by_themselves() -> None:
    told: Queue[int] = SPAWN.Queue()
    both = [SPAWN.Process(target=tell, args=(told, *numbers), daemon=True) for numbers in ((1, 2), (3,))]
    with watched(both, told) as heard:
        assert sorted(heard() for _ in range(3)) == [1, 2, 3]
    assert [child.exitcode for child in both] == [0, 0]


@pytest.mark.parametrize(("dies", "code"), [(fail, 3), (be_killed, -signal.SIGKILL)])
def test_one_that_dies_is_named_and_the_others_are_ended(dies: Callable[..., None], code: int) -> None:
    told: Queue[int] = SPAWN.Queue()
    both = children(told, hang, dies)
    began = time.monotonic()
    with pytest.raises(ChildDied, match=f"^process 2 of 2 died with exit code {code}$"), watched(both, told) as heard:
        heard()
    assert time.monotonic() - began < 30
    assert both[0].exitcode == -signal.SIGTERM


def test_none_outlives_a_block_that_fails() -> None:
    told: Queue[int] = SPAWN.Queue()
    (child,) = children(told, hang)
    with pytest.raises(KeyboardInterrupt), watched([child], told):
        raise KeyboardInterrupt
    assert child.exitcode == -signal.SIGTERM
