"""Networks of the DARTS space: cells that read the two cells before them.

Source: quark0/darts, cnn/{model,operations}.py, `NetworkCIFAR` without auxiliary head and without drop path. Every
BatchNorm has scale and shift, as in their training from scratch (in their search they have not). Images are
[N, 3, H, W]; logits are [N, classes].
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STEPS = 4
STEM_FACTOR = 3
"""Channels of the stem, in units of a first cell's."""
PublishedCell = tuple[tuple[str, int], ...]
"""(operation, input) twice for each step; inputs 0 and 1 are the cell before last and the last, 2 + s is step s."""


@dataclass(frozen=True)
class DartsSpec:
    """`cells` cells; of these two, at a third and at two thirds, are reductions, and a step of the first cells has
    `channels` channels."""

    normal: PublishedCell
    reduce: PublishedCell
    channels: int
    cells: int
    classes: int


@dataclass(frozen=True)
class CellShape:
    """What a cell reads and puts out: it concatenates its steps, so STEPS x `channels`."""

    older_channels: int
    """Channels of the cell before last."""
    last_channels: int
    channels: int
    reduction: bool
    after_reduction: bool
    """Whether the map of the cell before last is still twice as large as the last one's."""


def cell_shapes(channels: int, cells: int) -> Iterator[CellShape]:
    """The shapes of the cells, in order: reductions, at cells // 3 and 2 * cells // 3, double the channels."""
    older = last = STEM_FACTOR * channels
    after_reduction = False
    for cell in range(cells):
        reduction = cell in (cells // 3, 2 * cells // 3)
        channels *= 1 + reduction
        yield CellShape(older, last, channels, reduction, after_reduction)
        older, last, after_reduction = last, STEPS * channels, reduction


class FactorizedReduce(nn.Module):
    """[N, C, H, W] to [N, out, ceil(H / 2), ceil(W / 2)]: ReLU; half of the channels from the even pixels, half from
    the odd ones; BatchNorm. An odd side gets a row or column of zeros (the public code fails there)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.even = nn.Conv2d(in_channels, out_channels // 2, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(in_channels, out_channels // 2, 1, stride=2, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(x)
        shifted = x[:, :, 1:, 1:]
        if x.shape[2] % 2 or x.shape[3] % 2:
            shifted = F.pad(shifted, (0, x.shape[3] % 2, 0, x.shape[2] % 2))
        out: Tensor = self.bn(torch.cat((self.even(x), self.odd(shifted)), dim=1))
        return out


def relu_conv_bn(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(nn.ReLU(), nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))


def separable(channels: int, kernel: int, stride: int, dilation: int = 1) -> nn.Sequential:
    """ReLU, depthwise convolution, pointwise convolution, BatchNorm."""
    padding = dilation * (kernel // 2)
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels),
    )


def operation(name: str, channels: int, stride: int) -> nn.Module:
    """The modules of an operation, [N, channels, H, W] to [N, channels, ceil(H / stride), ceil(W / stride)]."""
    if name == "max_pool_3x3":
        return nn.MaxPool2d(3, stride, padding=1)
    if name == "avg_pool_3x3":
        return nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)
    if name == "skip_connect":
        return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels)
    kernel = int(name[-1])
    if name.startswith("dil_conv"):
        return separable(channels, kernel, stride, dilation=2)
    assert name.startswith("sep_conv"), name
    return nn.Sequential(*separable(channels, kernel, stride), *separable(channels, kernel, 1))


class DartsCell(nn.Module):
    """One cell: two maps, each brought to `channels` channels, then steps of two operations each, whose sums are
    concatenated. In a reduction the operations on the cell's inputs have stride 2."""

    def __init__(self, cell: PublishedCell, shape: CellShape) -> None:
        super().__init__()
        self.inputs = tuple(source for _, source in cell)
        self.older = (FactorizedReduce if shape.after_reduction else relu_conv_bn)(shape.older_channels, shape.channels)
        self.last = relu_conv_bn(shape.last_channels, shape.channels)
        self.ops = nn.ModuleList(
            operation(name, shape.channels, 2 if shape.reduction and source < 2 else 1) for name, source in cell
        )

    def forward(self, older: Tensor, last: Tensor) -> Tensor:
        """The cell's map, [N, STEPS * channels, h, w], from those of the cell before last and of the last one."""
        states = [self.older(older), self.last(last)]
        for step in range(STEPS):
            first, second = (self.ops[place](states[self.inputs[place]]) for place in (2 * step, 2 * step + 1))
            states.append(first + second)
        return torch.cat(states[2:], dim=1)


class DartsNetwork(nn.Module):
    """Stem, cells, global average, classifier. `blocks` are the cells, called with two maps; the first one gets the
    stem's twice."""

    def __init__(self, spec: DartsSpec) -> None:
        super().__init__()
        stem_channels = STEM_FACTOR * spec.channels
        self.stem = nn.Sequential(nn.Conv2d(3, stem_channels, 3, padding=1, bias=False), nn.BatchNorm2d(stem_channels))
        self.blocks = nn.ModuleList()
        features = stem_channels
        for shape in cell_shapes(spec.channels, spec.cells):
            self.blocks.append(DartsCell(spec.reduce if shape.reduction else spec.normal, shape))
            features = STEPS * shape.channels
        self.classifier = nn.Linear(features, spec.classes)

    def forward(self, images: Tensor) -> Tensor:
        older = last = self.stem(images)
        for cell in self.blocks:
            older, last = last, cell(older, last)
        logits: Tensor = self.classifier(last.mean(dim=(2, 3)))
        return logits
