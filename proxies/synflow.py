"""SynFlow: how much weight lies on the paths from input to output; no data.

    R = sum of outputs for one image of ones, every parameter replaced by its absolute value, the network made linear
    synflow = sum over convolution and linear weights of w dR/dw,                     higher is better
    synflow_freerea = sum over the same weights of w log(1 + dR/dw),                  higher is better

Source: Tanaka et al. (2020, arXiv 2006.05467); as a proxy, Abdelfattah et al. (2021, arXiv 2101.08134) and
SamsungLabs/zero-cost-nas @a43bfbc. The second sum is the "LogSynflow" of Cavagnero et al. (2023, "FreeREA", arXiv
2207.05135), NiccoloCavagnero/FreeREA @fb7f549. SynFlow reaches 1e61, so everything is float64; `log_synflow` is its
logarithm and ranks alike.

BatchNorm is bypassed. So are ReLU, ReLU6, Hardtanh and Tanh: no value is negative, so ReLU does nothing, and those that
saturate would cut every path. The authors' code bypasses BatchNorm alone; with ReLU both give the same.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from subshot.proxies.base import Probe, Proxy, ProxyUndefined, hooked, weight_layers

BYPASSED = (_BatchNorm, nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.Tanh)


def synflow(model: nn.Module, probe: Probe) -> float:
    """For one image of the probe's shape. Raises ProxyUndefined where no path carries weight, or beyond float64."""
    return _positive(sum(float((weight * gradient).sum()) for weight, gradient in path_gradients(model, probe)))


def log_synflow(model: nn.Module, probe: Probe) -> float:
    """The natural logarithm of `synflow`."""
    return math.log(synflow(model, probe))


def synflow_freerea(model: nn.Module, probe: Probe) -> float:
    """With the logarithm at each weight, so that no few weights outweigh the rest."""
    return _positive(sum(float((weight * gradient.log1p()).sum()) for weight, gradient in path_gradients(model, probe)))


def path_gradients(model: nn.Module, probe: Probe) -> list[tuple[Tensor, Tensor]]:
    """|w| and dR/d|w|, float64, of every convolution and linear weight that R depends on; none is negative."""
    weights = {id(layer.weight) for layer in weight_layers(model)}
    state = {name: p.detach().double().abs() for name, p in model.named_parameters()}
    read = [state[name].requires_grad_(True) for name, p in model.named_parameters() if id(p) in weights]
    if not read:
        raise ProxyUndefined("the network has no convolution and no linear layer")
    buffers = {name: b.double() if b.is_floating_point() else b for name, b in model.named_buffers()}
    images = probe.batches[0][0]
    ones = torch.ones((1, *images.shape[1:]), dtype=torch.float64, device=images.device)

    def pass_input(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return args[0]

    model.eval()
    with hooked([m.register_forward_hook(pass_input) for m in model.modules() if isinstance(m, BYPASSED)]):
        total = torch.func.functional_call(model, {**state, **buffers}, (ones,)).sum()
    gradients = torch.autograd.grad(total, read, allow_unused=True)
    return [(w.detach(), g) for w, g in zip(read, gradients, strict=True) if g is not None]


def _positive(score: float) -> float:
    if not 0.0 < score < math.inf:
        raise ProxyUndefined(f"the sum over paths is {score}")
    return score


PROXY = Proxy(
    name="synflow",
    fn=synflow,
    maximize=True,
    min_batches=1,
    needs_labels=False,
    source="Tanaka et al. 2020, arXiv 2006.05467; Abdelfattah et al. 2021, arXiv 2101.08134",
)
LOG = Proxy(
    name="log_synflow",
    fn=log_synflow,
    maximize=True,
    min_batches=1,
    needs_labels=False,
    source="the logarithm of synflow",
)
FREEREA = Proxy(
    name="synflow_freerea",
    fn=synflow_freerea,
    maximize=True,
    min_batches=1,
    needs_labels=False,
    source="Cavagnero et al. 2023, arXiv 2207.05135",
)
