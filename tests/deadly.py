"""A stand-in whose worker dies between the end of the work and the ack: `DIARIZATION_DIARIZER=tests.deadly:load`.

`DEADLY_AT` names the point, `DEADLY_WHO` who is killed there by SIGKILL, once: the pool `child`, or the worker (`main`,
which takes its children along).

    ran         the work is done, nothing is written
    recorded    the record says how the job ended, Celery knows nothing
    called      callbacks and the chain's next step are published
    stored      Celery has stored the result
    counted     the chord has counted it
    answered    all is done but the ack

At the point `ack` the worker's main process is killed just before it acknowledges: `celery worker -I tests.deadly`.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diarization.diarizer import DiarizerOptions
from tests.standin import StandIn
from tests.standin import load as load_standin

POINTS = ("ran", "recorded", "called", "stored", "counted", "answered")


def load(options: DiarizerOptions) -> StandIn:
    """What DIARIZATION_DIARIZER names; in a pool child."""
    from tasks.answer import AnsweringTask
    from tasks.backend import WaitingBackend
    from tasks.records import Records

    point = os.environ["DEADLY_AT"]
    pid = {"child": os.getpid(), "main": os.getppid()}[os.environ["DEADLY_WHO"]]
    owners: dict[str, tuple[Any, str]] = {
        "ran": (StandIn, "diarize"),
        "recorded": (Records, "finish" if os.environ.get("DEADLY_END", "done") == "done" else "give_up"),
        "called": (AnsweringTask, "answer"),
        "stored": (WaitingBackend, "_set_with_state"),
        "counted": (WaitingBackend, "on_chord_part_return"),
        "answered": (Records, "answered"),
    }
    owner, name = owners[point]
    _die_after(owner, name, pid, ended_only=point == "stored")
    return load_standin(options)


def _die_after(owner: Any, name: str, pid: int, *, ended_only: bool = False) -> None:
    original: Callable[..., Any] = getattr(owner, name)

    def deadly(*args: Any, **options: Any) -> Any:
        result = original(*args, **options)
        if not (ended_only and args[3] not in ("SUCCESS", "FAILURE")):
            _die_once(pid)
        return result

    setattr(owner, name, deadly)


def _die_once(pid: int) -> None:
    died = Path(os.environ["STANDIN_DIR"]) / "died"
    if died.exists():
        return
    died.touch()
    os.kill(pid, signal.SIGKILL)
    signal.pause()  # until this process is gone, too


if os.environ.get("DEADLY_AT") == "ack":
    from tasks.delivered import DeliveredJob

    acknowledge = DeliveredJob.acknowledge

    def _die_before_ack(self: DeliveredJob) -> None:
        _die_once(os.getpid())
        acknowledge(self)

    DeliveredJob.acknowledge = _die_before_ack  # type: ignore[method-assign]


def load_slow_publisher(options: DiarizerOptions) -> StandIn:
    """One that dies of nothing, but waits before it publishes a task of ours, until `publish` stands in STANDIN_DIR."""
    from tasks.producer import SubmittedTask

    publish, folder = SubmittedTask.apply_async, Path(os.environ["STANDIN_DIR"])

    def slow(*args: Any, **kwargs: Any) -> Any:
        (folder / "publishing").touch()
        while not (folder / "publish").exists():
            time.sleep(0.05)
        return publish(*args, **kwargs)

    SubmittedTask.apply_async = slow  # type: ignore[method-assign]
    return load_standin(options)
