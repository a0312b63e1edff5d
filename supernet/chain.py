"""Chain spaces: a stem, layers that each choose one operation, a head and a classifier.

MobileNetV2, ShuffleNetV2 and NAS-Bench-Macro are tables of this form. A `ChainSpace` is data; its decisions, its
costs and its networks are derived from the same description, so they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Literal

from subshot.supernet.cost import COSTS, Conv, Cost, chain_cost, linear_cost, strided
from subshot.supernet.space import Additive, Decision, Genotype, why_not_of

Wiring = Literal["plain", "residual", "shuffle", "shuffle_down"]
IDENTITY = "identity"


@dataclass(frozen=True)
class Op:
    """One candidate operation: a main path of convolutions, and how it joins its input.

    plain: main(x). residual: x + main(x). shuffle: channels are shuffled and split in two, one half passes, main
    takes the other, and they are concatenated. shuffle_down: projection(x) and main(x), concatenated. An empty plain
    main is the identity.
    """

    name: str
    main: tuple[Conv, ...]
    wiring: Wiring = "plain"
    projection: tuple[Conv, ...] = ()

    @property
    def stride(self) -> int:
        stride = 1
        for conv in self.main:
            stride *= conv.stride
        return stride

    def cost(self, size: int) -> Cost:
        return chain_cost(self.main, size) + chain_cost(self.projection, size)


@dataclass(frozen=True)
class Layer:
    """A place in the chain: its candidates, in the order of choice indices, and the shape that they all map."""

    name: str
    ops: tuple[Op, ...]
    in_channels: int
    out_channels: int
    stride: int
    size: int
    """Side of the input feature map, pixels."""

    @property
    def keeps_shape(self) -> bool:
        return self.stride == 1 and self.in_channels == self.out_channels


@dataclass(frozen=True)
class ChainSpec:
    """A chosen chain: what a builder needs to make the network."""

    stem: tuple[Op, ...]
    ops: tuple[Op, ...]
    head: Op
    features: int
    classes: int
    classifier_bias: bool
    activation: str


@dataclass(frozen=True)
class ChainSpace:
    """A stem, layers with candidates, a head, a linear classifier on globally averaged features.

    `interchangeable` lists runs of layers [first, last) of one shape inside which an identity may stand anywhere
    without changing the network; the canonical form moves the identities of a run to its end.
    """

    name: str
    stem: tuple[Op, ...]
    layers: tuple[Layer, ...]
    head: Op
    classes: int
    input_size: int
    activation: str
    classifier_bias: bool = True
    interchangeable: tuple[tuple[int, int], ...] = ()

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        return tuple(Decision(layer.name, tuple(op.name for op in layer.ops)) for layer in self.layers)

    @property
    def features(self) -> int:
        return self.head.main[-1].out_channels

    def canonical(self, genotype: Genotype) -> Genotype:
        genes = list(genotype)
        for first, last in self.interchangeable:
            names = [self.layers[layer].ops[genes[layer]].name for layer in range(first, last)]
            kept = [gene for gene, name in zip(genes[first:last], names, strict=True) if name != IDENTITY]
            gone = [gene for gene, name in zip(genes[first:last], names, strict=True) if name == IDENTITY]
            genes[first:last] = kept + gone
        return tuple(genes)

    def why_invalid(self, genotype: Genotype) -> str | None:
        return why_not_of(self, genotype)

    def decode(self, genotype: Genotype) -> ChainSpec:
        ops = tuple(layer.ops[choice] for layer, choice in zip(self.layers, genotype, strict=True))
        return ChainSpec(self.stem, ops, self.head, self.features, self.classes, self.classifier_bias, self.activation)

    @cached_property
    def fixed_cost(self) -> Cost:
        """The cost of stem, head and classifier, which every genotype pays."""
        total, size = Cost(), self.input_size
        for op in self.stem:
            total += op.cost(size)
            size = strided(size, op.stride)
        last = self.layers[-1]
        total += self.head.cost(strided(last.size, last.stride))
        return total + linear_cost(self.features, self.classes, self.classifier_bias)

    @cached_property
    def costs(self) -> dict[str, Additive]:
        """MACs, parameters and activation elements of any genotype, exact, each as a table over the layers."""
        table = [[op.cost(layer.size) for op in layer.ops] for layer in self.layers]
        return {
            name: Additive(
                float(getattr(self.fixed_cost, name)),
                tuple(tuple(float(getattr(cost, name)) for cost in row) for row in table),
            )
            for name in COSTS
        }

    def cost(self, genotype: Genotype) -> Cost:
        """Exact MACs, parameters and activation elements of one genotype."""
        total = self.fixed_cost
        for layer, choice in zip(self.layers, genotype, strict=True):
            total += layer.ops[choice].cost(layer.size)
        return total

    @cached_property
    def groups(self) -> tuple[tuple[Genotype, ...], ...]:
        """The canonical settings of each group of layers: a run of interchangeable layers, or a layer alone.

        Their product is the set of canonical genotypes, each once; exact algorithms and uniform sampling go over it.
        """
        run_at = dict(self.interchangeable)
        groups, layer = [], 0
        while layer < len(self.layers):
            last = run_at.get(layer, layer + 1)
            settings = product(*(range(len(self.layers[i].ops)) for i in range(layer, last)))
            before, after = (0,) * layer, (0,) * (len(self.layers) - last)
            groups.append(tuple(s for s in settings if self.canonical(before + s + after)[layer:last] == s))
            layer = last
        return tuple(groups)

    def restricted(self, name: str, allowed: dict[int, tuple[str, ...]]) -> ChainSpace:
        """The same chain with fewer choices in some layers: layer number to the names that remain."""
        layers = tuple(
            replace(layer, ops=tuple(op for op in layer.ops if op.name in allowed.get(number, (op.name,))))
            for number, layer in enumerate(self.layers)
        )
        assert all(layer.ops for layer in layers), "a restriction leaves every layer a choice"
        free = all(IDENTITY not in names for names in allowed.values())
        return replace(self, name=name, layers=layers, interchangeable=self.interchangeable if free else ())


def place_layers(
    shapes: Sequence[tuple[str, int, int, int, tuple[Op, ...]]], stem: tuple[Op, ...], input_size: int
) -> tuple[Layer, ...]:
    """Layers from (name, in channels, out channels, stride, candidates), with the side of the map that each one
    sees."""
    size = input_size
    for op in stem:
        size = strided(size, op.stride)
    layers = []
    for name, in_channels, out_channels, stride, ops in shapes:
        layers.append(Layer(name, ops, in_channels, out_channels, stride, size))
        size = strided(size, stride)
    return tuple(layers)


def scaled(channels: int, width: float) -> int:
    """Channels times a width multiplier, rounded to a multiple of 4, at least 4; width 1 leaves every number as it
    is."""
    return channels if width == 1.0 else max(4, int(channels * width / 4 + 0.5) * 4)
