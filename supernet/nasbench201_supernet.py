"""The weight-sharing supernet of NAS-Bench-201: every edge of every cell holds all operations, a path takes one."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from subshot.supernet.nasbench201 import (
    EDGES,
    NONE,
    OPS,
    Cell,
    NasBench201Network,
    NasBench201Space,
    ResidualBlock,
    edge_module,
    edge_name,
    new_head,
    new_stem,
    stage_channels,
)
from subshot.supernet.space import Genotype


class EdgeCandidates(nn.Module):
    """The operations of all edges of one cell, by edge and name; none has no module."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.edges = nn.ModuleDict(
            {
                edge_name(edge): nn.ModuleDict({op: edge_module(op, channels) for op in OPS if op != NONE})
                for edge in EDGES
            }
        )

    def cell(self, genotype: Genotype) -> Cell:
        """The cell of a genotype, made of these very modules."""
        chosen = {}
        for edge, choice in zip(EDGES, genotype, strict=True):
            candidates = self.edges[edge_name(edge)]
            assert isinstance(candidates, nn.ModuleDict)
            if OPS[choice] != NONE:
                chosen[edge] = candidates[OPS[choice]]
        return Cell(chosen)


class NasBench201Supernet(nn.Module):
    """All candidates of all cells; a forward pass runs along a genotype, which all cells share.

    BatchNorms normalise by batch statistics in training mode and leave their running statistics at the initial (0, 1),
    as in every supernet of images here: see ChainSupernet.
    """

    def __init__(self, space: NasBench201Space) -> None:
        super().__init__()
        self.space = space
        widths = stage_channels(space.channels)
        self.stem = new_stem(space.channels)
        self.blocks = nn.ModuleList()
        for stage, width in enumerate(widths):
            if stage:
                self.blocks.append(ResidualBlock(widths[stage - 1]))
            self.blocks.extend(EdgeCandidates(width) for _ in range(space.cells))
        self.head = new_head(widths[-1])
        self.classifier = nn.Linear(widths[-1], space.classes)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.0

    def path(self, genotype: Genotype) -> NasBench201Network:
        """The genotype's network, made of the supernet's own modules."""

        def chosen() -> Iterator[nn.Module]:
            for block in self.blocks:
                yield block.cell(genotype) if isinstance(block, EdgeCandidates) else block

        return NasBench201Network(self.stem, list(chosen()), self.head, self.classifier)

    def forward(self, images: Tensor, genotype: Genotype) -> Tensor:
        """Logits [N, classes] along a path."""
        logits: Tensor = self.path(genotype)(images)
        return logits
