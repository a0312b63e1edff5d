"""Zen-score: how strongly a network with Gaussian weights answers a small change of a Gaussian image; no data.

    score = log mean_n ||f(x_n) - f(x_n + 0.01 e_n)||_F + sum over BatchNorms of log sqrt(mean_c var_c)

Higher is better. f is the last feature map before pooling, var_c the variance that a BatchNorm divides by for the clean
batch x. Source: Lin et al. (2021, "Zen-NAS", arXiv 2102.01063). idstcv/ZenNAS @d1d617e departs from it: L1 norm,
running variances that are mostly their initial 1 (after two passes at momentum 0.1), and residual links switched off.
Here the paper's norm and variances, and links stay on; `zen_zennas` has the code's norm and running variances. The
authors call the score not meaningful for cell spaces, where branches join. A BatchNorm of a dead branch, whose input is
constant, has no variance and is left out of the paper's sum. One draw of weights and images a seed (the authors' 32
repeats are 32 seeds, averaged).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from subshot.proxies.base import ProxyUndefined, Setting, hooked
from subshot.proxies.batch_pass import Graph, OfBatch, Tape
from subshot.proxies.conditions import gaussian
from subshot.proxies.measure import Proxy

STEP = 0.01
INITIAL_VARIANCE, MOMENTUM = 1.0, 0.1
NO_VARIANCE = 16.0
"""A standard deviation below so many units of rounding of the mean is a constant's."""
POOLS = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)


@dataclass
class Seen:
    """Of one forward pass: the last feature map, and the mean over channels of each BatchNorm's input variance."""

    last: Tensor | None = None
    biased: list[Tensor] | None = None
    unbiased: list[Tensor] | None = None


@contextmanager
def watched_pass(model: nn.Module, with_variances: bool) -> Iterator[Seen]:
    seen = Seen(biased=[], unbiased=[])

    def read_variance(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        assert seen.biased is not None and seen.unbiased is not None
        x = args[0].detach()
        if x.dim() != 4:
            return
        mean, variance = (torch.zeros(x.shape[1], dtype=x.dtype, device=x.device) for _ in range(2))
        # BatchNorm's kernel, which leaves mean and unbiased variance behind, is several times as fast as torch.var
        torch.native_batch_norm(x, None, None, mean, variance, True, 1.0, 1.0)
        variance[variance < (NO_VARIANCE * torch.finfo(x.dtype).eps * mean).square()] = 0.0
        count = x.numel() // x.shape[1]
        seen.unbiased.append(variance.double().mean())
        seen.biased.append(seen.unbiased[-1] * (count - 1) / count)

    def keep_last(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor) and output.dim() == 4 and (seen.last is None or output[0, 0].numel() > 1):
            seen.last = output  # pooled to a single place, it is no feature map any more

    leaves = [m for m in model.modules() if not list(m.children()) and not isinstance(m, POOLS)]
    handles = [m.register_forward_hook(keep_last) for m in leaves]
    if with_variances:
        handles += [m.register_forward_pre_hook(read_variance) for m in leaves if isinstance(m, _BatchNorm)]
    with hooked(handles):
        yield seen


@dataclass(frozen=True)
class ZenReading(OfBatch):
    """The score, by the paper's formula or the public code's. The change e is drawn from the measurement's seed."""

    version: Literal["paper", "zennas"] = "paper"
    batch: int = 0
    needs_labels: ClassVar[bool] = False
    cost: ClassVar[str] = "forward; forward of changed inputs"
    graph: ClassVar[Graph] = "none"

    @contextmanager
    def watch(self, model: nn.Module) -> Iterator[Seen]:
        with watched_pass(model, with_variances=True) as seen:
            yield seen

    def value(self, watched: Seen, tape: Tape) -> float:
        if not isinstance(tape.inputs, Tensor):
            raise ProxyUndefined("the inputs are no images, which the score changes a little")
        generator = torch.Generator().manual_seed(tape.seed + 1)
        noise = gaussian(tape.inputs.shape, generator).to(tape.inputs)
        return zen_of(tape.model, watched, tape.inputs, noise, self.version)


def zen_of(
    model: nn.Module,
    clean: Seen,
    images: Tensor,
    noise: Tensor,
    version: Literal["paper", "zennas"] = "paper",
    momentum: float = MOMENTUM,
) -> float:
    """The formula, with what the clean pass of these images [N, C, H, W] showed.

    momentum: by which the public code's running variances move at each of its two passes; 0 as in eval mode.
    """
    if clean.last is None or not clean.biased:
        raise ProxyUndefined("the network has no feature map or no BatchNorm, which the score reads")
    first = clean.last.clone()
    with torch.no_grad(), watched_pass(model, with_variances=version == "zennas") as changed:
        model(images + STEP * noise)
    assert changed.last is not None
    difference = (changed.last - first).flatten(1).double()
    if version == "paper":
        scales = [variance.log() / 2 for variance in clean.biased if variance > 0.0]
        return float(difference.norm(dim=1).mean().log() + sum(scales))
    assert clean.unbiased is not None and changed.unbiased is not None
    keep = 1.0 - momentum
    running = [
        INITIAL_VARIANCE * keep**2 + momentum * keep * one + momentum * two
        for one, two in zip(clean.unbiased, changed.unbiased, strict=True)
    ]
    return float(difference.abs().sum(dim=1).mean().log() + sum(value.log() / 2 for value in running))


SETTING = Setting(weights="gaussian", inputs="gaussian")
LAYERS = "BatchNorms over feature maps"
PROXY = Proxy("zen", (ZenReading(),), float, True, "Lin et al. 2021, arXiv 2102.01063", SETTING, LAYERS)
ZENNAS = Proxy(
    "zen_zennas",
    (ZenReading("zennas"),),
    float,
    True,
    "idstcv/ZenNAS @d1d617e: L1 norm, running variances from 1 after two passes",
    SETTING,
    LAYERS,
)
