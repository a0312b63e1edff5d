"""Output piped into a command that stops reading, as `... --help | head` does. Needs the standard library alone."""

from __future__ import annotations

import functools
import os
import select
import sys
from collections.abc import Callable
from typing import ParamSpec

P = ParamSpec("P")


def reader_may_leave(main: Callable[P, int]) -> Callable[P, int]:
    """`main`, which ends quietly with 0 where nobody reads its standard output any more."""

    @functools.wraps(main)
    def ended(*args: P.args, **kwargs: P.kwargs) -> int:
        try:
            try:
                return main(*args, **kwargs)
            finally:
                sys.stdout.flush()
        except BrokenPipeError:
            if not reader_left():
                raise
            os.dup2(
                os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
            )  # for what the interpreter flushes at its end
            return 0

    return ended


def reader_left() -> bool:
    """Whether standard output is a pipe that is closed at its other end."""
    ends = select.poll()
    try:
        ends.register(sys.stdout.fileno(), 0)
    except (OSError, ValueError):  # no file at all
        return False
    return any(event & select.POLLERR for _, event in ends.poll(0))
