"""Scores that are sums over weights w and loss gradients g = dL/dw of one labelled batch.

    grad_norm          sum over layers of ||g||_2               higher is better
    snip               sum over weights of |w g|                higher is better
    plain              sum over weights of w g                  higher is better by definition; see below
    grad_norm_global   ||all g||_2, of all parameters           higher is better

Source: Abdelfattah et al. (2021, arXiv 2101.08134), SamsungLabs/zero-cost-nas @a43bfbc, whose out-of-memory fallback
(sums over parts of a batch) is not repeated; snip is Lee et al. (2019, arXiv 1810.02340). The global norm is that of
idstcv/ZenNAS @d1d617e, there with random images and labels. BatchNorm in train mode.

A weight that is followed by BatchNorm in train mode has w . g = 0, since its scale does nothing: `plain` is then the
classifier's term alone, and it is known to rank the wrong way round in most spaces.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from subshot.proxies.base import ProxyUndefined, weights_of
from subshot.proxies.batch_pass import AfterForward, Graph, Tape
from subshot.proxies.measure import Proxy


@dataclass(frozen=True)
class Saliency:
    """Sums over the layers whose weight the loss depends on; norms are by layer."""

    gradient_norms: tuple[float, ...]
    magnitude: float
    signed: float
    global_norm: float


@dataclass(frozen=True)
class WeightSaliency(AfterForward):
    """`Saliency` of one batch. Raises ProxyUndefined where the loss depends on no weight."""

    batch: int = 0
    needs_labels: ClassVar[bool] = True
    cost: ClassVar[str] = "forward; backward of the loss to the weights"
    graph: ClassVar[Graph] = "weights"

    def value(self, watched: Any, tape: Tape) -> Saliency:
        gradients = tape.loss_gradients()
        norms, magnitude, signed = [], 0.0, 0.0
        for name, weight in weights_of(tape.model):
            gradient = gradients[name]
            if gradient is None:
                continue
            product = weight.detach().double() * gradient
            norms.append(float(gradient.double().norm()))
            magnitude += float(product.abs().sum())
            signed += float(product.sum())
        if not norms:
            raise ProxyUndefined("the loss depends on no weight of two or more dimensions")
        everything = (float(g.double().square().sum()) for g in gradients.values() if g is not None)
        return Saliency(tuple(norms), magnitude, signed, math.sqrt(math.fsum(everything)))


SOURCE = "Abdelfattah et al. 2021, arXiv 2101.08134; SamsungLabs/zero-cost-nas @a43bfbc"
GRAD_NORM = Proxy("grad_norm", (WeightSaliency(),), lambda found: math.fsum(found.gradient_norms), True, SOURCE)
SNIP = Proxy(
    "snip", (WeightSaliency(),), lambda found: found.magnitude, True, f"Lee et al. 2019, arXiv 1810.02340; {SOURCE}"
)
PLAIN = Proxy("plain", (WeightSaliency(),), lambda found: found.signed, True, SOURCE)
GRAD_NORM_GLOBAL = Proxy(
    "grad_norm_global",
    (WeightSaliency(),),
    lambda found: found.global_norm,
    True,
    "idstcv/ZenNAS @d1d617e, with the batch's images and labels",
    layers="all parameters",
)
