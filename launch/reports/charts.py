"""The pictures of a report, as SVG text to stand inside an HTML page.

matplotlib draws with placeholder colours, which then become the page's CSS variables (launch/reports/page.py), so that
pictures follow light and dark. Equal numbers give equal bytes: no dates, and ids from a fixed salt. Sizes are points.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import FancyBboxPatch, Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

INK, MUTED, GRID, CARD, BLUE, ORANGE, GREEN, PURPLE, RED, LABEL = (f"#0000{number:02x}" for number in range(1, 11))
_VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    GRID: "grid",
    CARD: "card",
    BLUE: "blue",
    ORANGE: "orange",
    GREEN: "green",
    PURPLE: "purple",
    RED: "red",
}
RUN_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, RED)
"""Of runs in one picture."""
_HALO = "var(--ink); paint-order: stroke; stroke: var(--card); stroke-width: 3px; stroke-linejoin: round"
"""LABEL is ink for words that lie on lines: the card shines through around them."""
METHOD_COLOURS = {"evolution": BLUE, "random": ORANGE, "nsga2": BLUE, "optimum": GREEN}
METHOD_NAMES = {"evolution": "evolution", "random": "random search", "nsga2": "NSGA-II", "optimum": "exact optimum"}
METHOD_LINES = {"evolution": "-", "random": "--", "nsga2": "-"}
"""NSGA-II looks as evolution does: no run has both."""

WIDTH = 330.0
PAD = 7.0
"""Points left free at the sides: a reader's letters may be wider than those that the layout was made with."""
MOST_POINTS = 1000
_RC: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "axes.formatter.useoffset": False,
    "font.family": ["DejaVu Sans"],
    "font.size": 10,
    "text.color": INK,
    "axes.facecolor": "none",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.xmargin": 0.02,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "savefig.facecolor": "none",
}


def render(name: str, height: float, draw: Callable[[Figure], None], width: float = WIDTH) -> str:
    """What `draw` puts on a figure, as an <svg> element. `name` keeps the ids of pictures on one page apart."""
    with matplotlib.rc_context({**_RC, "svg.hashsalt": name}):
        figure = Figure(figsize=(width / 72, height / 72), layout=ConstrainedLayoutEngine(w_pad=PAD / 72, h_pad=4 / 72))
        draw(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg ") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    view = re.search(r'viewBox="[^"]*"', svg)
    assert view is not None
    svg = f"<svg {view.group()}>" + svg[svg.index(">") + 1 :]
    svg = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", svg).replace("xlink:href=", "href=")
    svg = re.sub(r"(font(?:-family)?: [^;\"]*?)'DejaVu Sans'[^;\"]*", r"\1system-ui, sans-serif", svg)
    svg = svg.replace(LABEL, _HALO)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var(--{variable})")
    svg = re.sub(r"<[^>]+>", _hundredths, svg)
    return re.sub(r"\n\s*", "\n", svg).strip()


def _hundredths(tag: re.Match[str]) -> str:
    """An SVG tag with its lengths in hundredths of a point: to the eye the same, and half as long."""
    return re.sub(r"\d+\.\d{3,}", lambda found: f"{float(found.group()):.2f}", tag.group())


def millions(value: float) -> str:
    """MACs or parameters as people say them."""
    return f"{value / 1e6:.3g} M" if value < 1e9 else f"{value / 1e9:.3g} G"


def count_text(count: float) -> str:
    """MACs or parameters: of small networks every digit."""
    return f"{count:,.0f}" if count < 1e6 else millions(count)


def signed(value: float) -> str:
    """Three digits, with its sign."""
    return f"{value:+.3g}".replace("-", "−")


def signed_count(value: float) -> str:
    """MACs or parameters more or less, three digits: `+1.2 M`, `−12,300`."""
    size = float(f"{abs(value):.3g}")
    return f"{'−' if value < 0 else '+'}{count_text(size)}"


def shortened(name: str, most: int = 28) -> str:
    """A name that fits into a picture: of one with more letters its beginning and its end."""
    half = most // 2
    return name if len(name) <= most else f"{name[: half - 1]}…{name[-half:]}"


def legend_above(figure: Figure, axes: Axes, most: int = 3) -> None:
    """As many names side by side as the picture is wide, at most `most`."""
    handles, names = axes.get_legend_handles_labels()
    names = [shortened(name, 44) for name in names]
    longest = max(map(len, names), default=1)
    columns = max(1, min(most, len(names), int(WIDTH // (34 + 5.3 * longest))))
    figure.legend(handles, names, loc="outside upper left", ncols=columns, columnspacing=1.2)


@dataclass(frozen=True)
class Box:
    """One layer of a chain as it is drawn. macs_share: of the whole network's MACs."""

    stage: str
    op: str
    channels: int
    size: int
    macs_share: float


_ROW, _TOP = 18.0, 26.0
_MIDDLE, _WIDEST = 158.0, 146.0


def chain(boxes: Sequence[Box], name: str = "chain") -> str:
    """From top to bottom: width is channels, strength of colour the kernel, height the expansion; identity a line."""
    height = _TOP + _ROW * len(boxes) + 6
    widest = max(box.channels for box in boxes)
    kernels = [number_after("k", box.op) for box in boxes]
    expansions = [number_after("e", box.op) for box in boxes]

    def draw(figure: Figure) -> None:
        figure.set_layout_engine("none")
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.set(xlim=(0, WIDTH), ylim=(height, 0))
        axes.axis("off")
        for x, words, side in (
            (_MIDDLE, "channels", "center"),
            (240, "operation", "left"),
            (WIDTH - 2, "MACs", "right"),
        ):
            axes.text(x, 10, words, size=9, color=MUTED, ha=side, va="center")
        axes.text(2, 10, "output", size=9, color=MUTED, va="center")
        axes.plot((_MIDDLE, _MIDDLE), (_TOP - 6, height - 4), color=GRID, linewidth=1.5, zorder=0)
        for row, box in enumerate(boxes):
            y = _TOP + _ROW * (row + 0.5)
            first = row == 0 or boxes[row - 1].stage != box.stage
            if first:
                last = max(n for n, other in enumerate(boxes) if other.stage == box.stage)
                axes.plot((78, 78), (y - 7, _TOP + _ROW * (last + 0.5) + 7), color=MUTED, linewidth=1)
                axes.text(2, y, f"{box.channels} × {box.size}²", size=9, color=INK, va="center")
                if last > row:
                    axes.text(2, y + 13, box.stage, size=8.5, color=MUTED, va="center")
            if box.op == "identity":
                axes.plot((_MIDDLE - 12, _MIDDLE + 12), (y, y), color=MUTED, linewidth=1.2)
            else:
                _box(axes, y, box, widest, kernels, expansions)
            shade = MUTED if box.op == "identity" else INK
            axes.text(240, y, box.op, size=9.5, color=shade, va="center")
            share = f"{100 * box.macs_share:.1f} %" if box.macs_share else ""
            axes.text(WIDTH - 2, y, share, size=9, color=MUTED, ha="right", va="center")

    return render(name, height, draw)


def _box(axes: Axes, y: float, box: Box, widest: int, kernels: list[int], expansions: list[int]) -> None:
    kernel, expansion = number_after("k", box.op), number_after("e", box.op)
    ranks = sorted({k for k in kernels if k})
    alpha = 0.4 + 0.6 * ranks.index(kernel) / max(1, len(ranks) - 1) if kernel and len(ranks) > 1 else 0.85
    tall = 13.0 if expansion == max(expansions) else 7.5
    width = max(6.0, _WIDEST * box.channels / widest)
    colour = BLUE if kernel else GREEN
    for fill, opacity, order in ((CARD, 1.0, 2), (colour, alpha, 3)):  # the first hides the line behind
        corner, style = (_MIDDLE - width / 2 + 2, y - tall / 2), "round,pad=0,rounding_size=2.5"
        patch = FancyBboxPatch(corner, width - 4, tall, boxstyle=style, linewidth=0)
        patch.set(facecolor=fill, alpha=opacity, zorder=order)
        axes.add_patch(patch)


def number_after(letter: str, op: str) -> int:
    """5 after k in k5e6 and shuffle-k5; 0 where there is none."""
    found = re.search(rf"(?:^|[-\d]){letter}(\d+)", op)
    return int(found.group(1)) if found else 0


Points = tuple[Sequence[float], Sequence[float]]


def thinned(values: Sequence[tuple[float, float]], most: int = MOST_POINTS) -> list[tuple[float, float]]:
    """At most so many of them, evenly spread over the search: enough to see, small enough to mail."""
    step = -(-len(values) // most) if values else 1
    return list(values[::step])


@dataclass(frozen=True)
class Measured:
    """A share with its 95 % interval."""

    name: str
    value: float
    low: float
    high: float
    is_winner: bool


def intervals(rows: Sequence[Measured]) -> str:
    """One dot with its interval a network, from the top down, in per cent."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for y, row in enumerate(rows):
            colour = BLUE if row.is_winner else ORANGE
            axes.plot((100 * row.low, 100 * row.high), (y, y), color=colour, linewidth=2, solid_capstyle="butt")
            axes.plot(100 * row.value, y, "o" if row.is_winner else "D", color=colour, markersize=7)
            axes.annotate(
                f"{100 * row.value:.1f}", (100 * row.value, y), (0, 7), textcoords="offset points", ha="center", size=9
            )
        axes.set(ylim=(len(rows) - 0.5, -0.7), xlabel="accuracy on the test images, % (95 % interval)")
        axes.set_yticks(range(len(rows)), [row.name for row in rows], color=INK, size=10)
        axes.margins(x=0.06)
        axes.grid(axis="y", visible=False)

    return render("intervals", 66 + 30 * len(rows), draw)


def heat_map(
    layers: Sequence[str], rows: Sequence[str], values: Sequence[Sequence[float | None]], chosen: Sequence[str]
) -> str:
    """values[row][layer]: a stronger colour is higher; None is empty, nan a dash. Row chosen[layer] is framed."""
    known = [v for row in values for v in row if v is not None and np.isfinite(v)]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    digits = 3 if high - low < 0.1 else 2
    stages = [layer.split(".")[0] for layer in layers]

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for y, (name, row) in enumerate(zip(rows, values, strict=True)):
            for x, value in enumerate(row):
                if value is None:
                    continue
                weight = (value - low) / (high - low) if high > low else 0.5
                dash = not np.isfinite(value)
                alpha = 0.0 if dash else 0.04 + 0.5 * weight  # the ink on it stays legible, light and dark
                axes.add_patch(Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, facecolor=BLUE, alpha=alpha, linewidth=0))
                colour = MUTED if dash else INK
                axes.text(
                    x, y, "–" if dash else f"{value:.{digits}f}", size=7.5, color=colour, ha="center", va="center"
                )
                if chosen and chosen[x] == name:
                    frame = Rectangle(
                        (x - 0.48, y - 0.46), 0.96, 0.92, fill=False, edgecolor=ORANGE, linewidth=2.2, zorder=5
                    )
                    axes.add_patch(frame)
        axes.set(xlim=(-0.5, len(layers) - 0.5), ylim=(len(rows) - 0.5, -0.5))
        axes.set_yticks(range(len(rows)), rows, color=INK)
        _layer_ticks(axes, stages, CARD, zorder=4)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)

    return render("heat-map", 44 + 25 * len(rows), draw, width=720)


def _layer_ticks(axes: Axes, stages: Sequence[str], colour: str = GRID, zorder: int = 0) -> None:
    """Names each stage under its middle, with a line where the next one begins."""
    names = list(dict.fromkeys(stages))
    places = [[n for n, stage in enumerate(stages) if stage == name] for name in names]
    axes.set_xticks([float(np.mean(place)) for place in places], [name.removeprefix("stage") for name in names])
    axes.set_xlabel("stage, and its layers from left to right" if len(names) < len(stages) else "layer")
    for place in places[:-1]:
        axes.axvline(place[-1] + 0.5, color=colour, linewidth=1.2 if colour == GRID else 5, zorder=zorder)


Dots = Sequence[Sequence[float]]


def by_layer(
    name: str, layers: Sequence[str], series: Mapping[str, Dots], quantity: str, band: tuple[float, float] | None = None
) -> str:
    """One dot a candidate. series[label][layer]: values, nan left out. Logarithmic where they span a factor of 10."""
    every = [v for dots in series.values() for values in dots for v in values if np.isfinite(v)]
    log = bool(every) and min(every) > 0 and max(every) > 10 * min(every)

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        if band is not None:
            axes.axhspan(*band, color=GREEN, alpha=0.2, linewidth=0, label=f"{band[0]:g} to {band[1]:g}")
        for place, (label, dots) in enumerate(series.items()):
            colour, mark = (BLUE, "o") if place % 2 == 0 else (ORANGE, "x")
            shift = 0.4 * (place - (len(series) - 1) / 2)
            step = 0.09 if len(series) == 1 else 0.03
            xs = [n + shift + step * (i - (len(v) - 1) / 2) for n, v in enumerate(dots) for i in range(len(v))]
            ys = [v for values in dots for v in values]
            axes.plot(xs, ys, mark, color=colour, markersize=3.2, alpha=0.8, mew=0.9, label=label)
        if log:
            axes.set_yscale("log")
            wide = max(every) > 100 * min(every)
            axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_xlim(-0.7, len(layers) - 0.3)
        if band is not None and not log:
            low, high = axes.get_ylim()
            axes.set_ylim(min(low, band[0] - 0.05), max(high, band[1] + 0.05))
        axes.grid(axis="x", visible=False)
        _layer_ticks(axes, [layer.split(".")[0] for layer in layers])
        axes.set_ylabel(quantity)
        if len(series) > 1 or band is not None:
            legend_above(figure, axes)

    return render(name, 230, draw)


def curves(name: str, lines: Mapping[str, Points], quantity: str, x_name: str, winner: str = "") -> str:
    """Lines over training. Where there are several, the winner's is blue and the others orange."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        plain = len(lines) == 1
        others = [label for label in lines if label != winner]
        for label, (xs, ys) in lines.items():
            is_winner = plain or label == winner
            style = "-" if is_winner else ("--", "-.", ":")[others.index(label) % 3]
            mark = "o" if len(xs) < 2 else ""
            axes.plot(
                xs,
                ys,
                style,
                marker=mark,
                color=BLUE if is_winner else ORANGE,
                label=label,
                zorder=3 if is_winner else 2,
            )
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set(xlabel=x_name, ylabel=quantity)
        if not plain:
            legend_above(figure, axes, 4)

    return render(name, 190 if len(lines) == 1 else 215, draw)


def colour_of(method: str) -> str:
    return METHOD_COLOURS.get(method, MUTED)


def name_of(method: str) -> str:
    return METHOD_NAMES.get(method, method)
