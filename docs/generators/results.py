"""docs/results.md and docs/result.schema.json: what a result holds, and how it looks in each format."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import griffe

from diarization.formats import FORMATS
from diarization.turns import Diarization
from docs.generators.api import source
from docs.generators.markdown import table

SAMPLE = Path(__file__).resolve().parent.parent / "sample.result.json"
"""The result of recordings/sample/sample.wav, as a worker has given it."""
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema() -> dict[str, Any]:
    """The JSON Schema of a result, from pydantic's model and its docstrings.

    Raises:
        ValueError: A field is not described.
    """
    whole = Diarization.model_json_schema(mode="serialization")
    for name, model in {"Diarization": whole, **whole["$defs"]}.items():
        said = _descriptions(name)
        model["description"] = said.pop("")
        for field, described in model["properties"].items():
            described.pop("title", None)
            if field not in said:
                raise ValueError(f"diarization.turns.{name} does not describe {field}")
            described["description"] = said[field]
    return {"$schema": DIALECT, **whole}


def schema_text() -> str:
    """The same as a file."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def fields_tables() -> str:
    """A table for each object of a result."""
    whole = schema()
    parts = [_fields(whole)]
    for name in ("Turn", "Speaker", "Provenance"):
        model = whole["$defs"][name]
        parts += [f"### {name}", model["description"], _fields(model)]
    return "\n\n".join(parts)


def examples() -> str:
    """The first two turns of the sample that overlap, in each format."""
    sample = Diarization.from_json(json.loads(SAMPLE.read_text()))
    first, second = next((one, other) for one, other in pairwise(sample.segments) if other.start < one.end)
    between = tuple(turn for turn in sample.exclusive_segments if first.start <= turn.start and turn.end <= second.end)
    short = sample.model_copy(update={"segments": (first, second), "exclusive_segments": between})
    parts: list[str] = []
    for name, written in FORMATS.items():
        about = f"`--format {name}`: {written.description}. `{written.suffix}`, `{written.media_type}`."
        language = "json" if name == "json" else ""
        lines = written.write(short, "sample").splitlines()  # those of CSV end in CR LF
        parts += [f"### {name}", about, "\n".join([f"```{language}", *lines, "```"])]
    return "\n\n".join(parts)


def _fields(model: dict[str, Any]) -> str:
    rows = [(f"`{name}`", _type(field), field["description"]) for name, field in model["properties"].items()]
    return table(("field", "type", ""), rows)


def _type(field: dict[str, Any]) -> str:
    """A type as people say it: `list of Turn`, `number or null`."""
    if "anyOf" in field:
        return " or ".join(map(_type, field["anyOf"]))
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if field.get("type") == "array":
        return f"list of {_type(field['items'])}"
    if field.get("type") == "object":
        return f"object of {_type(field['additionalProperties'])} by name"
    return str(field["type"])


def _descriptions(name: str) -> dict[str, str]:
    """What the docstring of a class says of each attribute; under no name, of itself."""
    docstring = source()[f"diarization.turns.{name}"].docstring
    said = {"": docstring.parsed[0].value}
    for section in docstring.parsed:
        if section.kind is griffe.DocstringSectionKind.attributes:
            said |= {item.name: _in_json(item.description) for item in section.value}
    return said


def _in_json(description: str) -> str:
    """What a docstring says, for who reads JSON."""
    return re.sub(r"\bNone\b", "null", " ".join(description.split()))
