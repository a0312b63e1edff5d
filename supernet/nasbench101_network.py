"""Networks of NAS-Bench-101: a cell as a graph of operations, repeated in stacks.

Source: google-research/nasbench @b942470, nasbench/lib/model_builder.py. Images are [N, 3, H, W]; logits are
[N, classes].
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from subshot.supernet.cost import Conv
from subshot.supernet.network import ConvUnit

KERNELS = {"conv3x3-bn-relu": 3, "conv1x1-bn-relu": 1}
"""Operations that are convolutions; the other one is the 3x3 max-pooling."""
BN_MOMENTUM = 1 - 0.997  # TensorFlow's momentum is the part that is kept


@dataclass(frozen=True)
class Cell:
    """A cell without idle vertices: `matrix[i][j]` is 1 where vertex i feeds vertex j > i, else 0.

    Vertex 0 is the input, the last one the output; `ops` are the operations of those between them.
    """

    matrix: tuple[tuple[int, ...], ...]
    ops: tuple[str, ...]

    @property
    def output(self) -> int:
        return len(self.matrix) - 1

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        return tuple((i, j) for i, row in enumerate(self.matrix) for j, edge in enumerate(row) if edge)

    @property
    def concatenated(self) -> tuple[int, ...]:
        """The interior vertices that feed the output, in the order in which it concatenates them."""
        return tuple(vertex for vertex in range(1, self.output) if self.matrix[vertex][self.output])


@dataclass(frozen=True)
class NasBench101Spec:
    """`stacks` stacks of `modules` equal cells; the first has `channels` channels, every further one twice as many."""

    cell: Cell
    channels: int
    stacks: int
    modules: int
    classes: int


def vertex_channels(cell: Cell, in_channels: int, out_channels: int) -> tuple[int, ...]:
    """The channels of each vertex of a cell.

    The vertices that the output concatenates share its channels evenly, and of a remainder the first ones get one more
    each. Any other vertex has as many as the widest interior vertex that it feeds (`compute_vertex_channels`).
    """
    channels = [in_channels, *[0] * len(cell.ops), out_channels]
    for rank, vertex in enumerate(cell.concatenated):
        share, remainder = divmod(out_channels, len(cell.concatenated))
        channels[vertex] = share + (rank < remainder)
    for vertex in range(cell.output - 1, 0, -1):
        if vertex not in cell.concatenated:
            fed = range(vertex + 1, cell.output)
            channels[vertex] = max(channels[later] for later in fed if cell.matrix[vertex][later])
    return tuple(channels)


def cell_convs(cell: Cell, in_channels: int, out_channels: int) -> Iterator[Conv]:
    """Every convolution of a cell: projections of its input, and operations."""
    channels = vertex_channels(cell, in_channels, out_channels)
    for vertex in range(1, cell.output + 1):
        if cell.matrix[0][vertex]:
            yield Conv(in_channels, channels[vertex])
    for vertex, op in enumerate(cell.ops, start=1):
        if op in KERNELS:
            yield Conv(channels[vertex], channels[vertex], KERNELS[op])


class CellModule(nn.Module):
    """One cell, [N, in_channels, H, W] to [N, out_channels, H, W].

    The input reaches a vertex by a projection of the edge's own (1x1 convolution, BatchNorm, ReLU), the output of an
    interior vertex by dropping the channels beyond the reader's; both are summed. The output concatenates, and adds
    the projected input where it reads that too.
    """

    def __init__(self, cell: Cell, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.cell = cell
        self.channels = vertex_channels(cell, in_channels, out_channels)
        self.projections = nn.ModuleDict(
            {
                str(vertex): ConvUnit(Conv(in_channels, self.channels[vertex]), "relu")
                for vertex in range(1, cell.output + 1)
                if cell.matrix[0][vertex]
            }
        )
        self.ops = nn.ModuleList(
            ConvUnit(Conv(channels, channels, KERNELS[op]), "relu") if op in KERNELS else nn.MaxPool2d(3, 1, padding=1)
            for op, channels in zip(cell.ops, self.channels[1:-1], strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        matrix, output, values = self.cell.matrix, self.cell.output, [x]
        projected = {int(vertex): projection(x) for vertex, projection in self.projections.items()}
        for vertex, op in enumerate(self.ops, start=1):
            read = [values[source][:, : self.channels[vertex]] for source in range(1, vertex) if matrix[source][vertex]]
            values.append(op(sum([projected[vertex], *read] if vertex in projected else read)))
        if not self.cell.concatenated:
            return projected[output]
        joined = torch.cat([values[vertex] for vertex in self.cell.concatenated], dim=1)
        return joined + projected[output] if output in projected else joined


class NasBench101Network(nn.Module):
    """Stem, stacks of cells with 2x2 max-pooling between them, global average, classifier.

    `blocks` are the cells and the poolings, in order. A pooling rounds odd sides up, as TensorFlow's `same` does.
    """

    def __init__(self, spec: NasBench101Spec) -> None:
        super().__init__()
        self.stem = ConvUnit(Conv(3, spec.channels, 3), "relu")
        self.blocks = nn.ModuleList()
        in_channels = spec.channels
        for stack in range(spec.stacks):
            if stack > 0:
                self.blocks.append(nn.MaxPool2d(2, 2, ceil_mode=True))
            for _ in range(spec.modules):
                self.blocks.append(CellModule(spec.cell, in_channels, spec.channels << stack))
                in_channels = spec.channels << stack
        self.classifier = nn.Linear(in_channels, spec.classes)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = BN_MOMENTUM

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.classifier(x.mean(dim=(2, 3)))
        return logits
