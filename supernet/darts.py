"""The DARTS space (Liu et al. 2019, arXiv 1806.09055): a normal and a reduction cell of four steps each.

Source: quark0/darts, cnn/{genotypes,model,operations}.py. NAS-Bench-301 (Zela et al. 2022) is this space at
channels=32, cells=8. The "DARTS" networks of NDS (Radosavovic et al. 2019) vary channels and cells, and their 242
billion cells allow `none` and one input twice; of those this space holds the networks that have neither.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import combinations, permutations

from torch import nn

from subshot.supernet.cost import Conv, Cost, chain_cost, linear_cost, strided
from subshot.supernet.darts_network import (
    STEM_FACTOR,
    STEPS,
    CellShape,
    DartsNetwork,
    DartsSpec,
    PublishedCell,
    cell_shapes,
)
from subshot.supernet.space import Decision, Genotype, validated, why_not_of

OPS = (
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
"""The published primitives without `none`, in their order."""
_PAIRS = tuple(tuple(combinations(range(2 + step), 2)) for step in range(STEPS))
_GENES = 3 * STEPS
_DECISIONS = tuple(
    decision
    for cell in ("normal", "reduce")
    for step, pairs in enumerate(_PAIRS)
    for decision in (
        Decision(f"{cell}.{step}.inputs", tuple(f"{low}+{high}" for low, high in pairs)),
        Decision(f"{cell}.{step}.low", OPS),
        Decision(f"{cell}.{step}.high", OPS),
    )
)
DARTS_V2: tuple[PublishedCell, PublishedCell] = (
    (
        *(("sep_conv_3x3", 0), ("sep_conv_3x3", 1)),
        *(("sep_conv_3x3", 0), ("sep_conv_3x3", 1)),
        *(("sep_conv_3x3", 1), ("skip_connect", 0)),
        *(("skip_connect", 0), ("dil_conv_3x3", 2)),
    ),
    (
        *(("max_pool_3x3", 0), ("max_pool_3x3", 1)),
        *(("skip_connect", 2), ("max_pool_3x3", 1)),
        *(("max_pool_3x3", 0), ("skip_connect", 2)),
        *(("skip_connect", 2), ("max_pool_3x3", 1)),
    ),
)
"""The published cells (normal, reduce) of the second-order search, `DARTS` in genotypes.py."""


@dataclass(frozen=True)
class DartsSpace:
    """`cells` cells whose first steps have `channels` channels; the defaults are the published CIFAR networks'.

    A step decides its pair of different inputs (`0+2`; 0 and 1 are the cell before last and the last, 2 + s is step
    s), the operation on the `low` input and that on the `high` one. Every genotype is valid.

    Raises ValueError where a size is not allowed.
    """

    input_size: int = 32
    classes: int = 10
    channels: int = 36
    cells: int = 20
    name: str = "darts"

    def __post_init__(self) -> None:
        if min(self.input_size, self.classes, self.channels) < 1 or self.cells < 3:
            raise ValueError(
                f"{self.name}: a network needs a positive size, classes and channels, and 3 or more cells (one normal, "
                f"two reductions); it was given {self.input_size}, {self.classes}, {self.channels} and {self.cells}"
            )

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """`normal.0.inputs`, `normal.0.low`, `normal.0.high`, and so on for the steps, then the same of `reduce`."""
        return _DECISIONS

    def why_invalid(self, genotype: Genotype) -> str | None:
        return why_not_of(self, genotype)

    def canonical(self, genotype: Genotype) -> Genotype:
        """Of all orders of a cell's steps that build the same network, the least genes.

        All steps have the same channels and are concatenated, and what reads a cell is a 1x1 convolution or the
        classifier; so the order of independent steps changes nothing but the order of weights.
        """
        return _least(genotype[:_GENES]) + _least(genotype[_GENES:])

    def decode(self, genotype: Genotype) -> DartsSpec:
        normal, reduce = self.to_genotype(genotype)
        return DartsSpec(normal, reduce, self.channels, self.cells, self.classes)

    def from_genotype(self, normal: Sequence[tuple[str, int]], reduce: Sequence[tuple[str, int]]) -> Genotype:
        """The canonical genotype of two cells as DARTS publishes them: (operation, input) twice for each step, all
        steps concatenated. Raises ValueError with the reason where a cell is not of this space."""
        return validated(self, self._encoded("normal", normal) + self._encoded("reduce", reduce))

    def _encoded(self, which: str, cell: Sequence[tuple[str, int]]) -> Genotype:
        if len(cell) != 2 * STEPS:
            raise ValueError(f"{self.name}: the {which} cell needs {2 * STEPS} (operation, input); it has {len(cell)}")
        for place, (op, source) in enumerate(cell):
            if op not in OPS:
                raise ValueError(f"{self.name}: the {which} cell has operation {op!r}; allowed: {', '.join(OPS)}")
            if not 0 <= source < 2 + place // 2 or source == cell[place ^ 1][1]:
                raise ValueError(
                    f"{self.name}: the two inputs of step {place // 2} of the {which} cell must be different numbers "
                    f"of 0 to {1 + place // 2}; they are {cell[place & ~1][1]} and {cell[place | 1][1]}"
                )
        return _genes(tuple((op, int(source)) for op, source in cell))

    def to_genotype(self, genotype: Genotype) -> tuple[PublishedCell, PublishedCell]:
        """The cells (normal, reduce) in the published form, the lower input of a step first."""
        return _cell(genotype[:_GENES]), _cell(genotype[_GENES:])

    @cached_property
    def _shapes(self) -> tuple[CellShape, ...]:
        return tuple(cell_shapes(self.channels, self.cells))

    def cost(self, genotype: Genotype) -> Cost:
        """Exact MACs, parameters and activation elements of one network (conventions: supernet/cost.py)."""
        normal, reduce = self.to_genotype(genotype)
        total = chain_cost((Conv(3, STEM_FACTOR * self.channels, 3),), self.input_size)
        older_size = last_size = self.input_size
        for shape in self._shapes:
            total += _cell_cost(reduce if shape.reduction else normal, shape, older_size, last_size)
            older_size, last_size = last_size, strided(last_size, 1 + shape.reduction)
        return total + linear_cost(STEPS * self._shapes[-1].channels, self.classes, bias=True)

    def build(self, genotype: Genotype) -> nn.Module:
        """The network, with torch's default initialisation, which is the published one."""
        return DartsNetwork(self.decode(genotype))


def _cell(genes: Genotype) -> PublishedCell:
    found: list[tuple[str, int]] = []
    for step, pairs in enumerate(_PAIRS):
        inputs, low, high = genes[3 * step : 3 * step + 3]
        found += [(OPS[low], pairs[inputs][0]), (OPS[high], pairs[inputs][1])]
    return tuple(found)


def _genes(cell: PublishedCell) -> Genotype:
    genes: list[int] = []
    for step, pairs in enumerate(_PAIRS):
        (low, source), (high, other) = sorted(cell[2 * step : 2 * step + 2], key=lambda edge: edge[1])
        genes += [pairs.index((source, other)), OPS.index(low), OPS.index(high)]
    return tuple(genes)


def _least(genes: Genotype) -> Genotype:
    return min(_genes(cell) for cell in reordered_cells(_cell(genes)))


def reordered_cells(cell: PublishedCell) -> Iterator[PublishedCell]:
    """The cell with its steps in every order in which a step reads earlier ones only."""
    for order in permutations(range(STEPS)):
        place = (0, 1, *(2 + order.index(step) for step in range(STEPS)))
        edges = tuple((op, place[source]) for step in order for op, source in cell[2 * step : 2 * step + 2])
        if all(source < 2 + position // 2 for position, (_, source) in enumerate(edges)):
            yield edges


def _cell_cost(cell: PublishedCell, shape: CellShape, older_size: int, last_size: int) -> Cost:
    total = chain_cost((Conv(shape.last_channels, shape.channels),), last_size)
    if shape.after_reduction:
        total += _factorized_reduce_cost(shape.older_channels, shape.channels, older_size)
    else:
        total += chain_cost((Conv(shape.older_channels, shape.channels),), older_size)
    for op, source in cell:
        reads_input = source < 2
        size = last_size if reads_input else strided(last_size, 1 + shape.reduction)
        total += _op_cost(op, shape.channels, size, 1 + (shape.reduction and reads_input))
    return total


@lru_cache(maxsize=4096)  # a network asks for a few dozen different ones, each many times
def _op_cost(op: str, channels: int, size: int, stride: int) -> Cost:
    """The cost of an operation on a map of side `size`."""
    if op == "skip_connect" and stride == 2:
        return _factorized_reduce_cost(channels, channels, size)
    if "conv" not in op:
        return Cost()
    first = _separable_cost(channels, int(op[-1]), size, stride)
    if op.startswith("dil_conv"):  # dilation changes neither the weights nor the map
        return first
    return first + _separable_cost(channels, int(op[-1]), strided(size, stride), 1)


def _separable_cost(channels: int, kernel: int, size: int, stride: int) -> Cost:
    pair = (Conv(channels, channels, kernel, stride, groups=channels), Conv(channels, channels))
    return chain_cost(pair, size) + Cost(params=-2 * channels)  # no BatchNorm between the two


def _factorized_reduce_cost(in_channels: int, out_channels: int, size: int) -> Cost:
    half = chain_cost((Conv(in_channels, out_channels // 2, 1, 2),), size)
    return half + half
