"""How the running command was started, and how another one is given the same way: as a script, or as a verb of
`subshot` (launch/main.py). Needs the standard library alone.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

CONSOLE = "subshot"
MODULE = "subshot.launch.main"


def as_verb() -> str | None:
    """The verb that `subshot` was given; None for a script. launch/main.py puts it into sys.argv[0]."""
    words = sys.argv[0].split()
    return words[-1] if len(words) > 1 and " ".join(words[:-1]) in (CONSOLE, f"python -m {MODULE}") else None


def program(name: str) -> str:
    """What usage lines call the command: `subshot search` or `launch/search.py`."""
    return f"launch/{name}.py" if as_verb() is None else sys.argv[0]


def again(*more: str) -> list[str]:
    """The running command as it is given again, under the launcher that it runs under; `more`: options to have once."""
    verb = as_verb()
    command = ["python", sys.argv[0]] if verb is None else sys.argv[0].split()
    if "WORLD_SIZE" in os.environ:
        here = os.environ.get("LOCAL_WORLD_SIZE", "1")
        one_node = ["--standalone"] if here == os.environ["WORLD_SIZE"] else []
        started = [sys.argv[0]] if verb is None else ["-m", MODULE, verb]
        command = ["torchrun", *one_node, f"--nproc-per-node={here}", *started]
    return [*command, *(word for word in sys.argv[1:] if word not in more), *more]


def another(name: str) -> list[str]:
    """How another command is given from here: `subshot status` or `python launch/status.py`."""
    if as_verb() is None:
        return ["python", str(Path(sys.argv[0]).with_name(f"{name}.py"))]
    return [*sys.argv[0].split()[:-1], name]
