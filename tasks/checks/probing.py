"""Looks that are worth a process of their own: they import what is large, or may hang."""

from __future__ import annotations

import atexit
import json
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

MODEL_LIBRARIES = ("torch", "torchaudio", "pyannote.audio")


_running: set[subprocess.Popen[str]] = set()


class ProbeFailed(Exception):
    """The process gave no answer. The message says how it ended."""


def probe(question: str, options: Mapping[str, Any], timeout_seconds: float) -> dict[str, Any]:
    """Ask `diarization.probe`.

    Raises:
        ProbeFailed: It died, hung, or said something else.
    """
    return ask_process(("-m", "diarization.probe", question), json.dumps(options), timeout_seconds)


def ask_process(arguments: tuple[str, ...], given: str, timeout_seconds: float) -> dict[str, Any]:
    """The JSON object that a Python of this environment prints.

    Raises:
        ProbeFailed: See `probe`.
    """
    command, pipe = [sys.executable, *arguments], subprocess.PIPE
    with subprocess.Popen(command, text=True, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        _running.add(process)
        try:
            told, complaints = process.communicate(given, timeout_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            raise ProbeFailed(f"no answer within {timeout_seconds:.0f} s") from None
        finally:
            _running.discard(process)
    if process.returncode:
        last = complaints.strip().splitlines()[-1:] or ["nothing"]
        raise ProbeFailed(f"it ended with {process.returncode} and said: {last[0]}")
    answer = json.loads(told)
    return dict(answer)


@atexit.register
def _end_all() -> None:
    """The threads that wait for them are left behind; they are not."""
    for process in list(_running):
        process.kill()


def missing_libraries() -> list[str]:
    """Which of the model's libraries are not installed; nothing is imported."""
    return [name for name in MODEL_LIBRARIES if not _is_installed(name)]


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # of a package that it is in
        return False
