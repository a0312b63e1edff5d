"""GraSP: how much a step along the gradient flow would shrink if weights were taken away.

    score = sum over weights of -w (H g),    g = dL/dw, H = the Hessian of L, of weights alone;   higher is better

L is the mean loss of one labelled batch, BatchNorm in train mode. Source: Wang et al. (2020, arXiv 2002.07376),
temperature 1; as a proxy Abdelfattah et al. (2021, arXiv 2101.08134), SamsungLabs/zero-cost-nas @a43bfbc, whose sign
this keeps.

H is symmetric, so the score is -g . (H w). Forward the loss's slope along v = w is taken with it, and walked back once:
the slope is g . v, its gradient by v is g and by w is H v. The public code takes a gradient, then another one that is
walked back a second time, as is done here where torch has no such slope, or a wrong one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from subshot.proxies.base import Batch, Loss, ProxyUndefined, Reading, Runner, weights_of
from subshot.proxies.measure import Proxy
from subshot.proxies.sample_pass import uses_of
from subshot.proxies.slope_layers import with_slopes

Products = tuple[Sequence[Tensor | None], Sequence[Tensor | None]]
"""g and H w of every weight; None for a weight on which nothing depends."""

WRONG_SLOPES = frozenset(
    f"{kind}Backward0" for kind in ("NativeBatchNorm", "CudnnBatchNorm", "MiopenBatchNorm", "NativeLayerNorm")
)
"""Nodes of a slope's graph that torch walks back wrongly: see `by_slope`."""


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
    others = {name: p.detach() for name, p in model.named_parameters() if name not in weights}

    def loss_at(values: dict[str, Tensor]) -> Tensor:
        return loss(functional_call(model, {**values, **others}, (inputs,)), targets)

    with sdpa_kernel(SDPBackend.MATH):  # the others have no second derivative
        gradients, products = by_slope(model, loss_at, weights) or by_gradient(loss_at, weights)
    if not any(gradient is not None and gradient.any() for gradient in gradients):
        raise ProxyUndefined("the loss depends on no weight of two or more dimensions, or its gradient is zero")
    return dict.fromkeys(readings, dot(gradients, products))


def by_slope(
    model: nn.Module, loss_at: Callable[[dict[str, Tensor]], Tensor], weights: dict[str, Tensor]
) -> Products | None:
    """g and H w of every weight by the loss's slope; None where torch has no such slope, or no right one.

    torch 2.13 walks back the slopes of fused normalisations as if mean and variance were constants.
    """
    directions = {name: weight.detach().requires_grad_(True) for name, weight in weights.items()}
    try:
        with with_slopes(model):
            slope = jvp(loss_at, (weights,), (directions,))[1]
        if not slope.requires_grad or any(type(node).__name__ in WRONG_SLOPES for node in uses_of(slope)[0]):
            return None
        found = torch.autograd.grad(slope, [*weights.values(), *directions.values()], allow_unused=True)
    except (RuntimeError, NotImplementedError):
        return None
    return found[len(weights) :], found[: len(weights)]


def by_gradient(loss_at: Callable[[dict[str, Tensor]], Tensor], weights: dict[str, Tensor]) -> Products:
    """The same by two backward passes, of which the second goes over both forward and backward pass."""
    value = loss_at(weights)
    if not value.requires_grad:
        return (), ()
    gradients = torch.autograd.grad(value, list(weights.values()), create_graph=True, allow_unused=True)
    slope = sum((g * w.detach()).sum() for g, w in zip(gradients, weights.values(), strict=True) if g is not None)
    if not isinstance(slope, Tensor) or not slope.requires_grad:
        return gradients, [None] * len(gradients)
    return gradients, torch.autograd.grad(slope, list(weights.values()), allow_unused=True)


def dot(one: Sequence[Tensor | None], other: Sequence[Tensor | None]) -> float:
    """In double precision, over the weights of which neither is None."""
    pairs = zip(one, other, strict=True)
    return sum((a.detach().double() * b.detach()).sum().item() for a, b in pairs if a is not None and b is not None)


PROXY = Proxy(
    "grasp",
    (HessianProduct(),),
    lambda product: -product,
    True,
    "Wang et al. 2020, arXiv 2002.07376; Abdelfattah et al. 2021, arXiv 2101.08134",
)
