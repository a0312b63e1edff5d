"""NASWOT: how differently a network's ReLUs switch for the samples of a batch.

    c_i = signs of all ReLU inputs for sample i        K_ij = number of ReLU units - Hamming(c_i, c_j)
    score = log |det K|                                higher is better

Source: Mellor et al. (2021, "Neural Architecture Search without Training", arXiv 2006.04647);
BayesWatch/nas-without-training @b3a82a6. BatchNorm in train mode, one forward pass, no labels. The authors' code leaves
out the ReLUs that the output does not depend on, by way of a backward pass that it makes for nothing else; here every
ReLU counts that is run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from subshot.proxies.base import ProxyUndefined, hooked
from subshot.proxies.batch_pass import Graph, OfBatch, Tape
from subshot.proxies.measure import Proxy

RELUS = (nn.ReLU, nn.ReLU6)


@dataclass(frozen=True)
class ReluKernel(OfBatch):
    """K, float64 [N, N]: for two samples, the number of ReLU units on the same side of zero."""

    batch: int = 0
    needs_labels: ClassVar[bool] = False
    cost: ClassVar[str] = "forward"
    graph: ClassVar[Graph] = "none"

    @contextmanager
    def watch(self, model: nn.Module) -> Iterator[list[Tensor]]:
        layers: list[Tensor] = []

        def count_agreements(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            signs = (args[0].detach() > 0).flatten(1).float().mul_(2).sub_(1)
            # Sums of +-1, exact in float32 up to 2^24 units a layer: agreements - disagreements = 2 agreements - units.
            layers.append((signs @ signs.T).double().add(signs.shape[1]) / 2)

        # A hook before the ReLU: an in-place one overwrites its input.
        handles = [m.register_forward_pre_hook(count_agreements) for m in model.modules() if isinstance(m, RELUS)]
        with hooked(handles):
            yield layers

    def value(self, watched: list[Tensor], tape: Tape) -> Tensor:
        if not watched:
            raise ProxyUndefined("the network runs no ReLU module, so it has no switching pattern")
        return torch.stack(watched).sum(dim=0)


def log_det(matrix: Tensor) -> float:
    """log |det| of a positive semidefinite matrix. Raises ProxyUndefined where it is singular."""
    sign, value = torch.linalg.slogdet(matrix)
    if sign <= 0:
        raise ProxyUndefined("the kernel is singular: some samples switch the same units")
    return float(value)


PROXY = Proxy(
    name="naswot",
    readings=(ReluKernel(),),
    formula=log_det,
    maximize=True,
    source="Mellor et al. 2021, arXiv 2006.04647",
    layers="inputs of ReLU modules",
)
