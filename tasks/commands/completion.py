"""What the Tab key offers: formats, providers, and the newest jobs.

It must be quick and never get in the way: where Redis does not answer within a second, nothing is offered.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from diarization.errors import QueueUnavailable
from diarization.formats import FORMATS
from tasks.commands.console import recording_name
from tasks.record import State
from tasks.records import Records
from tasks.settings import SettingsError, current_settings

TABLE = "table"
"""The format for people; all others are `diarization.formats.FORMATS`."""
ANSWER_SECONDS = 1.0
OFFERED_JOBS = 50
ANY, ENDED = tuple(State), tuple(state for state in State if state.ended)
GOES_ON = tuple(state for state in State if not state.ended)

Offer = tuple[str, str]
"""A word, and what it is."""

_WORD = re.compile(r"[\w.@+=-]+", re.ASCII)
_UNSAFE = re.compile(r"[^\w .,()-]")


def formats(incomplete: str) -> list[Offer]:
    """For `--format`."""
    known = [*((name, chosen.description) for name, chosen in FORMATS.items()), (TABLE, "for people")]
    return _beginning(known, incomplete)


def providers(incomplete: str) -> list[Offer]:
    """For `--provider`."""
    return _beginning([("local", "on the own GPUs"), ("runpod", "at RunPod")], incomplete)


def jobs_in(states: Iterable[State]) -> Callable[[str], list[Offer]]:
    """For job ids: what offers the newest jobs in one of these states."""
    wanted = tuple(states)

    def jobs(incomplete: str) -> list[Offer]:
        try:
            records = Records(current_settings())
        except SettingsError:
            return []
        return _beginning(_safe(_in_time(lambda: records.names(wanted, OFFERED_JOBS))), incomplete)

    return jobs


def _safe(found: Mapping[str, str]) -> list[Offer]:
    """Shells evaluate what they are offered (zsh does, by `eval`), so nothing that they would obey is in it."""
    named = [(job_id, _UNSAFE.sub("_", recording_name(shown))) for job_id, shown in found.items()]
    return [(job_id, name) for job_id, name in named if _WORD.fullmatch(job_id)]


def _in_time(look: Callable[[], Mapping[str, str]]) -> Mapping[str, str]:
    """What it finds, or nothing: a name server that does not answer has no timeout of ours."""
    found: dict[str, str] = {}

    def run() -> None:
        with suppress(QueueUnavailable):
            found.update(look())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(ANSWER_SECONDS)
    return {} if thread.is_alive() else found


def _beginning(offers: Iterable[Offer], incomplete: str) -> list[Offer]:
    return [(word, means) for word, means in offers if word.startswith(incomplete)]
