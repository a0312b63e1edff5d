"""What every command shares: exit statuses, and one sentence for a user's mistake."""

from __future__ import annotations

import difflib
import shlex
import sys
from collections.abc import Callable, Iterable

from subshot.data.image_folder import DataError

DONE, USER_MISTAKE, STOPPED = 0, 2, 75


def run_command(command: Callable[[], None], is_main: Callable[[], bool], how_to_resume: str) -> int:
    """The exit status of `command`: 0, 2 with one sentence for a ValueError, a missing file or no permission, 75 for
    Ctrl-C.

    Anything else is a defect and keeps its traceback.
    """
    try:
        command()
    except (ValueError, OSError) as error:
        if is_main():
            print(f"error: {error}", file=sys.stderr)
        elif isinstance(error, DataError):  # a file that this process alone may have read
            print(f"error on another process: {error}", file=sys.stderr)
        return USER_MISTAKE
    except KeyboardInterrupt:
        if is_main():
            print(f"stopped; {how_to_resume}", file=sys.stderr)
        return STOPPED
    return DONE


def go_on() -> str:
    """How the running command is given again, in one process."""
    return f"go on with: {shlex.join(['python', *sys.argv])}"


def nearest(word: str, known: Iterable[str]) -> str:
    """What a mistyped word may have meant, as a clause; the whole list where nothing is near."""
    names = list(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(names)}"
