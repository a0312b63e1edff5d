"""The picture that only a CTR run has: a network's graph of blocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from subshot.launch.reports.charts import (
    BLUE,
    CARD,
    GREEN,
    GRID,
    INK,
    MUTED,
    ORANGE,
    WIDTH,
    render,
)
from subshot.launch.reports.effect_factors import OP_NAMES
from subshot.supernet.nasrec_spec import BINARY_OPS, MERGER_TOKENS, BlockSpec, NasrecSpec

_LEFT, _RIGHT, _WIDE = 104.0, 226.0, 84.0
"""Middles of the dense and of the sparse column, and how wide a box is."""
_HEAD, _BODY, _GAP = 15.0, 27.0, 19.0
_ROW = _HEAD + _BODY + _GAP
_LANE = 7.5

Side = Literal["dense", "sparse"]


@dataclass(frozen=True)
class Wire:
    """An output that is read further down than by the next row: from `start` along `lane` to the rows in `ends`."""

    start: int
    ends: tuple[int, ...]
    lane: int


def rows_of(spec: NasrecSpec) -> list[int]:
    """Indices that are drawn, from the top: 0, the raw input, and every block that puts something out."""
    return [0, *(k for k, block in enumerate(spec.blocks, start=1) if block.dense_width or block.tokens)]


def reads(block: BlockSpec, side: Side) -> tuple[int, ...]:
    """Whose dense, or sparse, outputs a block reads, in rising order."""
    found = {*block.dense_in, *block.left, *block.right} if side == "dense" else {*block.sparse_in}
    return tuple(sorted(found))


def wires(spec: NasrecSpec, side: Side) -> list[Wire]:
    """One wire for each output that skips a row, by block index; wires that pass one another have different lanes,
    and short ones lie inside."""
    rows = rows_of(spec)
    place = {block: row for row, block in enumerate(rows)}
    ends: dict[int, list[int]] = {}
    for block in rows[1:]:
        for source in reads(spec.blocks[block - 1], side):
            if place[block] - place[source] > 1:
                ends.setdefault(source, []).append(block)
    found: list[Wire] = []
    for source in sorted(ends, key=lambda source: (place[ends[source][-1]] - place[source], source)):
        span = range(place[source], place[ends[source][-1]] + 1)
        taken = {w.lane for w in found if place[w.start] <= span[-1] and span[0] <= place[w.ends[-1]]}
        lane = next(lane for lane in range(len(found) + 1) if lane not in taken)
        found.append(Wire(source, tuple(ends[source]), lane))
    return found


def block_graph(spec: NasrecSpec, name: str = "block-graph") -> str:
    """From the raw input at the top to the classifier: dense outputs on the left, sparse ones on the right."""
    rows = rows_of(spec)
    height = _ROW * len(rows) + _BODY + 8
    tops = {block: _ROW * row - _HEAD + 4 for row, block in enumerate(rows)}  # of its head; the raw input has none

    def draw(figure: Figure) -> None:
        figure.set_layout_engine("none")
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.set(xlim=(0, WIDTH), ylim=(height, 0))
        axes.axis("off")
        _wire(axes, spec, "dense", tops)
        _wire(axes, spec, "sparse", tops)
        if spec.dense_features:
            _box(axes, _LEFT, tops[0] + _HEAD, BLUE, "dense input", f"{spec.dense_features} wide")
        sizes = f"{spec.sparse_fields} tokens × {spec.embedding_dim}"
        _box(axes, _RIGHT, tops[0] + _HEAD, GREEN, "embeddings", sizes)
        for block in rows[1:]:
            _block(axes, block, spec.blocks[block - 1], tops[block])
        _classifier(axes, spec, tops[rows[-1]])

    return render(name, height, draw)


def _box(axes: Axes, x: float, top: float, colour: str, first: str, second: str, width: float = _WIDE) -> None:
    for fill, alpha in ((CARD, 1.0), (colour, 0.2)):
        corner, style = (x - width / 2 + 3, top + 3), "round,pad=3,rounding_size=4"
        patch = FancyBboxPatch(corner, width - 6, _BODY - 6, boxstyle=style, linewidth=0)
        patch.set(facecolor=fill, alpha=alpha, zorder=3)
        axes.add_patch(patch)
    axes.text(x, top + 8.5, first, size=9.5, color=INK, ha="center", va="center", zorder=5)
    axes.text(x, top + 20, second, size=8.5, color=MUTED, ha="center", va="center", zorder=5)


def _block(axes: Axes, number: int, block: BlockSpec, top: float) -> None:
    """Heads say what is read, boxes what is put out; the arrows between the boxes are the mergers."""
    body = top + _HEAD
    axes.text(2, body + 8.5, str(number), size=9.5, color=INK, weight="bold", va="center", zorder=6)
    if block.dense_width:
        op = OP_NAMES.get(block.dense_ops[0], block.dense_ops[0]) if block.dense_ops else "FM alone"
        _box(axes, _LEFT, body, BLUE, op, f"{block.dense_width} wide")
        _head(axes, _LEFT, top, dense_reads_in_words(block))
    if block.tokens or block.sparse_in:
        _head(axes, _RIGHT, top, "+".join(map(str, block.sparse_in)))
    if block.tokens:
        op = OP_NAMES.get(block.sparse_ops[0], block.sparse_ops[0]) if block.sparse_ops else "dense alone"
        own = str(block.sparse_dim) if block.sparse_ops else ""
        merged = str(MERGER_TOKENS) if block.dense_to_sparse else ""
        _box(axes, _RIGHT, body, GREEN, op, f"{' + '.join(filter(None, (merged, own)))} tokens")
    inner_left, inner_right = _LEFT + _WIDE / 2, _RIGHT - _WIDE / 2
    middle = (inner_left + inner_right) / 2
    if "dot_product" in block.dense_ops:
        _arrow(axes, (inner_right, top + 7), (inner_left, top + 7), GREEN)
    if block.dense_to_sparse:
        _arrow(axes, (inner_left, body + 8), (inner_right, body + 8), ORANGE)
        axes.text(middle - 2, body + 4, f"{MERGER_TOKENS} tok.", size=7, color=MUTED, ha="center", va="center")
    if block.fm:
        _arrow(axes, (inner_right, body + 20), (inner_left, body + 20), ORANGE)
        axes.text(middle + 2, body + 16, "FM", size=7, color=MUTED, ha="center", va="center")


def dense_reads_in_words(block: BlockSpec) -> str:
    """`0+2`; of gating and sum, which read two sides apart, `1, 2`; of a dot product of data without dense features
    `nothing`; empty where there is no dense operator."""
    if block.dense_ops and block.dense_ops[0] in BINARY_OPS:
        return f"{block.left[0]}, {block.right[0]}"
    return "+".join(map(str, block.dense_in)) or ("nothing" if block.dense_ops else "")


def _head(axes: Axes, x: float, top: float, read: str) -> None:
    if read:
        words = f"reads {read}"
        axes.text(x, top + 7, words, size=8, color=MUTED, ha="center", va="center", zorder=5)
        axes.plot((x - _WIDE / 2, x + _WIDE / 2), (top + _HEAD,) * 2, color=GRID, linewidth=0.6, zorder=2)
        axes.plot((x - _WIDE / 2, x + _WIDE / 2), (top + 0.5,) * 2, color=MUTED, linewidth=0.8, zorder=2)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str) -> None:
    style = {
        "arrowstyle": "-|>,head_length=0.3,head_width=0.15",
        "color": colour,
        "lw": 1.3,
        "shrinkA": 0,
        "shrinkB": 0,
    }
    axes.annotate("", end, start, arrowprops=style, zorder=4)


def _wire(axes: Axes, spec: NasrecSpec, side: Side, tops: Mapping[int, float]) -> None:
    """Straight down to the next row; to a later one down a lane beside the column, with a dot where a wire parts."""
    rows = list(tops)
    x, colour = (_LEFT, BLUE) if side == "dense" else (_RIGHT, GREEN)
    outwards = -1.0 if side == "dense" else 1.0
    edge = x + outwards * _WIDE / 2
    for above, below in zip(rows, rows[1:], strict=False):
        if above in reads(spec.blocks[below - 1], side):
            _arrow(axes, (x, tops[above] + _HEAD + _BODY), (x, tops[below]), colour)
    found = wires(spec, side)
    for wire in found:
        lane = edge + outwards * (9 + _LANE * wire.lane)
        leaves = tops[wire.start] + _HEAD + _BODY - 6
        arrivals = []
        for end in wire.ends:
            taps = [other for other in found if end in other.ends]
            arrivals.append(tops[end] + _HEAD / 2 + 4.5 * (taps.index(wire) - (len(taps) - 1) / 2))
        axes.plot((edge, lane, lane), (leaves, leaves, arrivals[-1]), color=colour, linewidth=1.1, zorder=1)
        for arrival in arrivals:
            _arrow(axes, (lane, arrival), (edge, arrival), colour)
        axes.plot([lane] * (len(arrivals) - 1), arrivals[:-1], "o", color=colour, markersize=3, zorder=4)


def _classifier(axes: Axes, spec: NasrecSpec, last_top: float) -> None:
    last = spec.blocks[-1]
    bottom = last_top + _HEAD + _BODY
    for x, size, colour in ((_LEFT, last.dense_width, BLUE), (_RIGHT, last.tokens, GREEN)):
        if size:
            _arrow(axes, (x, bottom), (x, bottom + _GAP), colour)
    inputs = last.dense_width + last.tokens * spec.embedding_dim
    width = _RIGHT - _LEFT + _WIDE
    _box(axes, (_LEFT + _RIGHT) / 2, bottom + _GAP, MUTED, "classifier", f"{inputs} inputs, 1 logit", width)
