"""The schema of a result: what it lets through, and what not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from diarization.turns import Diarization, Provenance, Speaker
from docs.generators.results import SAMPLE, schema


@pytest.fixture
def sample() -> dict[str, Any]:
    return dict(json.loads(SAMPLE.read_text()))


def complaints(result: object) -> list[str]:
    return [error.json_path for error in Draft202012Validator(schema()).iter_errors(result)]


def test_it_is_a_schema_and_the_sample_fits() -> None:
    Draft202012Validator.check_schema(schema())
    assert complaints(json.loads(SAMPLE.read_text())) == []


def test_what_a_result_may_hold_fits() -> None:
    speaker = Speaker(speaker="A", total_seconds=1.5, embedding=(0.25, -1.0))
    provenance = Provenance(revision="f00", gpu="A GPU", queue_seconds=None, cost_usd=0.01)
    whole = Diarization(segments=(), speakers=(speaker,), audio_seconds=2.0, warnings=("one",), provenance=provenance)
    assert complaints(whole.to_json()) == []


def test_fields_of_a_newer_version_are_let_through(sample: dict[str, Any]) -> None:
    assert complaints({**sample, "language": "fr"}) == []


def test_a_result_that_is_none_is_not(sample: dict[str, Any]) -> None:
    assert complaints({name: value for name, value in sample.items() if name != "segments"}) == ["$"]
    assert complaints({**sample, "audio_seconds": "30"}) == ["$.audio_seconds"]
    assert complaints({**sample, "segments": [{"start": -1.0, "end": 2.0, "speaker": "A"}]}) == ["$.segments[0].start"]
    assert complaints({**sample, "speakers": [{"speaker": "A"}]})[0] == "$.speakers[0]"
    assert complaints({**sample, "provenance": {**sample["provenance"], "cost_usd": None}}) == ["$.provenance.cost_usd"]
