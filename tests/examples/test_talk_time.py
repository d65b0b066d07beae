"""examples/talk_time.py: what it counts, against hand-made meetings and against counting millisecond by millisecond."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import pytest

from diarization.turns import Turn
from examples.talk_time import interruptions, overlapped_seconds, talk_times
from tasks.diarize import diarize
from tests.examples.conftest import run_example
from tests.processes import ROOT, Worker

SAMPLE = str(ROOT / "docs" / "sample.result.json")


def turns(*rows: tuple[float, float, str]) -> list[Turn]:
    return [Turn(start=start, end=end, speaker=speaker) for start, end, speaker in rows]


@pytest.mark.parametrize(
    ("meeting", "expected"),
    [
        pytest.param([(0, 5, "A"), (5, 9, "B")], {}, id="one after the other"),
        pytest.param([(0, 5, "A"), (4, 9, "B")], {("B", "A"): 1}, id="B cuts in and goes on"),
        pytest.param([(0, 5, "A"), (2, 3, "B")], {}, id="B says mm-hm"),
        pytest.param([(0, 5, "A"), (4.9, 9, "B")], {}, id="B is a little early"),
        pytest.param([(0, 5, "A"), (4.75, 9, "B")], {("B", "A"): 1}, id="B is early"),
        pytest.param([(0, 5, "A"), (0, 9, "B")], {}, id="both begin at once"),
        pytest.param([(0, 5, "A"), (4, 5, "B")], {}, id="both end at once"),
        pytest.param([(0, 5, "A"), (4, 9, "A")], {}, id="nobody interrupts themselves"),
        pytest.param(
            [(0, 5, "A"), (1, 6, "B"), (4, 9, "C")], {("B", "A"): 1, ("C", "A"): 1, ("C", "B"): 1}, id="three at once"
        ),
        pytest.param([(0, 5, "A"), (4, 9, "B"), (8, 12, "A")], {("B", "A"): 1, ("A", "B"): 1}, id="and back"),
    ],
)
def test_interruptions(meeting: list[tuple[float, float, str]], expected: dict[tuple[str, str], int]) -> None:
    assert interruptions(turns(*meeting)) == Counter(expected)


def test_of_each_speaker() -> None:
    longest, other = talk_times(turns((0, 4, "A"), (3, 5, "B"), (6, 7, "A")))
    assert (longest.speaker, longest.seconds, longest.share, longest.turns) == ("A", 5, 0.7143, 2)
    assert (longest.longest_turn_seconds, longest.overlapped_seconds) == (4, 1)
    assert (longest.interrupts, longest.interrupted, other.interrupts, other.interrupted) == (0, 1, 1, 0)
    assert talk_times([]) == []


@pytest.mark.parametrize("seed", range(20))
def test_overlapped_seconds_are_those_counted_one_by_one(seed: int) -> None:
    rng = random.Random(seed)
    meeting = []
    for speaker in "ABCD":
        edges = sorted(rng.sample(range(200), 12))
        meeting += [(start, end, speaker) for start, end in list(pairwise(edges))[::2]]
    counted: Counter[str] = Counter()
    for second in range(200):
        at_once = {speaker for start, end, speaker in meeting if start <= second < end}
        counted.update(at_once if len(at_once) > 1 else ())
    found = overlapped_seconds(turns(*meeting))
    assert {speaker: found[speaker] for speaker in "ABCD"} == {speaker: counted[speaker] for speaker in "ABCD"}


def test_the_command_on_a_file() -> None:
    told = json.loads(run_example("talk_time.py", SAMPLE, "--json").stdout)
    recorded = json.loads((ROOT / "docs" / "sample.result.json").read_text())
    for one in told["speakers"]:
        known = next(speaker for speaker in recorded["speakers"] if speaker["speaker"] == one["speaker"])
        assert one["seconds"] == pytest.approx(known["total_seconds"], abs=0.01)
    assert sum(one["share"] for one in told["speakers"]) == pytest.approx(1, abs=0.001)
    table = run_example("talk_time.py", "-", given=(ROOT / "docs" / "sample.result.json").read_text()).stdout
    assert "SPEAKER_00 interrupts SPEAKER_01" in table


def test_the_command_on_a_job(redis: object, start_worker: Callable[..., Worker]) -> None:
    job = diarize.delay("http://stand.in/turns/60/3")
    assert "that job is queued" in run_example("talk_time.py", job.id, code=1).stderr
    start_worker()
    job.get(timeout=30)
    assert len(json.loads(run_example("talk_time.py", job.id, "--json").stdout)["speakers"]) == 3


def test_what_is_neither_a_file_nor_a_job_is_told(redis: object) -> None:
    assert "no job either" in run_example("talk_time.py", "nothing", code=1).stderr
