"""What `launch/search.py --help` says."""

from __future__ import annotations

import inspect
import re
import shlex

from subshot.launch.presets import PRESET_GROUPS, PRESETS
from subshot.launch.started import another, program

ABOUT = """
A preset is a whole configuration: which networks, which data, how they are scored. A search trains one supernet that
holds all networks of a space for a short while, or nothing at all, ranks networks by a score, and looks for the best
under your limits by evolution or NSGA-II, beside a random search of equal budget and, where the score allows it, the
exact optimum. It leaves a run folder with every candidate and a report; retraining the best comes after it.

Give the command again with --resume where it was stopped: by Ctrl-C, by a signal, or by a kill. The last line of
standard output is the sha256 of the history.
"""

READ_ON = """
Your own images: docs/own_images.md. Your own clicks: docs/own_clicks.md. Your own space: docs/own_space.md. What the
scores mean: docs/concepts.md. On a cluster: docs/clusters.md. All pages: docs/README.md.
"""


def help_text() -> str:
    """The whole page."""
    search, retrain, report = (shlex.join(another(name)) for name in ("search", "retrain", "report"))
    several = f"torchrun --nproc-per-node 2 {search.split(' ', 1)[1]}" if search.startswith("python ") else search
    examples = [
        ("the demo", f"{search} digits"),
        ("what it would take", f"{search} mobilenetv2-imagenette --data PATH --dry-run"),
        ("images of your own", f"{several} macro-cifar10 --data PATH --run-dir runs/mine"),
        ("other settings", f"{search} digits --limits.max-macs 2e6 --run-dir runs/small"),
        ("then the winner", f"{retrain} runs/mine"),
        ("and what was found", f"{report} runs/mine"),
    ]
    return "\n".join(
        [
            f"usage: {program('search')} PRESET [--run-dir DIR] [--data PATH] [--resume] [--dry-run]",
            "       [--section.option VALUE ...]",
            "",
            "Search for an architecture.",
            ABOUT,
            preset_lines(),
            f"What a preset costs and gives, and all its options: {search} PRESET --help",
            "",
            "examples:",
            *(f"  {what:20}{command}" for what, command in examples),
            READ_ON.rstrip(),
        ]
    )


def preset_lines() -> str:
    """The presets in their groups, a line each."""
    lines = []
    for group, presets in PRESET_GROUPS.items():
        lines += [f"presets for {group}:", *(f"  {name:25}{summary(name)}" for name in presets), ""]
    return "\n".join(lines)


def summary(name: str) -> str:
    """The first paragraph of a preset's docstring."""
    return " ".join(description(name).split("\n\n")[0].split())


def description(name: str) -> str:
    """A preset's docstring, without its indentation and with an empty line before each entry, which tyro wraps."""
    return re.sub(r"\n(?=(Hardware|Time|Result): )", "\n\n", inspect.getdoc(PRESETS[name]) or "")
