"""The Celery app of the queue: `celery -A tasks worker` finds it here.

It never becomes a process's current app, so a backend keeps its own, and it reads its settings from the
`celeryconfig.py` that belongs to this package, not from whichever module of that name comes first on the path.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from celery import Celery


def _config_path() -> Path:
    """Of `celeryconfig.py`: in this package where a wheel was installed, beside it in a checkout."""
    inside = Path(__file__).resolve().with_name("celeryconfig.py")
    return inside if inside.is_file() else inside.parent.parent / inside.name


def _load_config(path: Path) -> ModuleType:
    spec = spec_from_file_location("tasks.celeryconfig", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path.name} is missing from the package `tasks`")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class QueueApp(Celery):
    """Our app. A spawned pool child gets it by importing this module, not as a copy with half of its settings."""

    def __reduce__(self) -> tuple[Callable[[], QueueApp], tuple[()]]:
        return _own_app, ()

    @cached_property
    def Worker(self) -> Any:  # noqa: N802 - Celery's name
        """Celery's, without gossip, by which each worker hears each heartbeat of every other one, for nothing."""
        base: Any = self.subclass_with_self("celery.apps.worker:Worker")  # type: ignore[arg-type]  # it takes a name, too

        class QuietWorker(base):  # type: ignore[misc]
            def __init__(self, **options: Any) -> None:
                super().__init__(**{**options, "without_gossip": True})

        return QuietWorker


def _own_app() -> QueueApp:
    return app


app = QueueApp("tasks", set_as_current=False)
app.config_from_object(_load_config(_config_path()))
