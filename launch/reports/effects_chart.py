"""The picture of all effects of choices: a panel a stage or block, a row a choice, all on one scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from subshot.launch.reports.charts import BLUE, GRID, INK, MUTED, ORANGE, render
from subshot.launch.reports.effect_factors import Factor
from subshot.search.marginal_effects import Contrast

WIDTH, ROW, TOP, BOTTOM, PLOT = 720.0, 12.0, 20.0, 26.0, 100.0
LETTER = 4.1
"""Points that a letter of a row's name takes, about."""
MOST_ROWS = 30
"""A longer panel goes on in another one."""
BESIDE = {("no", "yes"), ("off", "on")}


@dataclass(frozen=True)
class Told:
    """A choice beside its factor's reference. macs: what it costs more; None where that is not known."""

    factor: Factor
    level: str
    contrast: Contrast
    macs: float | None

    @property
    def reference(self) -> str:
        return self.factor.levels[self.factor.reference]

    @property
    def said(self) -> str:
        """`Stage 2, layer 1: k5e6 instead of identity`."""
        return f"{self.factor.place[0].upper()}{self.factor.place[1:]}: {self.level} instead of {self.reference}"

    @property
    def row(self) -> str:
        if self.factor.levels in BESIDE:
            return f"{self.factor.name}{'' if self.level == 'yes' else f' {self.level}'}"
        return f"{self.factor.name} {self.level}".strip()


def panels(told: Sequence[Told]) -> str:
    """Dots with their intervals; those beyond the widest effect's reach are cut off at the edge."""
    groups: list[tuple[str, list[Told]]] = []
    for group in dict.fromkeys(t.factor.group for t in told):
        mine = [t for t in told if t.factor.group == group]
        for first in range(0, len(mine), MOST_ROWS):
            groups.append((group if not first else f"{group}, on", mine[first : first + MOST_ROWS]))
    names = LETTER * max(len(t.row) for t in told) + 8
    most = max(1, min(len(groups), int(WIDTH // (names + PLOT))))
    columns = -(-len(groups) // -(-len(groups) // most))  # as many rows of panels as that needs, equally long
    lines = [groups[first : first + columns] for first in range(0, len(groups), columns)]
    heights = [TOP + ROW * max(len(mine) for _, mine in line) + BOTTOM for line in lines]
    reach = _reach(told)

    def draw(figure: Figure) -> None:
        figure.set_layout_engine("none")
        total, top = sum(heights), 0.0
        for line, height in zip(lines, heights, strict=True):
            for column, (group, mine) in enumerate(line):
                left = WIDTH / columns * column + names
                width, tall = WIDTH / columns - names - 10, ROW * len(mine)
                place = (left / WIDTH, 1 - (top + TOP + tall) / total, width / WIDTH, tall / total)
                _panel(figure.add_axes(place), group, mine, reach)
            top += height

    return render("effects", sum(heights), draw, width=WIDTH)


def _reach(told: Sequence[Told]) -> tuple[float, float]:
    """Ends of the common axis: all values, and their intervals unless these are much wider than the effects."""
    values = [t.contrast.value for t in told] + [0.0]
    ends = [end for t in told for end in (t.contrast.low, t.contrast.high)]
    span = max(values) - min(values) or 1.0
    low, high = max(min([*ends, 0.0]), min(values) - span), min(max([*ends, 0.0]), max(values) + span)
    return low - 0.04 * (high - low), high + 0.04 * (high - low)


def _panel(axes: Axes, group: str, told: Sequence[Told], reach: tuple[float, float]) -> None:
    axes.axvline(0.0, color=MUTED, linewidth=0.9)
    for colour in (MUTED, BLUE, ORANGE):
        mine = [(y, t.contrast) for y, t in enumerate(told) if _colour(t.contrast) == colour]
        if not mine:
            continue
        xs = [x for _, c in mine for x in (c.low, c.high, np.nan)]
        axes.plot(xs, [y for y, _ in mine for _ in range(3)], color=colour, linewidth=1.4, solid_capstyle="butt")
        axes.plot([c.value for _, c in mine], [y for y, _ in mine], "o", color=colour, markersize=3.6, mew=0)
    places = [t.factor.place for t in told]
    for y in range(1, len(told)):
        if places[y] != places[y - 1]:
            axes.axhline(y - 0.5, color=GRID, linewidth=0.8)
    axes.set(xlim=reach, ylim=(len(told) - 0.5, -0.5))
    axes.set_yticks(range(len(told)), [t.row for t in told], color=INK, size=7.5)
    axes.set_title(group, loc="left", size=9, color=INK, pad=3)
    axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("-", "−")))
    axes.tick_params(axis="x", labelsize=7.5, length=2, pad=2)
    axes.tick_params(axis="y", length=0, pad=3)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)


def _colour(contrast: Contrast) -> str:
    if not contrast.is_told:
        return MUTED
    return BLUE if contrast.value > 0 else ORANGE
