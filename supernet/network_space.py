"""A search space whose genotypes build stand-alone networks: what training-free search and benchmarks need of it."""

from __future__ import annotations

from typing import Protocol

from torch import nn

from subshot.supernet.cost import Cost
from subshot.supernet.space import Genotype, SearchSpace


class NetworkSpace(SearchSpace, Protocol):
    """Images [N, 3, input_size, input_size] in, logits [N, classes] out."""

    @property
    def input_size(self) -> int: ...

    @property
    def classes(self) -> int: ...

    def cost(self, genotype: Genotype) -> Cost:
        """Exact MACs, parameters and activation elements, without building anything (see supernet/cost.py)."""
        ...

    def build(self, genotype: Genotype) -> nn.Module:
        """The network, with torch's default initialisation from the global random state.

        Its blocks are the children of its first ModuleList, in order; scores between blocks are taken there.
        """
        ...
