"""GraSP: how much a step along the gradient flow would shrink if weights were taken away.

    score = sum over weights of -w (H g),    g = dL/dw, H = the Hessian of L, of weights alone;   higher is better

L is the mean loss of one labelled batch, BatchNorm in train mode. Source: Wang et al. (2020, arXiv 2002.07376),
temperature 1; as a proxy Abdelfattah et al. (2021, arXiv 2101.08134), SamsungLabs/zero-cost-nas @a43bfbc, whose sign
this keeps.

H is symmetric, so the score is -g . (H w). Forward the loss's slope along v = w is taken with it, and walked back once:
the slope is g . v, its gradient by v is g and by w is H v. The public code takes a gradient, then another one that is
walked back a second time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from subshot.proxies.base import Batch, Loss, ProxyUndefined, Reading, Runner, weights_of
from subshot.proxies.measure import Proxy
from subshot.proxies.slope_layers import with_slopes


@dataclass(frozen=True)
class HessianProduct:
    """g . (H w)."""

    batch: int = 0
    needs_labels: ClassVar[bool] = True
    cost: ClassVar[str] = "forward of the loss and its slope along the weights; backward of the slope"

    @property
    def runner(self) -> Runner:
        return run_hessian_product


def run_hessian_product(
    model: nn.Module, batch: Batch, loss: Loss, readings: Sequence[Reading], seed: int
) -> Mapping[Reading, Any]:
    """See subshot.proxies.base.Runner."""
    inputs, targets = batch
    weights = {name: weight.detach().requires_grad_(True) for name, weight in weights_of(model)}
    directions = {name: weight.detach().requires_grad_(True) for name, weight in weights.items()}
    others = {name: p.detach() for name, p in model.named_parameters() if name not in weights}

    def loss_at(values: dict[str, Tensor]) -> Tensor:
        return loss(functional_call(model, {**values, **others}, (inputs,)), targets)

    with with_slopes(model), sdpa_kernel(SDPBackend.MATH):  # the others have no second derivative
        slope = jvp(loss_at, (weights,), (directions,))[1]
    found: Sequence[Tensor | None] = []
    if slope.requires_grad:
        found = torch.autograd.grad(slope, [*weights.values(), *directions.values()], allow_unused=True)
    products, gradients = found[: len(weights)], found[len(weights) :]
    if not any(gradient is not None and gradient.any() for gradient in gradients):
        raise ProxyUndefined("the loss depends on no weight of two or more dimensions, or its gradient is zero")
    pairs = zip(gradients, products, strict=True)
    total = sum(float((g.double() * p).sum()) for g, p in pairs if g is not None and p is not None)
    return dict.fromkeys(readings, total)


PROXY = Proxy(
    "grasp",
    (HessianProduct(),),
    lambda product: -product,
    True,
    "Wang et al. 2020, arXiv 2002.07376; Abdelfattah et al. 2021, arXiv 2101.08134",
)
