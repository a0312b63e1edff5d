"""NASWOT: how differently a network's ReLUs switch for the images of a batch.

    c_i = signs of all ReLU inputs for image i        K_ij = number of ReLU units - Hamming(c_i, c_j)
    score = log |det K|                                higher is better

Source: Mellor et al. (2021, "Neural Architecture Search without Training", arXiv 2006.04647);
BayesWatch/nas-without-training @b3a82a6. BatchNorm in train mode, one forward pass, no labels. The authors' code leaves
out the ReLUs that the output does not depend on; a subnet here has none such.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from subshot.proxies.base import Probe, Proxy, ProxyUndefined, hooked

RELUS = (nn.ReLU, nn.ReLU6)


def naswot(model: nn.Module, probe: Probe) -> float:
    """log |det K| of the first batch. Raises ProxyUndefined without a ReLU, or where images switch all units alike."""
    return log_det(kernel(model.train(), probe.batches[0][0]))


def kernel(model: nn.Module, inputs: Any) -> Tensor:
    """K, float64 [N, N]: for two images, the number of ReLU units on the same side of zero. Leaves the modes alone."""
    layers: list[Tensor] = []

    def count_agreements(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        signs = (args[0].detach().flatten(1) > 0).float() * 2 - 1
        # Sums of +-1, exact in float32 up to 2^24 units a layer: agreements - disagreements = 2 agreements - units.
        layers.append((signs @ signs.T).double().add(signs.shape[1]) / 2)

    # A hook before the ReLU: an in-place one overwrites its input.
    handles = [m.register_forward_pre_hook(count_agreements) for m in model.modules() if isinstance(m, RELUS)]
    with hooked(handles), torch.no_grad():
        model(inputs)
    if not layers:
        raise ProxyUndefined("the network has no ReLU, so it has no switching pattern")
    return torch.stack(layers).sum(dim=0)


def log_det(matrix: Tensor) -> float:
    """log |det| of a positive semidefinite matrix. Raises ProxyUndefined where it is singular."""
    sign, value = torch.linalg.slogdet(matrix)
    if sign <= 0:
        raise ProxyUndefined("the kernel is singular: some images switch the same units")
    return float(value)


PROXY = Proxy(
    name="naswot",
    fn=naswot,
    maximize=True,
    min_batches=1,
    needs_labels=False,
    source="Mellor et al. 2021, arXiv 2006.04647",
)
