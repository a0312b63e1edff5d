"""Jacobian covariance: how independent the images' input gradients are of one another.

    J_i = d(sum of the batch's logits) / dx_i, flattened        R = correlations of the J_i, [N, N]
    score = -sum over eigenvalues v of R of [log(v + k) + 1 / (v + k)],  k = 1e-5,     higher is better

Source: Mellor et al. (first version of arXiv 2006.04647); Abdelfattah et al. (2021, arXiv 2101.08134);
SamsungLabs/zero-cost-nas @a43bfbc, which takes eigenvalues with a solver for non-symmetric matrices. BatchNorm in train
mode, no labels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from subshot.proxies.base import Probe, Proxy, ProxyUndefined

SMALL = 1e-5


def jacob_cov(model: nn.Module, probe: Probe) -> float:
    """The score of the first batch. Raises ProxyUndefined where an image's gradient is constant."""
    images = probe.batches[0][0].detach().clone().requires_grad_(True)
    total = model.train()(images).sum()
    if not total.requires_grad:
        raise ProxyUndefined("the outputs do not depend on the inputs")
    (jacobian,) = torch.autograd.grad(total, images)
    return score_of(jacobian.flatten(1).double())


def score_of(jacobian: Tensor) -> float:
    """The score of input gradients, float64 [N, D]."""
    correlations = torch.corrcoef(jacobian)
    if not correlations.isfinite().all():
        raise ProxyUndefined("the input gradient of an image is constant, so it has no correlation with the others")
    eigenvalues = torch.linalg.eigvalsh(correlations) + SMALL
    return -float((eigenvalues.log() + 1.0 / eigenvalues).sum())


PROXY = Proxy(
    name="jacob_cov",
    fn=jacob_cov,
    maximize=True,
    min_batches=1,
    needs_labels=False,
    source="Mellor et al. 2020, arXiv 2006.04647v1; Abdelfattah et al. 2021, arXiv 2101.08134",
)
