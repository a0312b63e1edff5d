"""The pictures of fronts: candidates by cost and score with the front of each search, tested networks by cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import FuncFormatter, MaxNLocator

from subshot.launch.reports.charts import (
    BLUE,
    GREEN,
    INK,
    LABEL,
    METHOD_LINES,
    MUTED,
    ORANGE,
    colour_of,
    legend_above,
    name_of,
    render,
)

XY = tuple[float, float]


@dataclass(frozen=True)
class Curve:
    """A search, or one search of several runs: its candidates and its front, as (cost, worth)."""

    label: str
    colour: str
    style: str
    points: Sequence[XY]
    front: Sequence[XY]


def curve_of(method: str, points: Sequence[XY], front: Sequence[XY]) -> Curve:
    return Curve(name_of(method), colour_of(method), METHOD_LINES.get(method, ":"), points, front)


def fronts(
    name: str,
    curves: Sequence[Curve],
    axis: str,
    unit: str,
    worth: str = "score",
    stars: Mapping[str, XY] | None = None,
    controls: Sequence[float] = (),
    limits: Sequence[float] = (),
    floor: float | None = None,
) -> str:
    """Fronts as steps, candidates as faint dots. stars: winners by name; controls: costs alone, ticks on the axis;
    limits: lines; floor: what is worth less is not shown."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for curve in reversed(curves):
            _dots(axes, curve)
        for curve in curves:
            if curve.front:
                costs, worths = zip(*curve.front, strict=True)
                axes.step(
                    costs, worths, curve.style, where="post", color=curve.colour, label=curve.label, linewidth=1.5
                )
        for limit in limits:
            axes.axvline(limit, color=INK, linewidth=1, linestyle=":", label="limit" if limit == limits[0] else None)
        if controls:
            level = axes.get_xaxis_transform()
            heights = [0.02] * len(controls)
            axes.plot(controls, heights, "^", color=MUTED, transform=level, markersize=5, label="controls")
        for place, (label, star) in enumerate((stars or {}).items()):
            colour = curves[place].colour if len(stars or {}) > 1 and place < len(curves) else BLUE
            axes.plot(*star, "*", color=colour, markeredgecolor=INK, markersize=12, mew=0.8, label=label)
        cost_axis(axes, axis, unit)
        axes.set(ylabel=worth)
        if floor is not None:
            axes.set_ylim(bottom=floor)
        legend_above(figure, axes)

    return render(name, 270, draw)


def _dots(axes: Axes, curve: Curve) -> None:
    """All candidates as one path of strokes without length, which a round or a square end makes visible: a dot takes
    thirty bytes of the page."""
    if not curve.points:
        return
    vertices = [point for point in curve.points for _ in range(2)]
    path = Path(vertices, [Path.MOVETO, Path.LINETO] * len(curve.points))
    path.should_simplify = False
    end: Literal["round", "projecting"] = "round" if curve.style == "-" else "projecting"
    size = 3.4 if end == "round" else 2.4
    patch = PathPatch(path, fill=False, edgecolor=curve.colour, linewidth=size, alpha=0.3, capstyle=end)
    axes.add_patch(patch)
    axes.update_datalim(vertices)
    axes.autoscale_view()


def cost_axis(axes: Axes, name: str, unit: str) -> None:
    """Numbers of any size: MACs and parameters in thousands or millions, as they need."""
    low, high = axes.get_xlim()
    scale, said = 1.0, unit
    if not unit and max(abs(low), abs(high)) >= 2e6:
        scale, said = 1e6, "millions"
    elif not unit and max(abs(low), abs(high)) >= 2e3:
        scale, said = 1e3, "thousands"
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / scale:g}"))
    axes.set_xlabel(f"{name}, {said}" if said else name)


Kind = Literal["winner", "random_search", "control", "baseline"]


@dataclass(frozen=True)
class Costed:
    """A tested network by what it costs. value: with its interval, in the unit of the axis."""

    name: str
    kind: Kind
    cost: float
    value: float
    low: float
    high: float


MARKS = {"winner": (BLUE, "o"), "random_search": (GREEN, "^"), "control": (ORANGE, "D"), "baseline": (MUTED, "s")}
_HEIGHT = 300.0


def results_by_cost(name: str, rows: Sequence[Costed], axis: str, unit: str, quantity: str, higher: bool) -> str:
    """Dots with intervals and names; the line joins those that no other one beats in both. A logarithmic axis where
    costs span a factor of thirty."""
    order = sorted(rows, key=lambda row: (row.cost, -row.value if higher else row.value))
    best: list[Costed] = []
    for row in order:
        if not best or (row.value > best[-1].value if higher else row.value < best[-1].value):
            best.append(row)

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        if len(best) > 1:
            where: Literal["post"] = "post"
            axes.step([row.cost for row in best], [row.value for row in best], color=GREEN, where=where, linewidth=1.2)
        for row in rows:
            colour, mark = MARKS[row.kind]
            axes.plot((row.cost, row.cost), (row.low, row.high), color=colour, linewidth=1.6, solid_capstyle="butt")
            axes.plot(row.cost, row.value, mark, color=colour, markersize=6)
        costs = [row.cost for row in rows]
        if min(costs) > 0 and max(costs) > 30 * min(costs):
            axes.set_xscale("log")
            axes.set_xlabel(f"{axis}, {unit}" if unit else axis)
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
        else:
            axes.margins(x=0.12)
            cost_axis(axes, axis, unit)
        axes.margins(y=0.12)
        axes.set(ylabel=quantity)
        _names(figure, axes, rows)

    return render(name, _HEIGHT, draw)


def _short(value: float) -> str:
    if value >= 1e6:
        return f"{value / 1e6:g} M"
    return f"{value / 1e3:g} k" if value >= 1e3 else f"{value:g}"


def _names(figure: Figure, axes: Axes, rows: Sequence[Costed]) -> None:
    """Names beside the dots, on the side with more room, moved up or down until none lies on another."""
    figure.draw_without_rendering()
    frame = axes.get_window_extent()
    scale = figure.dpi / 72
    taken: list[tuple[float, float, float, float]] = []
    for row in sorted(rows, key=lambda row: row.kind != "winner"):
        x, y = axes.transData.transform((row.cost, row.value))
        width = (5.0 * len(row.name) + 4) * scale
        right = x + 8 * scale + width < frame.x1
        left = x + 7 * scale if right else x - 7 * scale - width
        shifts = [step * sign * 5.5 for step in range(1, 12) for sign in (1, -1)]  # not on the line of the front
        free = [s for s in shifts if not _crowded((left, y + (s - 5) * scale, width, 10 * scale), taken)]
        shift = free[0] if free else 0.0
        taken.append((left, y + (shift - 5) * scale, width, 10 * scale))
        axes.annotate(
            row.name,
            (row.cost, row.value),
            (7 if right else -7, shift),
            textcoords="offset points",
            ha="left" if right else "right",
            va="center",
            size=8.5,
            color=LABEL,
        )


def _crowded(box: tuple[float, float, float, float], taken: Sequence[tuple[float, float, float, float]]) -> bool:
    x, y, width, height = box
    return any(
        x < left + wide and left < x + width and y < low + tall and low < y + height for left, low, wide, tall in taken
    )
