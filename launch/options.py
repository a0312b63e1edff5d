"""What options may be: the least of a number, and the nearest of a few words for a mistyped one."""

from __future__ import annotations

import itertools
import types
import typing
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Literal

from subshot.launch.cli import nearest


def require_choices(kind: type, arguments: Sequence[str]) -> None:
    """Raises ValueError for the first option of `kind` (a dataclass, nested ones by dots) that is none of its choices.

    Everything else that can be wrong with a command line is tyro's to tell.
    """
    choices = dict(_choices(kind, ""))
    for number, word in enumerate(arguments):
        name, given, value = word.partition("=")
        name = name.replace("_", "-")
        if name not in choices:
            continue
        words, several = choices[name]
        rest = itertools.takewhile(lambda w: not w.startswith("--"), arguments[number + 1 :])
        after = [value] if given else list(rest)
        for value in after if several else after[:1]:
            if value not in words:
                raise ValueError(f"{name} is {value!r}; {nearest(value, words)}")


def at_least(prefix: str, settings: object, **least: int) -> None:
    """Raises ValueError for the first field that is given (not None) and below its least value. prefix: of the fields'
    names as the user writes them, `retrain.`, or `--` of options."""
    for name, value in least.items():
        given = getattr(settings, name)
        if given is not None and given < value:
            written = name.replace("_", "-") if prefix.startswith("--") else name
            raise ValueError(f"{prefix}{written} is {given}; it must be {value} or more")


def _choices(kind: Any, prefix: str) -> list[tuple[str, tuple[list[str], bool]]]:
    """(Option, (its words, whether it takes several))."""
    hints = typing.get_type_hints(kind)
    found = []
    for field in fields(kind):
        hint, name = hints[field.name], f"{prefix}{field.name}"
        several = typing.get_origin(hint) is tuple
        if is_dataclass(hint):
            found += _choices(hint, f"{name}.")
        elif words := _words(typing.get_args(hint)[0] if several else hint):
            found.append((f"--{name}".replace("_", "-"), (words, several)))
    return found


def _words(hint: Any) -> list[str]:
    """The choices of a Literal, also of one that may be None; empty for every other type."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return [str(part) for part in parts]
    if origin in (types.UnionType, typing.Union):
        named = [word for part in parts if part is not type(None) for word in _words(part)]
        return [*named, "None"] if named else []
    return []
