"""The tree of errors: what its docstring draws, what a caller reads, and what Celery makes of it."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery
from celery.backends.base import Backend
from kombu.serialization import dumps, loads

from diarization import errors
from diarization.errors import (
    DiarizationError,
    InternalError,
    PermanentError,
    RecordingNotFound,
    TransientError,
    from_code,
)


def family(cls: type[DiarizationError]) -> Iterator[type[DiarizationError]]:
    yield cls
    for child in cls.__subclasses__():
        yield from family(child)


# Classes that tests make would be children of the root as well.
CLASSES = [cls for cls in family(DiarizationError) if cls.__module__ == errors.__name__]
CONCRETE = [cls for cls in CLASSES if cls not in (DiarizationError, PermanentError, TransientError)]


def drawn_tree() -> dict[str, str]:
    """Each class that the docstring draws, with the parent it is drawn under."""
    parents: dict[str, str] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        drawn = re.match(r"^    ((?:│   |    |├── |└── )*)([A-Z]\w+)", line)
        if drawn is None:
            continue
        depth = len(drawn[1]) // 4
        path[depth:] = [drawn[2]]
        parents[drawn[2]] = path[depth - 1] if depth else "Exception"
    return parents


def test_the_docstring_draws_the_tree_as_it_is() -> None:
    assert drawn_tree() == {cls.__name__: cls.__bases__[0].__name__ for cls in CLASSES}


@pytest.mark.parametrize("cls", CONCRETE)
def test_permanent_or_transient_but_never_both(cls: type[DiarizationError]) -> None:
    assert not (issubclass(cls, PermanentError) and issubclass(cls, TransientError))


@pytest.mark.parametrize("cls", CONCRETE)
def test_every_class_says_what_to_do(cls: type[DiarizationError]) -> None:
    assert "advice" in vars(cls), "the parent's advice is about no error in particular"
    assert re.fullmatch(r"[A-Z][^\n]+\.", cls.advice)
    assert cls.__doc__


def test_advice_and_codes_are_each_class_own() -> None:
    assert len({cls.code for cls in CLASSES}) == len(CLASSES)
    assert len({cls.advice for cls in CONCRETE}) == len(CONCRETE)


def test_a_code_is_the_name_of_the_class_for_other_languages() -> None:
    assert RecordingNotFound.code == "recording_not_found"
    assert errors.OutOfMemory.code == "out_of_memory"
    assert DiarizationError.code == "diarization_error"


@pytest.mark.parametrize("cls", CLASSES)
def test_every_class_takes_exactly_its_message(cls: type[DiarizationError]) -> None:
    error = cls("HTTP 404 from https://host/a.wav")
    assert error.args == ("HTTP 404 from https://host/a.wav",)
    assert error.message == str(error) == "HTTP 404 from https://host/a.wav"
    with pytest.raises(TypeError):
        cls("one", "two")  # type: ignore[call-arg]


@pytest.fixture(scope="module")
def backend() -> Backend:
    app = Celery("errors", set_as_current=False, backend="cache+memory://", broker="memory://")
    app.conf.update(result_serializer="json", accept_content=["json"])
    return Backend(app)


@pytest.mark.parametrize("cls", CLASSES)
def test_class_and_message_survive_a_celery_result(cls: type[DiarizationError], backend: Any) -> None:
    message = "the file ends after 12.5 s — “é”"
    content_type, encoding, body = dumps(backend.prepare_exception(cls(message)), serializer="json")
    error = backend.exception_to_python(loads(body, content_type, encoding))
    assert type(error) is cls
    assert error.message == message


@pytest.mark.parametrize("cls", CLASSES)
def test_class_and_message_survive_a_process_boundary(cls: type[DiarizationError]) -> None:
    error = pickle.loads(pickle.dumps(cls("lost")))
    assert type(error) is cls
    assert error.message == "lost"


@pytest.mark.parametrize("cls", CLASSES)
def test_class_and_message_survive_the_wire_by_code(cls: type[DiarizationError]) -> None:
    code, message = json.loads(json.dumps([cls.code, "what happened"]))
    error = from_code(code, message)
    assert type(error) is cls
    assert error.message == "what happened"


def test_an_unknown_code_is_a_bug_that_keeps_its_name() -> None:
    error = from_code("flux_capacitor_empty", "88 mph")
    assert type(error) is InternalError
    assert error.message == "flux_capacitor_empty: 88 mph"
