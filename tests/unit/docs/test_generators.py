"""What the pages are generated from is read rightly."""

from __future__ import annotations

import pytest
from pydantic import Field
from pydantic.fields import FieldInfo

from diarization.errors import InvalidJob, QueueUnavailable, RecordingTooLong, WorkerTooOld
from docs.generators.errors import raised_in, who_runs
from docs.generators.markdown import filled, table
from docs.generators.settings import bounds

PAGE = "# Page\n\n<!-- one: make docs -->\nold\n<!-- end -->\n\ntext\n\n<!-- two: make docs -->\n<!-- end -->\n"


def test_what_is_generated_stands_between_its_marks_and_nothing_else_changes() -> None:
    once = filled(filled(PAGE, "one", r"new \1"), "two", "more")
    assert once == PAGE.replace("old", r"new \1").replace("two: make docs -->\n", "two: make docs -->\nmore\n")
    assert filled(once, "two", "more") == once


@pytest.mark.parametrize("page", ["# Page\n", PAGE + PAGE])
def test_a_page_that_has_lost_its_mark_or_has_it_twice_is_an_error(page: str) -> None:
    with pytest.raises(ValueError, match="one: make docs"):
        filled(page, "one", "new")


def test_no_cell_breaks_its_table() -> None:
    assert table(("a", "b"), [("x | y", "two\nlines")]) == "| a | b |\n|---|---|\n| x &#124; y | two lines |"


@pytest.mark.parametrize(
    ("field", "says"),
    [
        (Field(ge=2, le=3600), "2 to 3,600"),
        (Field(gt=0, le=0.5), "above 0, up to 0.5"),
        (Field(ge=1), "1 or more"),
        (Field(le=9), "up to 9"),
        (Field(max_length=64), "up to 64 characters"),
        (Field(pattern="a"), ""),
    ],
)
def test_bounds_in_words(field: FieldInfo, says: str) -> None:
    assert bounds(field) == says


def test_who_raises_an_error_is_found_in_the_source() -> None:
    places = raised_in()
    assert places["RecordingTooLong"] == {"diarization.decode"}
    assert {who_runs(module, QueueUnavailable) for module in places["QueueUnavailable"]} == {"submit", "worker"}
    assert who_runs("diarization.decode", RecordingTooLong) == "worker"
    assert who_runs("tasks.job", InvalidJob) == "submit"
    assert who_runs("tasks.job", WorkerTooOld) == "worker", "there is no job yet that could be tried again"
    assert who_runs("tasks.runpod.run", QueueUnavailable) == "bridge"
    assert who_runs("tasks.commands.webhooks", InvalidJob) == "commands"
