"""SWAP: how many different switching patterns a network's units show over a few samples.

    score = number of distinct columns of the binary matrix [samples, ReLU units over feature maps],   higher is better

Source: Peng et al. (2024, arXiv 2403.04161), pym1024/SWAP: the first 16 images, Gaussian weights, BatchNorm in train
mode, mean of 32 repeats (here one draw a seed). A unit's signs are packed into one integer, so distinct columns are
distinct numbers; there are at most 2^16, which large networks come near. `swap_regularised` multiplies by exp(-(p -
mu)^2 / sigma), p the parameters in thousands; mu and sigma are the user's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from subshot.proxies.base import Batch, Loss, ProxyUndefined, Reading, Runner, Setting, first_of, hooked
from subshot.proxies.measure import Proxy
from subshot.proxies.naswot import RELUS
from subshot.proxies.structure import Size, StructureReading

SAMPLES = 16


@dataclass(frozen=True)
class DistinctUnits:
    """The number of distinct patterns of ReLU units over the first `SAMPLES` samples of the batch."""

    batch: int = 0
    needs_labels: ClassVar[bool] = False
    cost: ClassVar[str] = f"forward of {SAMPLES} samples"

    @property
    def runner(self) -> Runner:
        return run_few


def run_few(
    model: nn.Module, batch: Batch, loss: Loss, readings: Sequence[Reading], seed: int
) -> Mapping[Reading, Any]:
    """See subshot.proxies.base.Runner."""
    seen = torch.zeros(1 << SAMPLES, dtype=torch.bool)

    def pack(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        x = args[0].detach()
        if x.dim() == 4:
            on = (x > 0).flatten(1).to(torch.int32)
            places = 1 << torch.arange(len(on), dtype=torch.int32, device=x.device)
            seen[(on * places[:, None]).sum(dim=0, dtype=torch.int64).cpu()] = True

    with hooked([m.register_forward_pre_hook(pack) for m in model.modules() if isinstance(m, RELUS)]), torch.no_grad():
        model(first_of(batch[0], SAMPLES))
    if not seen.any():
        raise ProxyUndefined("the network runs no ReLU module over feature maps, so it has no switching pattern")
    return dict.fromkeys(readings, float(seen.sum()))


def swap_regularised(mu: float, sigma: float) -> Proxy:
    """SWAP times exp(-(p - mu)^2 / sigma) for p thousand parameters: networks of size mu are preferred."""

    def formula(distinct: float, size: Size) -> float:
        return distinct * math.exp(-((size.params / 1000.0 - mu) ** 2) / sigma)

    return _proxy("swap_regularised", (DistinctUnits(), StructureReading()), formula)


def _proxy(name: str, readings: tuple[DistinctUnits | StructureReading, ...], formula: Callable[..., float]) -> Proxy:
    return Proxy(
        name,
        readings,
        formula,
        True,
        "Peng et al. 2024, arXiv 2403.04161; pym1024/SWAP",
        Setting(weights="gaussian"),
        "inputs of ReLU modules over feature maps",
    )


PROXY = _proxy("swap", (DistinctUnits(),), float)
