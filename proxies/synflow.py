"""SynFlow: how much weight lies on the paths from input to output; no data.

    R = sum of outputs for one image of ones, every parameter replaced by its absolute value, the network made linear
    synflow         = sum over weights of w dR/dw,                                higher is better
    log_synflow     = its logarithm, which ranks alike
    synflow_freerea = sum over weights of w log(1 + dR/dw),                       higher is better
    synflow_bn      = synflow with BatchNorm kept, in train mode for the one image,       higher is better
    synflow_zennas  = -sum over layers of mean over output channels of the channel's sum of w dR/dw, BatchNorm kept

Source: Tanaka et al. (2020, arXiv 2006.05467); as a proxy, Abdelfattah et al. (2021, arXiv 2101.08134) and
SamsungLabs/zero-cost-nas @a43bfbc. synflow_freerea is the "LogSynflow" of Cavagnero et al. (2023, "FreeREA", arXiv
2207.05135), NiccoloCavagnero/FreeREA @fb7f549; synflow_zennas that of idstcv/ZenNAS @d1d617e, already negated there.
SynFlow reaches 1e61, so everything is float64.

BatchNorm is bypassed but in the last two. So are ReLU, ReLU6, Hardtanh and Tanh: no value is negative, so ReLU does
nothing, and those that saturate would cut every path. The authors' code bypasses BatchNorm alone; with ReLU both give
the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from subshot.proxies.base import Batch, Loss, ProxyUndefined, Reading, Runner, Setting, floats, weights_of
from subshot.proxies.measure import Proxy

PathGradients = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Paths:
    """|w| and dR/d|w| of every weight that R depends on; without BatchNorm none is negative."""

    batch: int = 0
    needs_labels: ClassVar[bool] = False
    cost: ClassVar[str] = "forward and backward of one sample, float64"

    @property
    def runner(self) -> Runner:
        return run_paths


def run_paths(
    model: nn.Module, batch: Batch, loss: Loss, readings: Sequence[Reading], seed: int
) -> Mapping[Reading, Any]:
    """See subshot.proxies.base.Runner."""
    model.double().requires_grad_(False)
    weights = [weight.requires_grad_(True) for _, weight in weights_of(model)]
    with torch.no_grad():
        for tensor in floats(batch[0]):
            assert tensor.dtype == torch.float64, "ones are made in the type of the absolute weights"
    gradients = torch.autograd.grad(model(batch[0]).sum(), weights, allow_unused=True)
    found = [(w.detach().clone(), g) for w, g in zip(weights, gradients, strict=True) if g is not None]
    return dict.fromkeys(readings, found)


def synflow(paths: PathGradients) -> float:
    """Raises ProxyUndefined where no path carries weight, or beyond float64."""
    return _positive(math.fsum(float((weight * gradient).sum()) for weight, gradient in paths))


def _positive(score: float) -> float:
    if not 0.0 < score < math.inf:
        raise ProxyUndefined(f"the sum over paths is {score}")
    return score


def log_synflow(paths: PathGradients) -> float:
    return math.log(synflow(paths))


def synflow_freerea(paths: PathGradients) -> float:
    """With the logarithm at each weight, so that no few weights outweigh the rest."""
    return _positive(math.fsum(float((weight * gradient.log1p()).sum()) for weight, gradient in paths))


def synflow_bn(paths: PathGradients) -> float:
    return math.fsum(float((weight * gradient).abs().sum()) for weight, gradient in paths)


def synflow_zennas(paths: PathGradients) -> float:
    return -math.fsum(float((w * g).abs().flatten(1).sum(dim=1).mean()) for w, g in paths)


BYPASSED = Setting("absolute", "bypassed", "ones")
KEPT = Setting("absolute", "train", "ones")
SOURCE = "Tanaka et al. 2020, arXiv 2006.05467; Abdelfattah et al. 2021, arXiv 2101.08134"
PROXY = Proxy("synflow", (Paths(),), synflow, True, SOURCE, BYPASSED)
LOG = Proxy("log_synflow", (Paths(),), log_synflow, True, SOURCE, BYPASSED)
FREEREA = Proxy(
    "synflow_freerea", (Paths(),), synflow_freerea, True, "Cavagnero et al. 2023, arXiv 2207.05135", BYPASSED
)
BN = Proxy("synflow_bn", (Paths(),), synflow_bn, True, SOURCE, KEPT)
ZENNAS = Proxy("synflow_zennas", (Paths(),), synflow_zennas, True, "idstcv/ZenNAS @d1d617e", KEPT)
