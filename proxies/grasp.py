"""GraSP: how much a step along the gradient flow would shrink if weights were taken away.

    score = sum over weights of -w (H g),    g = dL/dw, H = the Hessian of L, of weights alone;   higher is better

L is the mean loss of one labelled batch, BatchNorm in train mode. Source: Wang et al. (2020, arXiv 2002.07376),
temperature 1; as a proxy Abdelfattah et al. (2021, arXiv 2101.08134), SamsungLabs/zero-cost-nas @a43bfbc, whose sign
this keeps.

H is symmetric, so the score is -g . (H w): one forward-over-reverse pass in the direction w gives g and H w together,
where the public code takes a gradient, then another one that is walked back a second time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.func import functional_call, grad, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from subshot.proxies.base import Batch, Loss, ProxyUndefined, Reading, Runner, weights_of
from subshot.proxies.measure import Proxy


@dataclass(frozen=True)
class HessianProduct:
    """g . (H w)."""

    batch: int = 0
    needs_labels: ClassVar[bool] = True
    cost: ClassVar[str] = "forward and backward of the loss, with their slopes along the weights"

    @property
    def runner(self) -> Runner:
        return run_hessian_product


def run_hessian_product(
    model: nn.Module, batch: Batch, loss: Loss, readings: Sequence[Reading], seed: int
) -> Mapping[Reading, Any]:
    """See subshot.proxies.base.Runner."""
    inputs, targets = batch
    weights = {name: weight.detach() for name, weight in weights_of(model)}
    others = {name: p.detach() for name, p in model.named_parameters() if name not in weights}

    def loss_at(values: dict[str, Tensor]) -> Tensor:
        return loss(functional_call(model, {**values, **others}, (inputs,)), targets)

    with sdpa_kernel(SDPBackend.MATH):  # the others have no second derivative
        gradients, products = jvp(grad(loss_at), (weights,), (weights,))[:2]
    total = sum(float((gradients[name].double() * products[name]).sum()) for name in weights)
    if all(not gradient.any() for gradient in gradients.values()):
        raise ProxyUndefined("the loss depends on no weight of two or more dimensions, or its gradient is zero")
    return dict.fromkeys(readings, total)


PROXY = Proxy(
    "grasp",
    (HessianProduct(),),
    lambda product: -product,
    True,
    "Wang et al. 2020, arXiv 2002.07376; Abdelfattah et al. 2021, arXiv 2101.08134",
)
