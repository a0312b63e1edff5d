"""The console command: `subshot VERB ...` does what `python launch/VERB.py ...` does, in one process.

Several processes need a launcher: torchrun launch/search.py, or torchrun -m subshot.launch.main search.
"""

from __future__ import annotations

import ast
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from subshot.launch.pipe import reader_may_leave
from subshot.launch.started import CONSOLE, MODULE

VERBS: dict[str, tuple[str, ...]] = {
    "search": ("search",),
    "retrain": ("retrain",),
    "export": ("export",),
    "verify": ("verify",),
    "report": ("report",),
    "prepare": ("prepare",),
    "correlate": ("correlate",),
    "latency": ("latency",),
    "score": ("score",),
    "status": ("status",),
    "slurm": ("slurm",),
    "collect": ("slurm", "collect"),
    "doctor": ("doctor",),
}
"""Verb to its module in launch/, which has `main() -> int`, and to the words that go before the user's own."""


def summary(verb: str) -> str:
    """What the module that is named like the verb says of itself, up to its command; the module is read, not run."""
    spec = find_spec(f"subshot.launch.{verb}")
    assert spec is not None and spec.origin is not None, verb
    words = " ".join((ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) or "").split())
    return words.split(". ")[0].split(": ")[0].removesuffix(".")


def usage() -> str:
    lines = [f"  {verb:11}{summary(verb)}" for verb in VERBS]
    return "\n".join(
        [
            f"usage: {CONSOLE} VERB [--help] ...",
            "",
            f"{CONSOLE} VERB ... does what python launch/VERB.py ... does. Begin with: {CONSOLE} search digits",
            "",
            "verbs:",
            *lines,
            "",
            f"{CONSOLE} VERB --help says more of each. On several processes: torchrun -m {MODULE} VERB ...",
        ]
    )


@reader_may_leave
def main() -> int:
    """The verb's exit status; 2 where there is no such verb."""
    started, *words = sys.argv
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return 0
    verb, *rest = words
    if verb not in VERBS:
        from subshot.launch.cli import USER_MISTAKE, nearest  # loads torch, which doctor must do without

        print(f"error: there is no verb {verb!r}; {nearest(verb, VERBS)}", file=sys.stderr)
        return USER_MISTAKE
    module, *before = VERBS[verb]
    name = f"python -m {MODULE}" if Path(started).name == "main.py" else CONSOLE
    sys.argv = [f"{name} {module}", *before, *rest]
    status: int = import_module(f"subshot.launch.{module}").main()
    return status


if __name__ == "__main__":
    sys.exit(main())
