"""What of a chain space is measured: every different operation once, stem and head, and whole networks to judge by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from subshot.search.objectives import Constraint, ImpossibleLimit, Limit
from subshot.search.sampling import LegalSampler
from subshot.supernet.chain import IDENTITY, ChainSpace, Op
from subshot.supernet.cost import strided
from subshot.supernet.network import Block, build_network
from subshot.supernet.space import Additive, Genotype

Shape = tuple[int, int, int]
"""(channels, height, width)."""


@dataclass(frozen=True)
class Operation:
    """A candidate on maps of one shape, wherever it stands. Layers of one shape share it."""

    op: Op
    in_channels: int
    out_channels: int
    size: int

    @property
    def kind(self) -> tuple[str, str, int]:
        """What is alike but for shapes: interpolation is between operations of one kind."""
        return self.op.name, self.op.wiring, self.op.stride

    @property
    def macs(self) -> int:
        return self.op.cost(self.size).macs

    def to_json(self) -> dict[str, str | int]:
        return {
            "op": self.op.name,
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "stride": self.op.stride,
            "size": self.size,
            "macs": self.macs,
        }

    @property
    def shape(self) -> Shape:
        return self.in_channels, self.size, self.size


def operation(space: ChainSpace, layer: int, choice: int) -> Operation | None:
    """What a choice computes; None for an identity, which takes no time."""
    place = space.layers[layer]
    op = place.ops[choice]
    return None if op.name == IDENTITY else Operation(op, place.in_channels, place.out_channels, place.size)


def operations(space: ChainSpace) -> list[Operation]:
    """All different ones, each once, in the order of their layers."""
    places = ((layer, choice) for layer, place in enumerate(space.layers) for choice in range(len(place.ops)))
    found = (operation(space, layer, choice) for layer, choice in places)
    return [one for one in dict.fromkeys(found) if one is not None]


def summed(space: ChainSpace, base_ms: float, of: dict[Operation, float]) -> Additive:
    """The table of measured milliseconds."""

    def entry(layer: int, choice: int) -> float:
        one = operation(space, layer, choice)
        return 0.0 if one is None else of[one]

    table = (tuple(entry(i, choice) for choice in range(len(layer.ops))) for i, layer in enumerate(space.layers))
    return Additive(base_ms, tuple(table))


class Head(nn.Module):
    """What follows the layers: the last convolution, the mean over the map, the classifier."""

    def __init__(self, space: ChainSpace) -> None:
        super().__init__()
        self.head = Block(space.head, space.activation)
        self.classifier = nn.Linear(space.features, space.classes, bias=space.classifier_bias)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.head(x).mean(dim=(2, 3)))
        return logits


def stem_module(space: ChainSpace) -> tuple[nn.Module, Shape]:
    """The module, and the shape of what it is given; as those below."""
    stem = nn.Sequential(*(Block(op, space.activation) for op in space.stem))
    return stem, (3, space.input_size, space.input_size)


def head_module(space: ChainSpace) -> tuple[nn.Module, Shape]:
    last = space.layers[-1]
    size = strided(last.size, last.stride)
    return Head(space), (last.out_channels, size, size)


def operation_module(space: ChainSpace, one: Operation) -> tuple[nn.Module, Shape]:
    return Block(one.op, space.activation), one.shape


def network_module(space: ChainSpace, genotype: Genotype) -> tuple[nn.Module, Shape]:
    return build_network(space.decode(genotype)), (3, space.input_size, space.input_size)


def networks_over_macs(space: ChainSpace, count: int, seed: int) -> list[Genotype]:
    """Random canonical networks, one from each of `count` equal stretches between the cheapest and the dearest of the
    space, in rising order; fewer where a stretch is empty."""
    macs, rng = space.costs["macs"], np.random.default_rng(seed)
    edges = np.linspace(macs.minimum(), macs.maximum(), count + 1).tolist()
    found: dict[Genotype, None] = {}
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        try:
            (drawn,) = LegalSampler(space, [Constraint(macs, Limit("macs", high, low))]).draw(rng, 1)
        except ImpossibleLimit:
            continue
        found[drawn] = None
    return sorted(found, key=macs)
