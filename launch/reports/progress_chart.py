"""How searches got on: the best score so far against the number of candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from subshot.launch.reports.charts import (
    GREEN,
    METHOD_LINES,
    METHOD_NAMES,
    colour_of,
    legend_above,
    name_of,
    render,
)


@dataclass(frozen=True)
class Line:
    """How a search got on: its run and method, and the best score after each candidate, None before the first."""

    run: str
    method: str
    colour: str
    best: Sequence[float | None]


def progress(best: Mapping[str, Sequence[float | None]], optimum: float | None) -> str:
    """Best score so far against evaluations, a step line a method; the exact optimum as a level."""
    return progress_of(
        "progress", [Line("", method, colour_of(method), curve) for method, curve in best.items()], optimum
    )


def progress_of(name: str, lines: Sequence[Line], optimum: float | None = None) -> str:
    """The same of several runs: a colour a run, a style a method."""
    many = any(line.run for line in lines)

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        named: set[str] = set()
        for line in lines:
            known = [(number, score) for number, score in enumerate(line.best, start=1) if score is not None]
            turns = [p for i, p in enumerate(known) if i in (0, len(known) - 1) or known[i - 1][1] != p[1]]
            label = line.run if many else name_of(line.method)
            style = METHOD_LINES.get(line.method, ":")
            shown = None if label in named else label
            axes.step(*zip(*turns, strict=True), style, where="post", color=line.colour, label=shown)
            named.add(label)
        if optimum is not None:
            axes.axhline(optimum, color=GREEN, linewidth=1.2, linestyle=":", label=METHOD_NAMES["optimum"])
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set(xlabel="candidates scored", ylabel="best score so far")
        if many:
            legend_above(figure, axes, 2)
        else:
            axes.legend(loc="lower right")

    return render(name, 260 if many else 240, draw)
