"""The guide to RunPod says the same in both languages, and its examples and sums are right."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from diarization.errors import from_code
from diarization.turns import Diarization
from runpod_worker.contract import read_input
from tasks.overflow.price import Price
from tasks.settings import Settings
from tests.pages import DOCS, code_blocks

ENGLISH, FRENCH = "runpod.md", "fr/runpod.md"
FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
HEADING = re.compile(r"^(#+) (.+)$", re.MULTILINE)
CODE, LINK = re.compile(r"`[^`\n]+`"), re.compile(r"\]\(([^)#]*)")


def prose(page: str) -> str:
    """The page without its blocks of code."""
    return FENCE.sub("", (DOCS / page).read_text())


def tables(page: str) -> list[list[list[str]]]:
    """The cells of each table, by rows; the line below the header is left out."""
    found = re.findall(r"(?:^\|.*\|\n)+", prose(page), re.MULTILINE)
    rows = [[line.strip("|").split("|") for line in table.splitlines()] for table in found]
    return [[[cell.strip() for cell in row] for row in table if not set(row[0]) <= {"-"}] for table in rows]


def blocks(holding: str) -> list[Any]:
    """The JSON blocks that hold this."""
    return [json.loads(block) for block in code_blocks(ENGLISH, "json") if holding in block]


def test_both_have_the_same_headings() -> None:
    assert [len(marks) for marks, _ in HEADING.findall(prose(ENGLISH))] == [
        len(marks) for marks, _ in HEADING.findall(prose(FRENCH))
    ]


def test_both_have_the_same_blocks_of_code() -> None:
    assert code_blocks(ENGLISH) == code_blocks(FRENCH)


def test_both_have_tables_of_the_same_shape() -> None:
    assert [[len(row) for row in table] for table in tables(ENGLISH)] == [
        [len(row) for row in table] for table in tables(FRENCH)
    ]


def test_both_name_the_same_settings_values_and_pages() -> None:
    english, french = prose(ENGLISH), prose(FRENCH)
    assert sorted(CODE.findall(english)) == sorted(CODE.findall(french))
    links = sorted(link.removeprefix("../") for link in LINK.findall(french) if link != "../runpod.md")
    assert links == sorted(link for link in LINK.findall(english) if link != "fr/runpod.md")


def test_both_have_the_same_figures_in_their_tables() -> None:
    def figures(page: str) -> list[list[str]]:
        return [re.findall(r"\d+", " ".join(cell for row in table for cell in row)) for table in tables(page)]

    assert figures(ENGLISH) == figures(FRENCH)


def test_the_example_of_a_request_is_one() -> None:
    (request,) = blocks('"input"')
    assert read_input(request["input"]).num_speakers == 4


def test_the_examples_of_responses_are_such() -> None:
    (completed,) = blocks("COMPLETED")
    diarization = Diarization.from_json(completed["output"])
    assert diarization.speakers
    for speaker in diarization.speakers:
        talks = sum(turn.seconds for turn in diarization.segments if turn.speaker == speaker.speaker)
        assert speaker.total_seconds == pytest.approx(talks)
    (failed,) = blocks("FAILED")
    code, _, message = failed["error"].partition(": ")
    assert from_code(code, message).code == code


def table_below(*heading: str) -> list[list[str]]:
    """The rows of the English page's one table whose header begins so, the header among them."""
    (found,) = (table for table in tables(ENGLISH) if tuple(table[0][: len(heading)]) == heading)
    return found


def test_a_worker_that_never_stops_costs_what_the_table_says() -> None:
    for row in table_below("GPU", "memory", "USD a second")[1:]:
        price = float(row[2])
        assert row[3:] == [f"{price * seconds:.2f}" for seconds in (3600, 86400, 30 * 86400)]


def test_a_meeting_costs_what_the_table_says() -> None:
    prices = {row[0].partition(",")[0]: row[2] for row in table_below("GPU", "memory", "USD a second")}
    header, *rows = table_below("seconds on the GPU")
    for row in rows:
        for heading, usd in zip(header[1:], row[1:], strict=True):
            gpu, kind = heading.split(", ")
            seconds = (120 if kind == "cold" else 0) + float(row[0]) + 5
            assert usd == f"{seconds * float(prices[gpu]):.3f}"


@pytest.mark.parametrize("page", [ENGLISH, "overflow.md"])
def test_what_is_reserved_is_what_the_page_says(page: str) -> None:
    price = Price.of(Settings(_env_file=None))
    for expected, usd in ((3600.0, "0.13"), (None, "0.78")):
        timeout = price.execution_timeout_seconds(price.bound_audio_seconds(expected))
        assert f"{price.bound_usd(timeout):.2f}" == usd
        assert re.search(rf"\b{re.escape(usd)}\b", prose(page))
