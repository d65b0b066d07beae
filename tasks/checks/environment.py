"""What this process is given: its settings, and the packages that it would import."""

from __future__ import annotations

from pathlib import Path

from tasks.checks.finding import Check, Fault, Finding, Subject, fine, risk
from tasks.checks.probing import ProbeFailed, ask_process
from tasks.settings import settings_lookalikes

IMPORT_SECONDS = 20.0

BAD_SETTINGS = Fault(
    "bad_settings",
    "a setting is misspelt or out of bounds; nothing starts",
    "correct what the line names; docs/configure.md has every setting with its bounds",
)
LOOKALIKE = risk("lookalike", "a name in the environment is like a setting's", "rename the variable, or unset it")
SHADOWED = Fault(
    "shadowed",
    "another package takes the name `tasks` or `diarization`: this is not what producers would import",
    "start producers where no tasks.py and no folder tasks/ of their own comes first on sys.path",
)
HEAVY = Fault(
    "heavy_import", "a producer that imports the task loads torch", "report it: a producer is meant to stay light"
)
NO_IMPORT = Fault("no_import", "the task cannot be imported", "pip install diarize-queue in the backend's environment")

_IMPORT = """
import json, sys, time
began = time.perf_counter()
import tasks, diarization
folder = tasks.__path__[0] if hasattr(tasks, "__path__") else tasks.__file__
from tasks.diarize import diarize
queues = sorted(diarize.app.amqp.queues)
print(json.dumps({"seconds": time.perf_counter() - began, "torch": "torch" in sys.modules, "folder": folder,
                  "queues": queues}))
"""


def settings(subject: Subject) -> Finding:
    """Which are set. That they are valid is seen before any check."""
    if like := settings_lookalikes():
        return LOOKALIKE.found(", ".join(f"{name} is no setting; is {meant} meant?" for name, meant in like.items()))
    given = sorted(name.upper() for name in subject.settings.model_fields_set)
    return fine(f"set: {', '.join(given)}" if given else "all are defaults")


def producer(_: Subject) -> Finding:
    """Import the task as a backend does, from here, in a process of its own."""
    here = Path(__file__).resolve().parents[1]
    try:
        told = ask_process(("-c", _IMPORT), "", IMPORT_SECONDS)
    except ProbeFailed as error:
        return (SHADOWED if _shadow(here.parent) else NO_IMPORT).found(f"`import tasks.diarize` fails: {error}")
    if Path(told["folder"]).resolve() != here:
        return SHADOWED.found(f"`import tasks` gives {told['folder']}")
    if told["torch"]:
        return HEAVY.found("`import tasks.diarize` loads torch")
    return fine(f"`import tasks.diarize` takes {told['seconds']:.1f} s and loads no torch")


def _shadow(ours: Path) -> bool:
    """Whether something of the name stands in the working directory, which comes first."""
    cwd = Path.cwd()
    return cwd.resolve() != ours and any((cwd / name).exists() for name in ("tasks.py", "tasks", "diarization.py"))


CHECKS = (
    Check("settings", "settings", "the environment", settings, (BAD_SETTINGS, LOOKALIKE)),
    Check(
        "settings",
        "import",
        "`import tasks.diarize`, as a backend does it",
        producer,
        (SHADOWED, HEAVY, NO_IMPORT),
        timeout_seconds=IMPORT_SECONDS + 5,
    ),
)
