"""What every command shares: exit statuses, and one sentence for a user's mistake."""

from __future__ import annotations

import difflib
import errno
import shlex
import sys
from collections.abc import Callable, Iterable

from subshot.data.image_folder import DataError
from subshot.launch.pipe import reader_left
from subshot.launch.started import again
from subshot.train.dist import LostProcesses
from subshot.train.stopping import Preempted

DONE, USER_MISTAKE, STOPPED = 0, 2, 75


def run_command(command: Callable[[], None], is_main: Callable[[], bool], how_to_resume: Callable[[], str]) -> int:
    """The exit status of `command`: 0, 2 with one sentence for a ValueError or a file that cannot be read or written,
    75 where it stopped early and can go on: after a signal, Ctrl-C, or the loss of another process.

    how_to_resume: a clause, asked for only then. Anything else is a defect and keeps its traceback.
    """
    try:
        command()
    except (ValueError, OSError) as error:
        if isinstance(error, BrokenPipeError) and reader_left():
            print(f"stopped: nobody reads the output any more; {how_to_resume()}", file=sys.stderr)
            return STOPPED
        if is_main():
            print(f"error: {sentence(error, how_to_resume())}", file=sys.stderr)
        elif isinstance(error, DataError | OSError):  # of a file that this process alone may have read or written
            print(f"error on another process: {sentence(error, how_to_resume())}", file=sys.stderr)
        return USER_MISTAKE
    except Preempted as reason:
        if is_main():
            print(f"stopped: {reason}; {how_to_resume()}", file=sys.stderr)
        return STOPPED
    except KeyboardInterrupt:
        if is_main():
            print(f"stopped; {how_to_resume()}", file=sys.stderr)
        return STOPPED
    except LostProcesses as error:
        if error.speaks or is_main():
            print(f"error: {error}; {how_to_resume()}", file=sys.stderr)
        return STOPPED
    return DONE


def sentence(error: Exception, how_to_resume: str) -> str:
    """What went wrong, and how to mend it."""
    if not isinstance(error, OSError) or error.errno is None:
        return str(error)
    where = error.filename or "a file of the run"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full: {where} could not be written; free some space, and {how_to_resume}"
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return f"{where} cannot be read or written ({error.strerror}); change its permissions, and {how_to_resume}"
    if error.errno in (errno.ENOENT, errno.ESTALE, errno.EIO):
        return f"{where} cannot be read ({error.strerror}); put it back or correct its path, and {how_to_resume}"
    if error.errno in (errno.ENOTDIR, errno.EISDIR):
        return f"{where} cannot be read or written ({error.strerror}); correct its path, and {how_to_resume}"
    return f"{error}; {how_to_resume}"


def go_on(*more: str) -> str:
    """How to go on, as a clause."""
    return f"go on with: {shlex.join(again(*more))}"


def begin_again() -> str:
    """How to go on where nothing was begun yet, as a clause."""
    return f"give the command again: {shlex.join(again())}"


def nearest(word: str, known: Iterable[str]) -> str:
    """What a mistyped word may have meant, as a clause; the whole list where nothing is near."""
    names = list(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(names)}"
