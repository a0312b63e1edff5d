"""The NAS-Bench-201 space: one cell of 6 edges with 5 operations each, repeated in a fixed skeleton; 15,625 strings.

Source: Dong and Yang (2020, arXiv 2001.00326); D-X-Y/AutoDL-Projects `xautodl/models/cell_operations.py` and
`cell_infers/{cells,tiny_network}.py`. NATS-Bench calls it the topology space.

A cell has nodes 0 to 3; node 0 is its input, node 3 its output, and each node is the sum of its incoming edges. An
edge is dead where no path of edges that are not none leads from node 0 to node 3 over it.

The canonical form is the genotype itself. The benchmark trained every string as it is written: its tables have a row
each, their counts include dead edges, and a dead edge need not be without effect, since a convolution of zeros puts
out its BatchNorm's shift. Cells that are equal up to the numbering of nodes, or to a skip (6,466 kinds), are different
rows with different accuracies too. `without_dead_edges` and `is_live` are for studies of the 9,445 live genotypes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from subshot.supernet.cost import Conv, Cost, chain_cost, linear_cost
from subshot.supernet.space import Decision, Genotype, why_not_of

NONE = "none"
OPS = (NONE, "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
"""(source node, target node), in the order of the official string."""

_DECISIONS = tuple(Decision(f"{source}>{target}", OPS) for source, target in EDGES)
_KERNELS = {"nor_conv_1x1": 1, "nor_conv_3x3": 3}
_STAGES = 3


@dataclass(frozen=True)
class NasBench201Spec:
    """A chosen network: the operations of its cell by name, in the order of EDGES, and its skeleton."""

    ops: tuple[str, ...]
    classes: int
    channels: int
    cells: int


@dataclass(frozen=True)
class NasBench201Space:
    """Three stages of `cells` cells with `channels`, 2x and 4x channels, a residual block before the second and third.

    The defaults are the benchmark's for CIFAR-10; CIFAR-100 has 100 classes, ImageNet16-120 has 120 and size 16.
    """

    input_size: int = 32
    classes: int = 10
    channels: int = 16
    cells: int = 5

    def __post_init__(self) -> None:
        if self.input_size < 4 or self.input_size % 4:
            raise ValueError(
                f"{self.name}: input_size is {self.input_size}; it must be a positive multiple of 4, because two "
                "blocks halve the map"
            )
        if min(self.classes, self.channels, self.cells) < 1:
            raise ValueError(
                f"{self.name}: classes, channels and cells must be 1 or more; they are {self.classes}, "
                f"{self.channels} and {self.cells}"
            )

    @property
    def name(self) -> str:
        return "nasbench201"

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """One an edge, named source>target."""
        return _DECISIONS

    def canonical(self, genotype: Genotype) -> Genotype:
        """The genotype itself: nothing is merged, as in the tables (see the head of this file)."""
        return genotype

    def why_invalid(self, genotype: Genotype) -> str | None:
        return why_not_of(self, genotype)

    def decode(self, genotype: Genotype) -> NasBench201Spec:
        ops = tuple(OPS[choice] for choice in genotype)
        return NasBench201Spec(ops, self.classes, self.channels, self.cells)

    @cached_property
    def fixed_cost(self) -> Cost:
        """The cost of stem, residual blocks, last BatchNorm and classifier, which every genotype pays."""
        channels, size = self.channels, self.input_size
        total = chain_cost((Conv(3, channels, 3),), size)
        for _ in range(_STAGES - 1):
            total += chain_cost((Conv(channels, 2 * channels, 3, 2), Conv(2 * channels, 2 * channels, 3)), size)
            channels, size = 2 * channels, size // 2
            shortcut = chain_cost((Conv(channels // 2, channels),), size)
            total += Cost(shortcut.macs, shortcut.params - 2 * channels, shortcut.activation_elements)  # no BatchNorm
        return total + Cost(params=2 * channels) + linear_cost(channels, self.classes, bias=True)

    @cached_property
    def edge_costs(self) -> tuple[Cost, ...]:
        """The cost of each operation, in the order of OPS, on one edge of all cells."""

        def everywhere(op: str) -> Cost:
            total = Cost()
            for stage, width in enumerate(stage_channels(self.channels)):
                convs = (Conv(width, width, _KERNELS[op]),) * self.cells if op in _KERNELS else ()
                total += chain_cost(convs, self.input_size >> stage)
            return total

        return tuple(everywhere(op) for op in OPS)

    def cost(self, genotype: Genotype) -> Cost:
        """Exact, dead edges counted, as in the benchmark's tables; for its FLOPs see `official_flops`."""
        total = self.fixed_cost
        for choice in genotype:
            total += self.edge_costs[choice]
        return total

    def build(self, genotype: Genotype) -> NasBench201Network:
        """The network, with torch's default initialisation from the global random state.

        Its `blocks` are the cells and the two residual blocks in order, 17 at 5 cells a stage.
        """
        return build_nasbench201(self.decode(genotype))


def official_flops(cost: Cost, classes: int) -> int:
    """The FLOPs of the benchmark's tables for one image: MACs of convolutions and classifier, and the classifier's
    bias. (AutoDL-Projects `xautodl/utils/flop_benchmark.py`)"""
    return cost.macs + classes


def to_string(genotype: Genotype) -> str:
    """The official form, `|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`: the node's incoming edges by source, nodes 1 to 3."""
    nodes: dict[int, str] = {}
    for (source, target), choice in zip(EDGES, genotype, strict=True):
        nodes[target] = nodes.get(target, "|") + f"{OPS[choice]}~{source}|"
    return "+".join(nodes.values())


_STRING = re.compile(r"\|(\w+)~0\|\+\|(\w+)~0\|(\w+)~1\|\+\|(\w+)~0\|(\w+)~1\|(\w+)~2\|")


def from_string(arch_str: str) -> Genotype:
    """The inverse of `to_string`. Raises ValueError for any other text."""
    found = _STRING.fullmatch(arch_str)
    if found is None:
        raise ValueError(
            f"nasbench201: {arch_str!r} is no architecture string; it must read |op~0|+|op~0|op~1|+|op~0|op~1|op~2|"
        )
    for (source, target), op in zip(EDGES, found.groups(), strict=True):
        if op not in OPS:
            raise ValueError(f"nasbench201: edge {source}>{target} cannot be {op!r}; allowed: {', '.join(OPS)}")
    return tuple(OPS.index(op) for op in found.groups())


def without_dead_edges(genotype: Genotype) -> Genotype:
    """The same cell with each edge none that no path from node 0 to node 3, free of none, passes over.

    A freshly initialised network computes the same without them (BatchNorm shifts are 0); a trained one need not.
    """
    edges = [edge for edge, choice in zip(EDGES, genotype, strict=True) if OPS[choice] != NONE]
    reached, reaching = {0}, {3}
    for source, target in edges:  # EDGES is in rising order of targets
        if source in reached:
            reached.add(target)
    for source, target in reversed(edges):  # so every edge out of a target has been seen before it
        if target in reaching:
            reaching.add(source)
    return tuple(
        choice if source in reached and target in reaching else OPS.index(NONE)
        for (source, target), choice in zip(EDGES, genotype, strict=True)
    )


def is_live(genotype: Genotype) -> bool:
    """Whether no edge is dead: true of 9,445 genotypes, the all-none one among them.

    This is the subset that VKDNW's and GRAF's tables are over (GRAF: "remove zero branches").
    """
    return without_dead_edges(genotype) == genotype


def edge_name(edge: tuple[int, int]) -> str:
    """The name of an edge's module, as in edge01 from node 0 to node 1."""
    source, target = edge
    return f"edge{source}{target}"


class Cell(nn.Module):
    """A cell over modules by edge; an edge that is missing is none and costs nothing.

    A node without an incoming edge is zeros of the input's shape that hang on no graph (the public code multiplies
    the input by 0); what such a node feeds is computed, on zeros. So is an edge that the output does not depend on:
    its parameters get no gradient, its BatchNorm its statistics.
    """

    def __init__(self, edges: Mapping[tuple[int, int], nn.Module]) -> None:
        super().__init__()
        self.edges = nn.ModuleDict({edge_name(edge): edges[edge] for edge in EDGES if edge in edges})

    def forward(self, x: Tensor) -> Tensor:
        nodes = [x]
        for node in range(1, 4):
            value: Tensor | None = None
            for source in range(node):
                name = edge_name((source, node))
                if name in self.edges:
                    put_out = self.edges[name](nodes[source])
                    value = put_out if value is None else value + put_out
            nodes.append(torch.zeros_like(x) if value is None else value)
        return nodes[3]


def relu_conv_bn(conv: Conv) -> nn.Sequential:
    """ReLU (not in place, since other edges read the same node), convolution without bias, BatchNorm."""
    padding = conv.kernel // 2
    convolution = nn.Conv2d(conv.in_channels, conv.out_channels, conv.kernel, conv.stride, padding, bias=False)
    return nn.Sequential(nn.ReLU(), convolution, nn.BatchNorm2d(conv.out_channels))


def edge_module(op: str, channels: int) -> nn.Module:
    """The module of any operation but none."""
    if op in _KERNELS:
        return relu_conv_bn(Conv(channels, channels, _KERNELS[op]))
    if op == "avg_pool_3x3":
        return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
    assert op == "skip_connect", op
    return nn.Identity()


class ResidualBlock(nn.Module):
    """The block between stages: halves the map, doubles the channels; no activation at its end."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_a = relu_conv_bn(Conv(channels, 2 * channels, 3, 2))
        self.conv_b = relu_conv_bn(Conv(2 * channels, 2 * channels, 3))
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(channels, 2 * channels, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.shortcut(x) + self.conv_b(self.conv_a(x))
        return out


class NasBench201Network(nn.Module):
    """Images [N, 3, H, W] to logits [N, classes]. (The public network puts out the pooled features beside them.)"""

    def __init__(self, stem: nn.Module, blocks: Sequence[nn.Module], head: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.stem = stem
        self.blocks = nn.ModuleList(blocks)
        self.head = head
        self.classifier = classifier

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.classifier(self.head(x).mean(dim=(2, 3)))
        return logits


def new_stem(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))


def new_head(channels: int) -> nn.Sequential:
    """(The public code's ReLU here is in place, which changes no value; scores hook activations and derive them.)"""
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU())


def stage_channels(channels: int) -> tuple[int, ...]:
    """The width of each stage."""
    return tuple(channels << stage for stage in range(_STAGES))


def build_nasbench201(spec: NasBench201Spec) -> NasBench201Network:
    """A stand-alone network. Its modules are made in the order of the public code, so that they draw in that order."""
    stem = new_stem(spec.channels)
    blocks: list[nn.Module] = []
    widths = stage_channels(spec.channels)
    for stage, width in enumerate(widths):
        if stage:
            blocks.append(ResidualBlock(widths[stage - 1]))
        for _ in range(spec.cells):
            chosen = zip(EDGES, spec.ops, strict=True)
            blocks.append(Cell({edge: edge_module(op, width) for edge, op in chosen if op != NONE}))
    return NasBench201Network(stem, blocks, new_head(widths[-1]), nn.Linear(widths[-1], spec.classes))
