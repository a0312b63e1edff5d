"""Command lines to dataclasses, by tyro; what a dataclass itself refuses is one sentence, as every other mistake."""

from __future__ import annotations

import contextlib
import io
import sys
from typing import Any, TypeVar

import tyro

from subshot.launch.options import require_choices

T = TypeVar("T")


def parsed(kind: type[T], words: list[str], program: str, about: str | None, default: T | None = None) -> T:
    """The options of `kind` from a command's words. about: what its help says first.

    Raises ValueError for a word that is none of its option's choices, and with the sentence of a __post_init__; exits
    with 2 and tyro's box where the line is not understood otherwise.
    """
    require_choices(kind if default is None else type(default), words)
    given: dict[str, Any] = {} if default is None else {"default": default}
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(kind, args=words, prog=program, description=about, **given)
    except BrokenPipeError:  # of the help, into a command that stops reading
        sys.exit(0)
    except SystemExit as stop:
        refused = refusal(stop)
        if refused is None:
            sys.stderr.write(said.getvalue())
            raise
    raise ValueError(refused)


def refusal(stop: SystemExit) -> str | None:
    """What a __post_init__ said, where that is why tyro gave up. tyro raises an error with (message, option) for a
    value that it cannot read, and one with (message, name of the field) where a nested dataclass refuses it."""
    cause = stop.__context__
    if isinstance(cause, ValueError):
        return str(cause)
    if cause is not None and len(cause.args) == 2 and all(isinstance(word, str) for word in cause.args):
        return str(cause.args[0])
    return None
