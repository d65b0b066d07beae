"""docs/api.md: what a user may call, from its docstrings and signatures, read without importing anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import griffe

ROOT = Path(__file__).resolve().parent.parent.parent
WIDTH = 110
"""Characters of a signature on one line."""


class Entry(NamedTuple):
    """Something on the page.

    Attributes:
        path: Where it is: module and name.
        shown: How a user writes it; its own name where that is empty.
        returns: What a call of it gives, where that is not what the function itself returns.
    """

    path: str
    shown: str = ""
    returns: str = ""


TASK = "tasks.producer.SubmittedTask"

SECTIONS: dict[str, tuple[Entry, ...]] = {
    "submit": (
        Entry("tasks.diarize.diarize", "diarize.delay", "JobResult"),
        Entry(f"{TASK}.apply_async", "diarize.apply_async"),
        Entry(f"{TASK}.submit_many", "diarize.submit_many"),
        Entry("tasks.runpod_bridge.diarize_on_runpod", "diarize_on_runpod.delay", "JobResult"),
    ),
    "jobs": (
        Entry(f"{TASK}.AsyncResult", "diarize.AsyncResult"),
        Entry("tasks.job_result.JobResult"),
        Entry(f"{TASK}.position", "diarize.position"),
        Entry("tasks.snapshot.Position"),
        Entry(f"{TASK}.cancel", "diarize.cancel"),
        Entry(f"{TASK}.delete", "diarize.delete"),
        Entry("tasks.record.State"),
    ),
    "result": (
        Entry("diarization.turns.Diarization"),
        Entry("diarization.turns.Turn"),
        Entry("diarization.turns.Speaker"),
        Entry("diarization.turns.Provenance"),
        Entry("diarization.turns.total_seconds"),
    ),
    "formats": (
        Entry("diarization.formats.find_format"),
        Entry("diarization.formats.Format"),
        *(Entry(f"diarization.formats.to_{name}") for name in ("json", "rttm", "srt", "vtt", "csv", "labels")),
    ),
    "timeline": (Entry("diarization.timeline.timeline_svg"), Entry("diarization.timeline.timeline_png")),
    "errors": (
        Entry("diarization.errors.DiarizationError"),
        Entry("diarization.errors.PermanentError"),
        Entry("diarization.errors.TransientError"),
        Entry("diarization.errors.from_code"),
    ),
    "webhooks": (
        Entry("tasks.signature.verify"),
        Entry("tasks.signature.WebhookForged"),
        Entry("tasks.signature.new_secret"),
    ),
    "seam": (
        Entry("diarization.diarizer.Diarizer"),
        Entry("diarization.diarizer.Report"),
        Entry("diarization.diarizer.DiarizerOptions"),
        Entry("diarization.recording.Recording"),
        Entry("diarization.turns.SpeakerHints"),
    ),
}


def api_parts() -> dict[str, Callable[[], str]]:
    """What makes each section of the page, by the name of its marks."""
    return {name: partial(_section, entries) for name, entries in SECTIONS.items()}


@cache
def source() -> Any:
    """The packages as griffe reads them: objects by their dotted paths."""
    loader = griffe.GriffeLoader(search_paths=[ROOT], docstring_parser=griffe.Parser.google)
    for package in ("diarization", "tasks"):
        loader.load(package)
    loader.resolve_aliases()
    return loader.modules_collection


def documented(entry: Entry) -> Iterator[tuple[str, griffe.Object]]:
    """The entry and the methods that it has of its own, each with the name under which it is shown."""
    thing = source()[entry.path]
    shown = entry.shown or thing.name
    yield shown, thing
    for name, member in thing.members.items() if thing.is_class else ():
        if member.is_function and not name.startswith("_"):
            yield f"{shown}.{name}", member


def _section(entries: tuple[Entry, ...]) -> str:
    blocks: list[str] = []
    for entry in entries:
        (shown, thing), *members = documented(entry)
        blocks += [f"### {shown}", *_described(shown, thing, entry.returns)]
        for name, member in members:
            blocks += [f"#### {name}", *_described(name, member)]
    return "\n\n".join(blocks)


def _described(shown: str, thing: griffe.Object, returns: str = "") -> Iterator[str]:
    """A signature, then what the docstring says."""
    if isinstance(thing, griffe.Function):
        # Coloured as Python, though nothing that could be run: `python` is for examples, which the tests read.
        yield f"```py\n{_signature(shown, thing, returns)}\n```"
    for section in thing.docstring.parsed if thing.docstring else ():
        if section.kind is griffe.DocstringSectionKind.text:
            yield section.value
        elif section.kind in HEADS:
            items = (item for item in section.value if getattr(item, "name", "") != "self")
            yield "\n".join([HEADS[section.kind], "", *(_item(item, thing) for item in items)])
    members = [member for member in thing.members.values() if isinstance(member, griffe.Object)]
    described = [_attribute(one) for one in members if isinstance(one, griffe.Attribute) and one.docstring]
    if described:
        yield "\n".join(["Also:", "", *described])
    for call in (member for member in members if member.name == "__call__"):
        yield from _described(shown.lower(), call)


def _attribute(attribute: griffe.Attribute) -> str:
    """One that has a docstring of its own, as properties have."""
    text = " ".join(attribute.docstring.value.split()) if attribute.docstring else ""
    return f"- `{attribute.name}` (`{attribute.annotation}`): {text}"


HEADS = {
    griffe.DocstringSectionKind.parameters: "Arguments:",
    griffe.DocstringSectionKind.attributes: "Attributes:",
    griffe.DocstringSectionKind.returns: "Returns:",
    griffe.DocstringSectionKind.yields: "Yields:",
    griffe.DocstringSectionKind.raises: "Raises:",
}


def _item(item: Any, thing: griffe.Object) -> str:
    """A line of a list: what has a name, with its type; what has none, such as an error, by its type."""
    text, name, annotation = " ".join(item.description.split()), getattr(item, "name", ""), item.annotation
    if not name:
        return f"- `{annotation}`: {text}" if annotation else f"- {text}"
    if annotation is None and name in thing.members:
        member = thing.members[name]
        annotation = member.annotation if isinstance(member, griffe.Attribute) else None
    typed = f" (`{annotation}`)".replace("'", '"') if annotation else ""
    return f"- `{name}`{typed}: {text}"


def _signature(shown: str, function: griffe.Function, returns: str) -> str:
    """As ruff would write it."""
    parameters = list(_parameters(function))
    end = f") -> {returns or function.returns}"
    signature = f"{shown}({', '.join(parameters)}{end}"
    if len(signature) > WIDTH:
        signature = f"{shown}(\n" + "".join(f"    {parameter},\n" for parameter in parameters) + end
    return signature.replace("'", '"')


def _parameters(function: griffe.Function) -> Iterator[str]:
    named = [one for one in function.parameters if one.name not in ("self", "cls")]
    stars = {griffe.ParameterKind.var_positional: "*", griffe.ParameterKind.var_keyword: "**"}
    is_open = True
    for one in named:
        if one.kind is griffe.ParameterKind.var_positional:
            is_open = False
        elif one.kind is griffe.ParameterKind.keyword_only and is_open:
            yield "*"
            is_open = False
        text = stars.get(one.kind, "") + one.name
        text += f": {one.annotation}" if one.annotation else ""
        yield text if one.default is None or one.kind in stars else f"{text} = {_default(one.default)}"


def _default(default: Any) -> str:
    """As it is written or, for a constant of ours, its value."""
    if isinstance(default, griffe.ExprName):
        return str(source()[default.canonical_path].value)
    return str(default)
