"""docs/configure.md: every setting, in groups."""

from __future__ import annotations

from typing import Any, NamedTuple

from annotated_types import Ge, Gt, Le, MaxLen
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from diarization.diarizer import BUNDLED_MODEL
from docs.generators.markdown import table
from tasks.settings import Settings


class Group(NamedTuple):
    """Settings that belong together: those whose names begin with one of `prefixes`."""

    heading: str
    prefixes: tuple[str, ...]
    says: str


GROUPS = (
    Group(
        "Redis",
        ("REDIS_",),
        "Where the queue is. Every process reads these: producers, workers, bridges and the command line.",
    ),
    Group(
        "Workers and the model",
        ("WORKER_", "HF_", "DIARIZATION_", "CUDA_"),
        "What a worker does, with which model and on which device, and which recordings it takes. Read by GPU workers "
        "and RunPod's; a bridge reserves the price of `DIARIZATION_MAX_HOURS` for a recording of unknown length.",
    ),
    Group(
        "The queue",
        ("QUEUE_",),
        "When a silent worker is given up, how often and how soon a job is tried again, how long its record stays.",
    ),
    Group(
        "RunPod",
        ("RUNPOD_",),
        "The endpoint that a bridge sends jobs to; without key and id nothing is ever sent.",
    ),
    Group(
        "Overflow",
        ("OVERFLOW_",),
        "When jobs go to RunPod, and what that may cost ([how it decides](overflow.md)). Read by bridges; the deadline "
        "and the reachable networks by producers.",
    ),
    Group("Webhooks", ("WEBHOOK_",), "How the end of a job is told ([webhooks](webhooks.md)). Read by all workers."),
    Group("Flower", ("FLOWER_",), "Of `diarize-queue flower` alone ([Flower](flower.md))."),
)


def default(value: Any) -> str:
    """A setting's default as it would stand in the environment."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if value is None or value == ():
        return ""
    if value == str(BUNDLED_MODEL):
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)


def settings_tables() -> str:
    """A heading, a sentence and a table for each group.

    Raises:
        ValueError: A setting belongs to no group, or to two.
    """
    groups: dict[Group, list[tuple[str, FieldInfo]]] = {group: [] for group in GROUPS}
    for field_name, field in Settings.model_fields.items():
        name = field_name.upper()
        mine = [group for group in GROUPS if name.startswith(group.prefixes)]
        if len(mine) != 1:
            raise ValueError(f"{name} belongs to {len(mine)} groups of docs/generators/settings.py")
        groups[mine[0]].append((name, field))
    parts: list[str] = []
    for group, members in groups.items():
        rows = [(f"`{name}`", shown_default(field), bounds(field), field.description or "") for name, field in members]
        parts += [f"### {group.heading}", group.says, table(("name", "default", "allowed", ""), rows)]
    return "\n\n".join(parts)


def shown_default(field: FieldInfo) -> str:
    """A setting's default as a page shows it."""
    if field.default == str(BUNDLED_MODEL):
        return "the bundled model"
    text = default(field.default)
    return f"`{text}`" if text else "none"


def bounds(field: FieldInfo) -> str:
    """What a number may be, in words; empty where there is no bound."""
    least = most = ""
    for bound in field.metadata:
        if isinstance(bound, Ge):
            least = _number(bound.ge)
        elif isinstance(bound, Gt):
            least = f"above {_number(bound.gt)}"
        elif isinstance(bound, Le):
            most = _number(bound.le)
        elif isinstance(bound, MaxLen):
            return f"up to {bound.max_length} characters"
    if least and most:
        return f"{least}, up to {most}" if least.startswith("above") else f"{least} to {most}"
    return f"{least} or more" if least else f"up to {most}" if most else ""


def _number(value: Any) -> str:
    return f"{value:,.10g}" if isinstance(value, float) else f"{value:,}"
