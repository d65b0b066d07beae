"""How the type checker of a caller knows a task's arguments and what `delay` gives, with or without celery-types."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Concatenate, Generic, ParamSpec, cast

from diarization.turns import Diarization
from tasks.celery import app
from tasks.guard import GuardedTask
from tasks.job_result import JobResult

P = ParamSpec("P")


class TypedTask(GuardedTask, Generic[P]):
    """A `GuardedTask` of a function with the parameters P."""

    abstract = True

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> JobResult:
        """Submit a job with these arguments; as `apply_async` without options, with the same errors."""
        return self.apply_async(args, kwargs)


def job_task(name: str) -> Callable[[Callable[Concatenate[Any, P], Diarization]], TypedTask[P]]:
    """Makes the function below it the task of that name, bound to the attempt it runs in."""
    task = app.task(base=TypedTask, bind=True, shared=False, name=name)
    return cast("Callable[[Callable[Concatenate[Any, P], Diarization]], TypedTask[P]]", task)
