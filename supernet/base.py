"""What a weight-sharing supernet is, and the two ways to hold one of its subnets.

`Bound` shares the supernet's weights and has the subnet's modules and nothing else; `extract` is an independent
copy. In evaluation mode supernet(batch, genotype), Bound(supernet, genotype)(batch) and extract(supernet,
genotype)(batch) agree.
"""

from __future__ import annotations

import copy
from typing import Any, Protocol

from torch import Tensor, nn

from subshot.supernet.space import Genotype, SearchSpace


class Supernet(Protocol):
    """An nn.Module with a space, a forward pass along a genotype, and the modules of that path."""

    @property
    def space(self) -> SearchSpace: ...

    def __call__(self, batch: Any, genotype: Genotype) -> Tensor: ...

    def path(self, genotype: Genotype) -> nn.Module:
        """A module that runs the genotype's path; its submodules are the supernet's own, not copies."""
        ...


class Bound(nn.Module):
    """A subnet that shares the supernet's weights: what proxies and evaluators see.

    `modules()` and `parameters()` are those of the path alone, so a measurement of the subnet cannot count or touch the
    rest of the supernet.
    """

    def __init__(self, supernet: Supernet, genotype: Genotype) -> None:
        super().__init__()
        self.genotype = genotype
        self.network = supernet.path(genotype)

    def forward(self, batch: Any) -> Tensor:
        logits: Tensor = self.network(batch)
        return logits


def extract(supernet: Supernet, genotype: Genotype) -> nn.Module:
    """An independent copy of the subnet with the supernet's present weights and BatchNorm statistics."""
    return copy.deepcopy(supernet.path(genotype))
