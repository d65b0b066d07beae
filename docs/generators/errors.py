"""docs/errors.md: the error tree, with who raises what, found in the source itself."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from diarization import errors
from diarization.errors import DiarizationError, PermanentError, TransientError
from docs.generators.markdown import table

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGES = ("diarization", "tasks", "runpod_worker")

SUBMITTING = frozenset(
    {
        "diarization.recording",
        "diarization.turns",
        "tasks.job",
        "tasks.producer",
        "tasks.schedule",
        "tasks.server",
        "tasks.tickets",
    }
)
"""Modules that run in whichever process submits a job."""
COMMANDS = frozenset({"diarization.formats", "diarization.timeline", "tasks.dead_letters"})
"""Modules of which only the command line makes use."""
WHO = ("submit", "worker", "bridge", "RunPod's worker", "commands")
"""Where an error is raised, in a user's words."""


def errors_tables() -> str:
    """A table for each branch of the tree.

    Raises:
        ValueError: Nobody raises one of the classes: it should not be there.
    """
    places = raised_in()
    branches: dict[str, list[tuple[str, ...]]] = {"Permanent": [], "Transient": [], "Neither": []}
    for cls in _leaves(DiarizationError):
        if cls.__name__ not in places:
            raise ValueError(f"nobody raises {cls.__name__}")
        name = f"`{cls.code}` `{cls.__name__}`"
        means = (cls.__doc__ or "").split("\n\n")[0]
        who = {who_runs(module, cls) for module in places[cls.__name__]}
        where = ", ".join(sorted(who, key=WHO.index))
        if issubclass(cls, TransientError):
            branches["Transient"].append((name, means, "yes" if cls.counts else "no", cls.advice, where))
        else:
            branch = "Permanent" if issubclass(cls, PermanentError) else "Neither"
            branches[branch].append((name, means, cls.advice, where))
    parts: list[str] = []
    for branch, rows in branches.items():
        counts = ("counts",) if branch == "Transient" else ()
        header = ("code, class", "what has happened", *counts, "what to do", "raised in")
        parts += [f"### {branch}", HEADS[branch], table(header, rows)]
    return "\n\n".join(parts)


HEADS = {
    "Permanent": "`PermanentError`: the same job would fail again. It is a dead letter at once.",
    "Transient": "`TransientError`: tried again by itself. What counts as an attempt waits for "
    "`QUEUE_RETRY_BASE_SECONDS`, then twice as long each time up to `QUEUE_RETRY_CAP_SECONDS`, and is a dead letter "
    "after `QUEUE_MAX_ATTEMPTS`. What counts as none waits until it can be done.",
    "Neither": "The queue cannot be reached, or somebody changed their mind.",
}


def raised_in() -> dict[str, set[str]]:
    """For each class of the tree, by name, the modules that make one."""
    found: dict[str, set[str]] = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            for name in _made_in(ast.parse(path.read_text())):
                found.setdefault(name, set()).add(module)
    return found


def who_runs(module: str, cls: type[DiarizationError]) -> str:
    """Which of `WHO` meets an error of that class, made in that module."""
    # A job that is not there yet cannot be tried again.
    if module in SUBMITTING and not issubclass(cls, TransientError):
        return "submit"
    if module in COMMANDS or module.startswith("tasks.commands."):
        return "commands"
    if module.startswith("runpod_worker."):
        return "RunPod's worker"
    return "bridge" if module.startswith("tasks.runpod") else "worker"


def _made_in(tree: ast.Module) -> Iterator[str]:
    """Errors of ours that are called, or are values of a table, such as `{"404": RecordingNotFound}`."""
    known = {cls.__name__ for cls in _leaves(DiarizationError)}
    for node in ast.walk(tree):
        values = node.values if isinstance(node, ast.Dict) else [node.func] if isinstance(node, ast.Call) else []
        yield from (value.id for value in values if isinstance(value, ast.Name) and value.id in known)


def _leaves(cls: type[DiarizationError]) -> Iterator[type[DiarizationError]]:
    """The classes of the tree that are raised, in the order in which they are written."""
    children = [child for child in cls.__subclasses__() if child.__module__ == errors.__name__]
    if not children:
        yield cls
    for child in children:
        yield from _leaves(child)
