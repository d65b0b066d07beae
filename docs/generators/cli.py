"""docs/cli.md: each command with its arguments, options and example, from typer's own tree."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from itertools import groupby
from pathlib import Path
from typing import Any

import typer.main

from docs.generators.markdown import table
from tasks.__main__ import app

PROGRAM = "diarize-queue"
KINDS = {int: "N", float: "NUMBER", str: "TEXT", Path: "PATH"}
"""What stands for the value of an option, by its type."""


def commands_text() -> str:
    """An index by groups, then a section for each command."""
    found = list(_commands())
    index = [
        f"**{panel}**: " + ", ".join(f"[`{name}`](#{_anchor(name)})" for _, name, _ in group) + "."
        for panel, group in groupby(found, key=lambda one: one[0])
    ]
    return "\n\n".join([*index, *(_section(name, command) for _, name, command in found)])


def _commands() -> Iterator[tuple[str, str, Any]]:
    """Group, whole name and command, in the order in which `--help` has them."""
    tree: Any = typer.main.get_command(app)
    panels = [command.rich_help_panel for command in tree.commands.values()]
    in_order = sorted(tree.commands.items(), key=lambda item: panels.index(item[1].rich_help_panel))
    for name, command in in_order:
        below = getattr(command, "commands", {})
        if not below or command.invoke_without_command:
            yield command.rich_help_panel, name, command
        for inner, found in below.items():
            yield command.rich_help_panel, f"{name} {inner}", found


def _section(name: str, command: Any) -> str:
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    options = [one for one in command.params if one.param_type_name == "option" and not one.is_eager]
    usage = " ".join([PROGRAM, name, *map(_place, arguments), *(["[OPTION]…"] if options else [])])
    parts = [f"## {name}", _text(command.help), f"```\n{usage}\n```"]
    rows = [(f"`{_word(one)}`", _text(one.help)) for one in arguments]
    rows += [(", ".join(f"`{word}`" for word in one.opts) + _value(one), _means(one)) for one in options]
    if rows:
        parts.append(table(("", ""), rows))
    if command.epilog:
        parts.append(f"Example: `{_text(command.epilog).removeprefix('Example: ')}`")
    return "\n\n".join(parts)


def _place(argument: Any) -> str:
    word = _word(argument) + ("…" if argument.nargs == -1 else "")
    return word if argument.required else f"[{word}]"


def _word(parameter: Any) -> str:
    kind = parameter.type_descriptor.annotation
    return str(parameter.metavar or (parameter.name.upper() if _choices(parameter) else KINDS.get(kind, "TEXT")))


def _choices(parameter: Any) -> list[str]:
    kind = parameter.type_descriptor.annotation
    return [str(one.value) for one in kind] if isinstance(kind, type) and issubclass(kind, Enum) else []


def _value(option: Any) -> str:
    return "" if option.is_flag else f" `{_word(option)}`"


def _means(option: Any) -> str:
    says = " ".join(filter(None, (_text(option.help), _one_of(_choices(option)))))
    if option.default not in (None, False, "", ()) and "Default" not in says:
        says += f" Default: {option.default}."
    return says


def _one_of(choices: list[str]) -> str:
    return f"One of {', '.join(choices)}." if choices else ""


def _text(text: str | None) -> str:
    """Paragraphs as they are, each on one line; what is in angle brackets is no HTML."""
    return "\n\n".join(" ".join(part.split()) for part in (text or "").strip().split("\n\n")).replace("<", "&lt;")


def _anchor(name: str) -> str:
    return name.replace(" ", "-")
