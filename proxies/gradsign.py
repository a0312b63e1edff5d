"""Scores of how far the samples' gradients agree in sign: GradSign, and GradAlign-I and -II.

    s_i = sign of the gradient of sample i's loss, entry by entry (0 where it is 0)

    gradsign     sum over entries of |sum_i s_i|                                      higher is better
    gradalign1   mean over classes of mean_ij <s_i, s_j> = |mean_i s_i|^2             higher is better
    gradalign2   mean over classes of log det of the Gram matrix <s_i, s_j>           higher is better by default
    grad_angle   length of mean_i g_i / |g_i|, GradSign's sibling                     higher is better

Sources: Zhang and Jia (2022, "GradSign", arXiv 2110.08616), JackFram/GradSign @26412be, whose file for weights sums
(one other file takes the mean, and that ranks the wrong way round: `normalisation="mean"`); GradAlign (arXiv
2411.19819), Eqs. 11 to 13, whose text has no formula and no public code: BatchNorm's mode, sums or means, raw or sign
Gram, and the orientation of II are open there. docs/log.md has the table of what each choice ranks like, and the
defaults are chosen by it. The text has II the other way round (lower is better).

GradSign's code puts every sample through the network alone and in train mode, so BatchNorm normalises with that image's
own statistics (`batch_norm="single"`). Classes of one sample, which say nothing of alignment, are left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from subshot.proxies.base import BatchNormMode, ProxyUndefined, Setting
from subshot.proxies.measure import Proxy
from subshot.proxies.sample_layers import Chunk
from subshot.proxies.sample_pass import OfSampleLosses, Scope

Normalisation = Literal["sum", "mean"]

JITTER = 1e-6
"""Beside Gram matrices of whole numbers: far below what a single differing sign brings."""


@dataclass(frozen=True)
class SignStatistics:
    """agreement: sum over entries of |sum_i s_i|. gram: <s_i, s_j>, float64 [N, N]. entries: how many there are in all.
    targets: the samples' classes, [N]."""

    agreement: float
    gram: Tensor
    entries: int
    targets: Tensor

    def by_class(self) -> list[Tensor]:
        """The Gram matrix of each class of two samples or more; of all samples where targets are no classes."""
        if self.targets.is_floating_point() and self.targets.unique().numel() > 2:
            return [self.gram]
        rows = [(self.targets == label).nonzero().flatten() for label in self.targets.unique()]
        found = [self.gram[some][:, some] for some in rows if len(some) > 1]
        if not found:
            raise ProxyUndefined("no class of the batch has two samples, whose gradients could agree")
        return found


class SignSums:
    def __init__(self, count: int, targets: Tensor) -> None:
        self.gram = torch.zeros(count, count, dtype=torch.float64, device=targets.device)
        self.agreement, self.entries, self.targets = 0.0, 0, targets

    def add(self, chunk: Chunk) -> None:
        signs = chunk.gradients.sign()
        signs = signs.to(torch.promote_types(signs.dtype, torch.float32))
        self.entries += signs.shape[1]
        self.agreement += float(signs.sum(dim=0).abs().sum(dtype=torch.float64))
        self.gram += signs @ signs.T  # sums of +-1, exact in float32 up to 2^24 entries a chunk

    def value(self) -> SignStatistics:
        if not self.gram.any():
            raise ProxyUndefined("the gradient of every sample is zero")
        return SignStatistics(self.agreement, self.gram, self.entries, self.targets)


class RawSums:
    def __init__(self, count: int, targets: Tensor) -> None:
        self.gram = torch.zeros(count, count, dtype=torch.float64, device=targets.device)

    def add(self, chunk: Chunk) -> None:
        self.gram += chunk.gradients @ chunk.gradients.T

    def value(self) -> Tensor:
        return self.gram


@dataclass(frozen=True)
class SampleSigns(OfSampleLosses):
    """`SignStatistics` of the samples' loss gradients."""

    def accumulator(self, count: int, targets: Tensor) -> SignSums:
        return SignSums(count, targets)


@dataclass(frozen=True)
class SampleGram(OfSampleLosses):
    """<g_i, g_j> of the samples' loss gradients, float64 [N, N]."""

    def accumulator(self, count: int, targets: Tensor) -> RawSums:
        return RawSums(count, targets)


def gradsign(
    batch_norm: BatchNormMode = "single", scope: Scope = "weights", normalisation: Normalisation = "sum"
) -> Proxy:
    def formula(found: SignStatistics) -> float:
        return found.agreement / (found.entries if normalisation == "mean" else 1)

    source = "Zhang and Jia 2022, arXiv 2110.08616; JackFram/GradSign @26412be"
    return _proxy("gradsign", SampleSigns(scope), formula, batch_norm, scope, normalisation, True, source)


def gradalign1(
    batch_norm: BatchNormMode = "eval", scope: Scope = "weights", normalisation: Normalisation = "sum"
) -> Proxy:
    """normalisation "mean": divided by the number of entries."""

    def formula(found: SignStatistics) -> float:
        value = torch.stack([gram.mean() for gram in found.by_class()]).mean()
        return float(value) / (found.entries if normalisation == "mean" else 1)

    return _proxy("gradalign1", SampleSigns(scope), formula, batch_norm, scope, normalisation, True, GRADALIGN)


def gradalign2(
    batch_norm: BatchNormMode = "eval",
    scope: Scope = "weights",
    normalisation: Normalisation = "sum",
    maximize: bool = True,
    jitter: float = JITTER,
) -> Proxy:
    """normalisation "mean": of the Gram matrix divided by the number of entries. jitter: added to its diagonal, so that
    samples of equal signs, which shallow networks give, lower the score and do not end it."""

    def formula(found: SignStatistics) -> float:
        grams = found.by_class()
        scale = math.log(found.entries) if normalisation == "mean" else 0.0  # log det(K / d) = log det K - N log d
        return sum(log_det_of(gram, jitter) - len(gram) * scale for gram in grams) / len(grams)

    return _proxy("gradalign2", SampleSigns(scope), formula, batch_norm, scope, normalisation, maximize, GRADALIGN)


def log_det_of(gram: Tensor, jitter: float = 0.0) -> float:
    """log det(gram + jitter I). Raises ProxyUndefined where that is singular."""
    shifted = gram + jitter * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    sign, value = torch.linalg.slogdet(shifted)
    if sign <= 0:
        raise ProxyUndefined("the Gram matrix of a class is singular: samples' gradients have the same signs")
    return float(value)


def angle(gram: Tensor) -> float:
    """|m| for m the mean of the unit vectors with this Gram matrix before normalisation: 0 to 1."""
    norms = gram.diagonal().sqrt()
    if not norms.all():
        raise ProxyUndefined("the gradient of a sample is zero, so it has no direction")
    return float((gram / norms / norms[:, None]).mean().clamp(min=0.0).sqrt())


def _proxy(
    name: str,
    reading: SampleSigns | SampleGram,
    formula: Callable[[Any], float],
    batch_norm: BatchNormMode,
    scope: Scope,
    normalisation: str,
    maximize: bool,
    source: str,
) -> Proxy:
    layers = "all parameters" if scope == "all" else "all weights of two or more dimensions"
    return Proxy(name, (reading,), formula, maximize, source, Setting(batch_norm=batch_norm), layers, normalisation)


GRADALIGN = "GradAlign, arXiv 2411.19819, Eqs. 11 to 13, with what they leave open decided by measurement"
GRADSIGN = gradsign()
GRADALIGN1 = gradalign1()
GRADALIGN2 = gradalign2()
GRAD_ANGLE = _proxy(
    "grad_angle", SampleGram(), angle, "single", "weights", "unit vectors", True, "JackFram/GradSign @26412be"
)
