"""Zen-score: how strongly a network with Gaussian weights answers a small change of a Gaussian image; no data.

    score = log mean_n ||f(x_n) - f(x_n + 0.01 e_n)||_F + sum over BatchNorms of log sqrt(mean_c var_c)

Higher is better. f is the last feature map before pooling, var_c the variance that a BatchNorm divides by for the clean
batch x. Source: Lin et al. (2021, "Zen-NAS", arXiv 2102.01063). idstcv/ZenNAS @d1d617e departs from it: L1 norm,
running variances that are mostly their initial 1, and residual links switched off. Here the paper's norm and variances,
and links stay on; the authors call the score not meaningful for cell spaces, where branches join.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from subshot.proxies.base import Probe, Proxy, ProxyUndefined, hooked, weight_layers

STEP = 0.01
REPEATS = 2
POOLS = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)


def zen(model: nn.Module, probe: Probe) -> float:
    """Mean score over draws of all weights and images from the probe's seed; of its batches the shape alone is read."""
    images = probe.batches[0][0]
    generator = torch.Generator().manual_seed(probe.seed)

    def gaussian(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator).to(like)

    scores = []
    for _ in range(REPEATS):
        make_gaussian(model, generator)
        scores.append(zen_of(model, gaussian(images), gaussian(images)))
    return sum(scores) / REPEATS


def make_gaussian(model: nn.Module, generator: torch.Generator) -> None:
    """In place: convolution and linear weights from N(0, 1), their biases 0, BatchNorm scales 1 and shifts 0."""
    with torch.no_grad():
        for layer in weight_layers(model):
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator))
            if layer.bias is not None:
                layer.bias.zero_()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d) and module.affine:
                module.weight.fill_(1.0)
                module.bias.zero_()


def zen_of(model: nn.Module, images: Tensor, noise: Tensor) -> float:
    """The formula for these images and this noise [N, C, H, W] and the weights as they are; BatchNorm in train mode."""
    log_scale: list[Tensor] = []
    last: list[Tensor] = []

    def read_variance(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        log_scale.append(args[0].double().var(dim=(0, 2, 3), correction=0).mean().log() / 2)

    def keep_last(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        if output.dim() == 4:
            last[:] = [output]

    leaves = [m for m in model.modules() if not list(m.children()) and not isinstance(m, POOLS)]
    batch_norms = [m for m in leaves if isinstance(m, nn.BatchNorm2d)]
    model.train()
    with torch.no_grad(), hooked([m.register_forward_hook(keep_last) for m in leaves]):
        with hooked([m.register_forward_pre_hook(read_variance) for m in batch_norms]):
            model(images)
        if not last or not log_scale:
            raise ProxyUndefined("the network has no feature map or no BatchNorm, which the score reads")
        clean = last[0].clone()
        model(images + STEP * noise)
    change = (last[0] - clean).flatten(1).double().norm(dim=1).mean()
    return float(change.log() + torch.stack(log_scale).sum())


PROXY = Proxy(
    name="zen",
    fn=zen,
    maximize=True,
    min_batches=1,
    needs_labels=False,
    source="Lin et al. 2021, arXiv 2102.01063",
)
