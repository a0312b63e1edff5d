"""AZ-NAS: three measurements of the feature maps along a network's blocks, to be joined by rank with the MACs.

    expressivity  = sum over features of s,  s = entropy of the normalised eigenvalues of the channel covariance
    progressivity = min over consecutive features of the growth of s
    trainability  = mean over blocks of 2 - a - 1 / a,  a = largest singular value of the mean of g_in g_out^T,
                    g_out = +-1 at random at a block's output, g_in = its gradient at the block's input

All higher is better. Source: Lee and Ham (2024, arXiv 2403.19232); cvlab-yonsei/AZ-NAS @5e6683a. BatchNorm in train
mode, no labels. The authors feed Gaussian images; here the probe's are read, whatever they are.

The blocks are the children of the network's first ModuleList; the features are the first block's input and all outputs.
A block that returns its input is no block, so a network with an identity scores as the network without it does.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from subshot.proxies.base import Probe, Proxy, ProxyUndefined, hooked

SMALL_PART = 1e-8
SMALL_SCALE = 1e-6


def expressivity(model: nn.Module, probe: Probe) -> float:
    with torch.no_grad():
        return sum(entropies(features(model.train(), probe.batches[0][0])))


def progressivity(model: nn.Module, probe: Probe) -> float:
    with torch.no_grad():
        return progressivity_of(entropies(features(model.train(), probe.batches[0][0])))


def trainability(model: nn.Module, probe: Probe) -> float:
    """The random signs come from the probe's seed."""
    images = probe.batches[0][0].detach().clone().requires_grad_(True)
    maps = features(model.train(), images)
    generator = torch.Generator().manual_seed(probe.seed)
    signs = [(torch.randint(2, m.shape, generator=generator) * 2 - 1).to(m) for m in maps[1:]]
    return trainability_of(maps, signs)


def features(model: nn.Module, images: Tensor) -> list[Tensor]:
    """The first block's input and the output of every block that does anything, each [N, C, H, W]."""
    maps: list[Tensor] = []

    def keep(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        if not maps:
            maps.append(args[0])
        if output is not args[0]:
            maps.append(output)

    blocks = next((list(m) for m in model.modules() if isinstance(m, nn.ModuleList) and len(m)), [])
    with hooked([block.register_forward_hook(keep) for block in blocks]):
        model(images)
    if len(maps) < 2:
        raise ProxyUndefined("the network has no ModuleList of blocks, between which the score is taken")
    return maps


def entropies(maps: Sequence[Tensor]) -> list[float]:
    """s of each feature map, 0 to log C."""
    values = []
    for feature in maps:
        rows = feature.double().movedim(1, -1).flatten(0, -2)
        rows = rows - rows.mean(dim=0)
        spectrum = torch.linalg.eigvalsh(rows.T @ rows / len(rows)).clamp(min=0.0)
        parts = spectrum / spectrum.sum()
        values.append(-float((parts * (parts + SMALL_PART).log()).sum()))
    return values


def progressivity_of(values: Sequence[float]) -> float:
    return min(after - before for before, after in pairwise(values))


def trainability_of(maps: Sequence[Tensor], signs: Sequence[Tensor]) -> float:
    """From connected feature maps, and g_out for each but the first.

    Raises ProxyUndefined for a block whose input is no whole multiple of its output, which leaves no stride.
    """
    terms = []
    for (before, after), g_out in zip(pairwise(maps), signs, strict=True):
        (g_in,) = torch.autograd.grad(after, before, g_out, retain_graph=True)
        stride, rest = divmod(g_in.shape[-1], g_out.shape[-1])
        if rest:
            raise ProxyUndefined(f"a block maps {g_in.shape[-1]} pixels to {g_out.shape[-1]}, which no stride divides")
        g_in = F.pixel_unshuffle(g_in, stride).double()
        mean = torch.einsum("nihw,nohw->io", g_in, g_out.double()) / (g_out.numel() / g_out.shape[1])
        scale = float(torch.linalg.matrix_norm(mean, ord=2))
        terms.append(2.0 - scale - 1.0 / (scale + SMALL_SCALE))
    return sum(terms) / len(terms)


SOURCE = "Lee and Ham 2024, arXiv 2403.19232"
EXPRESSIVITY = Proxy("az_expressivity", expressivity, True, 1, False, SOURCE)
PROGRESSIVITY = Proxy("az_progressivity", progressivity, True, 1, False, SOURCE)
TRAINABILITY = Proxy("az_trainability", trainability, True, 1, False, SOURCE)
