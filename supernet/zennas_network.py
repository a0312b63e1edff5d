"""Networks of Zen-NAS's residual space: their description, their exact cost, their modules.

Source: idstcv/ZenNAS @d1d617e, PlainNet/SuperResKXKX.py, PlainNet/SuperResK1KXK1.py, PlainNet/super_blocks.py,
PlainNet/basic_blocks.py (ResBlock, ResBlockProj), Masternet.py. As there: a residual unit ends in a ReLU after the
addition; the first unit of every super-block has a 1x1 projection with BatchNorm, also where shapes agree, the others
an identity; a layer is one unit of two KxK convolutions, or two bottleneck units; the epsilon of BatchNorm is 1e-3.
Where ours differs: projections have no bias (the BatchNorm after it takes it away again), and weights begin as torch
initialises them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from subshot.supernet.cost import Conv, Cost, chain_cost, linear_cost, strided
from subshot.supernet.network import ConvUnit

BN_EPSILON = 1e-3
KINDS: dict[str, tuple[int, bool]] = {
    "k3k3": (3, False),
    "k5k5": (5, False),
    "k7k7": (7, False),
    "k1k3k1": (3, True),
    "k1k5k1": (5, True),
    "k1k7k1": (7, True),
}
"""Kind of super-block to (kernel, whether its units are bottlenecks)."""


@dataclass(frozen=True)
class SuperBlock:
    """`layers` residual layers of one kind; only the first has the stride. `bottleneck`: the inner channels."""

    kind: str
    in_channels: int
    channels: int
    stride: int
    bottleneck: int
    layers: int


@dataclass(frozen=True)
class ZenSpec:
    """3x3 stem of stride 1, super-blocks, 1x1 head, global average pool, classifier."""

    stem: Conv
    super_blocks: tuple[SuperBlock, ...]
    head: Conv
    input_size: int
    classes: int


@dataclass(frozen=True)
class Unit:
    """What one residual link spans: convolutions in a row, and the projection beside them, if any."""

    main: tuple[Conv, ...]
    projection: Conv | None

    @property
    def stride(self) -> int:
        return max(conv.stride for conv in self.main)


def units_of(block: SuperBlock) -> Iterator[Unit]:
    """The residual units of a super-block in order: one a layer, or two where they are bottlenecks."""
    kernel, narrow = KINDS[block.kind]
    inner, out = block.bottleneck, block.channels
    for index in range(block.layers * (2 if narrow else 1)):
        first = index == 0
        in_channels, stride = (block.in_channels, block.stride) if first else (out, 1)
        begin: tuple[Conv, ...] = (Conv(in_channels, inner, kernel, stride),)
        if narrow:
            begin = (Conv(in_channels, inner), Conv(inner, inner, kernel, stride))
        last = Conv(inner, out, 1 if narrow else kernel, activation=False)
        yield Unit((*begin, last), Conv(in_channels, out, 1, stride, activation=False) if first else None)


def zen_cost(spec: ZenSpec) -> Cost:
    """MACs, parameters and activation elements of one image, as `supernet/cost.py` counts them."""
    total, size = chain_cost((spec.stem,), spec.input_size), strided(spec.input_size, spec.stem.stride)
    for unit in (unit for block in spec.super_blocks for unit in units_of(block)):
        total += chain_cost(unit.main, size)
        if unit.projection is not None:
            total += chain_cost((unit.projection,), size)
        size = strided(size, unit.stride)
    return total + chain_cost((spec.head,), size) + linear_cost(spec.head.out_channels, spec.classes, bias=True)


class ResidualUnit(nn.Module):
    """relu(main(x) + projection(x)), [N, in, H, W] -> [N, out, ceil(H / stride), ceil(W / stride)]."""

    def __init__(self, unit: Unit) -> None:
        super().__init__()
        self.main = nn.Sequential(*(ConvUnit(conv, "relu") for conv in unit.main))
        self.projection = nn.Identity() if unit.projection is None else ConvUnit(unit.projection, "relu")
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.activation(self.main(x) + self.projection(x))
        return out


class ZenNetwork(nn.Module):
    """Images [N, 3, H, W] -> logits [N, classes]. `blocks`: the residual units of all super-blocks, in order."""

    def __init__(self, spec: ZenSpec) -> None:
        super().__init__()
        self.stem = ConvUnit(spec.stem, "relu")
        self.blocks = nn.ModuleList(ResidualUnit(unit) for block in spec.super_blocks for unit in units_of(block))
        self.head = ConvUnit(spec.head, "relu")
        self.classifier = nn.Linear(spec.head.out_channels, spec.classes)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = BN_EPSILON

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.classifier(self.head(x).mean((2, 3)))
        return logits
