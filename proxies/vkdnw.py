"""VKDNW: how evenly the Fisher information of a network's weights is spread, and how many layers it has.

    F       = mean_n J_n^T (diag(p_n) - p_n p_n^T) J_n,   J_n = d logits(x_n) / d theta,  p = softmax(logits)
    vkdnw   = entropy of the deciles 0.1, ..., 0.9 of F's eigenvalues, divided by their sum;     at most log 9
    vkdnw_single = number of layers + vkdnw, layers being parameter tensors (proxies/structure.py)

Higher is better. theta is one scalar, the first, of each of the first 128 parameter tensors. Gaussian inputs, Kaiming
initialisation by fan-in, BatchNorm in eval mode (which with fresh statistics hardly normalises), no labels. Source:
Tybl and Neumann (2025, arXiv 2503.22325). VKDNW_agg joins vkdnw_single by rank with jacob_cov, AZ-NAS's expressivity
and trainability, and MACs: subshot.search.aggregation.

p is smoothed, 0.95 softmax + 0.05 / classes, as in the code though not in the paper: a deep network with hardly any
normalisation has logits so large that softmax alone is 0 and 1 to the last bit, and F is zero (`version="paper"`). The
code, ondratybl/VKDNW @6901b65, which the published figures are of, also takes L J for the root of the covariance times
J, where L L^T is the covariance, so that its F is not the Fisher matrix (that would be L^T J), and half precision for
the constants of the smoothing: `version="code"`, named vkdnw_code.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from subshot.proxies.base import ProxyUndefined, Setting
from subshot.proxies.class_pass import ScalarJacobian
from subshot.proxies.measure import Proxy
from subshot.proxies.structure import Size, StructureReading

Version = Literal["paper", "smoothed", "code"]
SMOOTHING = 0.05
TINY = 1e-10


def fisher_matrix(jacobian: Tensor, logits: Tensor, version: Version = "smoothed") -> Tensor:
    """F, [scalars, scalars], of J [N, classes, scalars] and logits [N, classes]; one output is a logit against 0."""
    if logits.shape[1] == 1:
        logits = torch.cat((torch.zeros_like(logits), logits), dim=1)
        jacobian = torch.cat((torch.zeros_like(jacobian), jacobian), dim=1)
    classes = logits.shape[1]
    p = logits.softmax(dim=1)
    if version == "smoothed":
        p = (1.0 - SMOOTHING) * p + SMOOTHING / classes
    if version == "code":
        alpha = torch.tensor(SMOOTHING, dtype=torch.float16)
        p = p * float(1.0 - alpha) + float(alpha / classes)
        rooted = covariance_factor(p) @ jacobian
        return (rooted.transpose(1, 2) @ rooted).mean(dim=0)
    covariance = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    return (jacobian.transpose(1, 2) @ (covariance @ jacobian)).mean(dim=0)


def covariance_factor(p: Tensor) -> Tensor:
    """The lower triangular L with L L^T = diag(p) - p p^T, of probabilities [N, C] (Tanabe and Sagae 1992)."""
    q = 1.0 - p.cumsum(dim=1)
    q[:, -1] = 0.0
    before = torch.cat((torch.ones_like(q[:, :1]), q[:, :-1]), dim=1)
    scale = (p * q / before).clamp(min=0.0).sqrt()
    lower = torch.tril(-p[:, :, None] / q[:, None, :], diagonal=-1).nan_to_num(0.0, 0.0, 0.0)
    lower = lower + torch.eye(p.shape[1], dtype=p.dtype, device=p.device)
    return lower * scale[:, None, :]


def decile_entropy(fisher: Tensor, floor: float = 0.0) -> float:
    """Of F's eigenvalues. floor: what the public code adds to the sum and in the logarithm."""
    if not fisher.isfinite().all():
        raise ProxyUndefined("the Fisher matrix is not finite")
    eigenvalues = torch.linalg.eigvalsh(fisher).clamp(min=0.0)
    levels = torch.arange(1, 10, dtype=eigenvalues.dtype, device=eigenvalues.device) / 10
    deciles = torch.quantile(eigenvalues, levels)
    total = float(deciles.sum())
    if not total > 0.0:
        raise ProxyUndefined("the deciles of the Fisher matrix's eigenvalues are all zero")
    parts = deciles / (total + floor)
    return -float(torch.xlogy(parts, parts + floor).sum())


def vkdnw(version: Version = "smoothed", tensors: int = 128, per_tensor: int = 1) -> Proxy:
    """tensors: how many parameter tensors, from the first on. per_tensor: how many scalars of each (1: the first)."""

    def formula(read: tuple[Tensor, Tensor]) -> float:
        return decile_entropy(fisher_matrix(*read, version), TINY if version == "code" else 0.0)

    name = "vkdnw_code" if version == "code" else "vkdnw"
    return Proxy(name, (ScalarJacobian(tensors, per_tensor),), formula, True, SOURCE, SETTING, LAYERS)


def vkdnw_single(version: Version = "smoothed") -> Proxy:
    entropy = vkdnw(version)

    def formula(read: tuple[Tensor, Tensor], size: Size) -> float:
        return size.tensors + entropy.formula(read)

    name = "vkdnw_single_code" if version == "code" else "vkdnw_single"
    return Proxy(name, (*entropy.readings, StructureReading()), formula, True, SOURCE, SETTING, LAYERS)


SOURCE = "Tybl and Neumann 2025, arXiv 2503.22325; ondratybl/VKDNW @6901b65"
SETTING = Setting("kaiming_fan_in", "eval", "gaussian")
LAYERS = "the first scalar of each of the first 128 parameter tensors"
PROXY = vkdnw()
SINGLE = vkdnw_single()
CODE = vkdnw("code")
SINGLE_CODE = vkdnw_single("code")
