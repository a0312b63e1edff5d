"""ZiCo: how steady a layer's gradients are from batch to batch.

    score = sum over layers of log( sum over weights of mean_b |g_b| / std_b(g_b) ),     higher is better

g_b is the gradient of batch b's mean loss at unchanged weights. Source: Li et al. (2023, arXiv 2301.11300), as
SLDGroup/ZiCo @b0fec65 computes it: the deviation is of the signed gradient over the batches, divided by their number.
Weights of standard deviation zero are left out, and so are layers without any other. Convolution and linear weights,
BatchNorm in train mode, labels. With two batches the deviation |g_1 - g_2| / 2 can be tiny and the score is rough.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from subshot.proxies.base import Probe, Proxy, ProxyUndefined, weight_gradients


def zico(model: nn.Module, probe: Probe) -> float:
    """The score over all batches of the probe, at least two. Raises ProxyUndefined where no gradient varies."""
    model.train()
    by_batch = [weight_gradients(model, batch, probe.loss) for batch in probe.batches]
    logs = []
    for layer in zip(*by_batch, strict=True):
        gradients = [gradient for gradient in layer if gradient is not None]
        if len(gradients) < len(by_batch):
            continue
        stacked = torch.stack(gradients)
        deviation = stacked.std(dim=0, correction=0)
        size = stacked.abs().mean(dim=0)
        ratio = float((size / deviation).where(deviation > 0, 0.0).sum(dtype=torch.float64))
        if ratio > 0.0:
            logs.append(math.log(ratio))
    if not logs:
        raise ProxyUndefined("no gradient varies from batch to batch")
    return math.fsum(logs)


PROXY = Proxy(
    name="zico",
    fn=zico,
    maximize=True,
    min_batches=2,
    needs_labels=True,
    source="Li et al. 2023, arXiv 2301.11300",
)
