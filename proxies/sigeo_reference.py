"""What the public SiGeo code for click-through rates computes, which is not Eq. 7. For comparison only.

Source: zhenghuazx/NasRec-SiGeo, nasrec/utils/SiGeo.py. It differs from the definition in these ways, all kept here:

- Its scripts freeze everything but the last linear layer, so there are two entries: that layer's weight and bias.
  Where a layer here keeps its weight in several tensors, they are one entry, in the order in which they are registered.
- Of an entry it reads one coordinate alone, the first whose standard deviation (divided by N - 1) is not zero.
- Entries are keyed by the layer's text and the tensor's size, so equal layers are thrown together.
- The Fisher-Rao term is log(|sum over entries and batches of g . theta| + 1e-10): no square and no mean.
- The loss is the last batch's.
- The gradients of each batch are clipped to a norm of 5 before they are read.

Left out: it takes an optimiser step after every batch (learning rate about 1e-8 to 1e-3), so that its gradients belong
to slightly different weights. It minimises the negative of the score.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from subshot.proxies.base import Probe, ProxyUndefined, preserved

FLOOR = 1e-10


def reference_sigeo(
    model: nn.Module,
    probe: Probe,
    layers: Sequence[str] | None = None,
    l1: float = 1.0,
    l2: float = 1.0,
    l3: float = 1.0,
    clip_norm: float | None = 5.0,
) -> float:
    """l1 (sum of logs) + l2 (log term) - l3 (last loss); higher is better. The network is left as it was.

    layers: qualified names of the layers to read, by default the last module with parameters of its own. Raises
    ValueError for fewer than two batches or an unknown name, ProxyUndefined where an entry's gradients do not vary
    (the public code stops with an IndexError).
    """
    zico, log_fisher_rao, loss = reference_terms(model, probe, layers, clip_norm)
    return l1 * zico + l2 * log_fisher_rao - l3 * loss


def reference_terms(
    model: nn.Module, probe: Probe, layers: Sequence[str] | None = None, clip_norm: float | None = 5.0
) -> tuple[float, float, float]:
    """(sum of logs, log of the Fisher-Rao term, loss of the last batch) as the public code has them."""
    if len(probe.batches) < 2:
        raise ValueError(f"SiGeo reads at least 2 batches; the probe has {len(probe.batches)}")
    named = _entries(model, layers)
    with torch.inference_mode(False), torch.enable_grad(), preserved(model):
        torch.manual_seed(probe.seed)
        model.train()
        parameters = [parameter.requires_grad_(True) for _, members in named for parameter in members]
        gradients: dict[str, list[Tensor]] = {}
        theta: dict[str, Tensor] = {}
        loss = math.nan
        for inputs, targets in probe.batches:
            value = probe.loss(model(inputs), targets)
            loss = value.item()
            found = iter(_clipped(torch.autograd.grad(value, parameters), clip_norm))
            for key, members in named:
                gradients.setdefault(key, []).append(torch.cat([next(found).flatten() for _ in members]))
                theta[key] = torch.cat([parameter.detach().flatten() for parameter in members])
    logs, inner = [], 0.0
    for key, batches in gradients.items():
        stacked = torch.stack(batches)
        deviation = stacked.std(dim=0)
        varying = deviation.nonzero().flatten()
        if len(varying) == 0:
            raise ProxyUndefined(f"no gradient of {key} varies from batch to batch")
        ratio = float(stacked.abs().mean(dim=0)[varying[0]] / deviation[varying[0]])
        logs.append(math.log(ratio) if ratio > 0.0 else 0.0)
        inner += float((stacked.sum(dim=0) * theta[key]).sum())
    terms = (math.fsum(logs), math.log(abs(inner) + FLOOR), loss)
    if not all(math.isfinite(term) for term in terms):
        raise ProxyUndefined(f"a term is not finite: {terms}")
    return terms


def _entries(model: nn.Module, layers: Sequence[str] | None) -> list[tuple[str, list[Tensor]]]:
    """The public code's key of each entry that is read, and the parameters that make it up."""
    modules = dict(model.named_modules())
    owners = [name for name, module in modules.items() if any(True for _ in module.parameters(recurse=False))]
    if not owners:
        raise ProxyUndefined("the network has no parameter")
    layers = owners[-1:] if layers is None else layers
    unknown = [name for name in layers if name not in modules]
    if unknown:
        raise ValueError(f"the network has no layer {unknown[0]!r}; layers with parameters are {', '.join(owners)}")
    entries = []
    for name in layers:
        own = dict(modules[name].named_parameters(recurse=False))
        for members in ([p for n, p in own.items() if n != "bias"], [p for n, p in own.items() if n == "bias"]):
            if members:
                entries.append((f"{modules[name]}({sum(parameter.numel() for parameter in members)},)", members))
    return entries


def _clipped(gradients: Sequence[Tensor], norm: float | None) -> list[Tensor]:
    """As torch.nn.utils.clip_grad_norm_ would leave them."""
    if norm is None:
        return list(gradients)
    total = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradients]))
    return [gradient * (norm / (total + 1e-6)).clamp(max=1.0) for gradient in gradients]
