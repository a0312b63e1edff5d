"""Tested networks as dots with their intervals, and one quantity of networks against another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from subshot.launch.reports.charts import BLUE, GREEN, INK, MUTED, ORANGE, legend_above, render, shortened

FEW_POINTS = 60
"""So many points or fewer are drawn large."""


@dataclass(frozen=True)
class Dot:
    """A value with its 95 % interval; kind chooses colour and mark."""

    name: str
    value: float
    low: float
    high: float
    kind: Literal["winner", "control", "baseline"]


_MARKS = {
    "winner": (BLUE, "o"),
    "random_search": (GREEN, "^"),
    "control": (ORANGE, "D"),
    "baseline": (MUTED, "s"),
}


def dots(name: str, rows: Sequence[Dot], quantity: str, digits: int, level: tuple[float, str] | None = None) -> str:
    """One dot with its interval a row, from the top down. level: a value to compare with, and its name."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for y, row in enumerate(rows):
            colour, mark = _MARKS[row.kind]
            axes.plot((row.low, row.high), (y, y), color=colour, linewidth=2, solid_capstyle="butt")
            axes.plot(row.value, y, mark, color=colour, markersize=6.5)
            axes.annotate(
                f"{row.value:.{digits}f}".replace("-", "−"),
                (row.value, y),
                (0, 7),
                textcoords="offset points",
                ha="center",
                size=9,
            )
        if level is not None:
            axes.axvline(level[0], color=GREEN, linewidth=1.2, linestyle=":", label=level[1])
            legend_above(figure, axes)
        axes.set(ylim=(len(rows) - 0.5, -0.7), xlabel=quantity)
        axes.set_yticks(range(len(rows)), [shortened(row.name) for row in rows], color=INK, size=9)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.margins(x=0.1)
        axes.grid(axis="y", visible=False)

    return render(name, 66 + 30 * len(rows) + (18 if level is not None else 0), draw)


def term_against(name: str, points: Sequence[tuple[float, float]], count: str, term: str) -> str:
    """One dot a network, (count, value); values that span a factor of ten are drawn on a logarithmic axis."""
    counts, values = zip(*points, strict=True)

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        size, alpha = (3.2, 0.6) if len(points) > FEW_POINTS else (6.0, 0.8)
        axes.plot(counts, values, "o", color=ORANGE, markersize=size, alpha=alpha, mew=0)
        if min(values) > 0 and max(values) > 10 * min(values):
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(numticks=6))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        scale, unit = (1e6, " / million") if max(counts) >= 1e5 else (1.0, "")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / scale:g}"))
        if np.ptp(np.asarray(counts)) == 0:
            axes.set_xlim(counts[0] - 1, counts[0] + 1)
        axes.set(xlabel=count + unit, ylabel=term)

    return render(name, 200, draw)
