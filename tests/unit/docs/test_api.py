"""What stands on the API page says what a caller has to know: units of numbers, and what is raised."""

from __future__ import annotations

import ast
import re
from textwrap import dedent
from typing import Any

import griffe
import pytest

from docs.generators.api import SECTIONS, documented

UNIT = re.compile(
    r"seconds|second|hours|bytes|pixels|percent|USD|milliseconds"
    r"|how many|at least so many|at most so many|likewise|numbers|first in line|in the line",
    re.IGNORECASE,
)
SHOWN = [pair for entries in SECTIONS.values() for entry in entries for pair in documented(entry)]
FUNCTIONS = [(shown, thing) for shown, thing in SHOWN if isinstance(thing, griffe.Function)]
CLASSES = [(shown, thing) for shown, thing in SHOWN if isinstance(thing, griffe.Class)]


def ids(pairs: list[tuple[str, Any]]) -> list[str]:
    return [shown for shown, _ in pairs]


def items(thing: griffe.Object, kind: griffe.DocstringSectionKind) -> list[Any]:
    assert thing.docstring is not None
    return [item for section in thing.docstring.parsed if section.kind is kind for item in section.value]


def documented_names(thing: griffe.Object) -> dict[str, str]:
    """What the docstring says of each parameter or attribute; a function `As another` says it where that one does."""
    found = {
        item.name: item.description
        for kind in (griffe.DocstringSectionKind.parameters, griffe.DocstringSectionKind.attributes)
        for item in items(thing, kind)
    }
    assert thing.docstring is not None
    like = re.match(r"As `([\w.]+)`", thing.docstring.value)
    return found or documented_names(next(other for _, other in SHOWN if like and other.path == like[1]))


def is_a_number(annotation: Any) -> bool:
    return annotation is not None and {"int", "float"} & set(re.findall(r"\w+", str(annotation))) != set()


def assert_the_unit_is_said(name: str, description: str) -> None:
    assert UNIT.search(name.replace("_", " ")) or UNIT.search(description), f"{name}: {description}"


@pytest.mark.parametrize(("shown", "function"), FUNCTIONS, ids=ids(FUNCTIONS))
def test_numbers_that_a_function_takes_have_a_unit(shown: str, function: griffe.Function) -> None:
    numbers = [one.name for one in function.parameters if is_a_number(one.annotation)]
    said = documented_names(function) if numbers else {}
    for name in numbers:
        assert_the_unit_is_said(name, said[name])


@pytest.mark.parametrize(("shown", "function"), FUNCTIONS, ids=ids(FUNCTIONS))
def test_no_argument_is_documented_that_is_not_there(shown: str, function: griffe.Function) -> None:
    # That none is missing ruff's D417 sees to.
    said = {item.name for item in items(function, griffe.DocstringSectionKind.parameters)}
    assert said <= {one.name for one in function.parameters}


@pytest.mark.parametrize(("shown", "cls"), CLASSES, ids=ids(CLASSES))
def test_numbers_that_a_class_holds_have_a_unit(shown: str, cls: griffe.Class) -> None:
    attributes = [one for one in cls.members.values() if isinstance(one, griffe.Attribute) and one.is_public]
    for one in attributes:
        if is_a_number(one.annotation):
            said = one.docstring.value if one.docstring else documented_names(cls)[one.name]
            assert_the_unit_is_said(one.name, said)


@pytest.mark.parametrize(("shown", "function"), FUNCTIONS, ids=ids(FUNCTIONS))
def test_what_a_function_raises_itself_is_documented(shown: str, function: griffe.Function) -> None:
    tree = ast.parse(dedent(function.source))
    raised = {
        node.exc.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name)
    }
    said = {str(item.annotation) for item in items(function, griffe.DocstringSectionKind.raises)}
    assert {name for name in raised if name[0].isupper()} <= said
