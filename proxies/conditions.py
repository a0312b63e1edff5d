"""Sets a network and its inputs up for a measurement, as a `Setting` says, and takes the modes back afterwards.

Images of single precision on the CPU are laid out channels last, in which torch's convolutions are one and a half to
three times as fast (benchmarks/proxy_speed.py); values change by rounding alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from subshot.proxies.base import (
    Batch,
    BatchNormMode,
    Inputs,
    ProxyUndefined,
    Setting,
    Weights,
    forwards_replaced,
    preserved,
)

BYPASSED = (_BatchNorm, nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.Tanh)
"""What "bypassed" makes the identity: beside BatchNorm the activations that do nothing to values that are not negative,
and those that saturate, which would cut every path."""

NORMALISING = (_BatchNorm.forward, nn.SyncBatchNorm.forward)
"""What a BatchNorm computes that does nothing but normalise."""


@contextmanager
def prepared(model: nn.Module, setting: Setting, seed: int) -> Iterator[None]:
    """The model in this setting, with gradients on, and torch's random state at `seed`; afterwards all is as before.

    Raises ProxyUndefined where the setting does not exist for the model. Works under no_grad and inference_mode.
    """
    with torch.inference_mode(False), torch.enable_grad(), preserved(model), ExitStack() as undo:
        set_weights(model, setting.weights, seed)
        undo.enter_context(batch_norm_mode(model, setting.batch_norm))
        torch.manual_seed(seed)
        yield


def set_weights(model: nn.Module, weights: Weights, seed: int) -> None:
    """In place; see `Setting`. Draws are the same on every device and in every precision: see `gaussian`."""
    if weights == "given":
        return
    if weights == "absolute":
        model.double()
        with torch.no_grad():
            for tensor in model.parameters():
                tensor.abs_()
        return
    covered: set[int] = set()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, _ConvNd | nn.Linear):
                covered.add(id(module.weight))
                drawn = gaussian(module.weight.shape, generator)
                if weights != "gaussian":
                    fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(module.weight)
                    drawn *= (2.0 / (fan_in if weights == "kaiming_fan_in" else fan_out)) ** 0.5
                module.weight.copy_(drawn)
                if module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, _BatchNorm) and module.affine:
                module.weight.fill_(1.0)
                if module.bias is not None:
                    module.bias.zero_()
    for name, parameter in model.named_parameters():
        if parameter.ndim >= 2 and id(parameter) not in covered:
            raise ProxyUndefined(
                f"the initialisation {weights} is defined for convolutions and linear layers, and {name} is neither's; "
                'take the setting weights="given"'
            )


def gaussian(shape: torch.Size | tuple[int, ...], generator: torch.Generator) -> Tensor:
    """N(0, 1) in single precision from a CPU generator; torch draws other numbers in double precision."""
    return torch.randn(shape, generator=generator, dtype=torch.float32)


@contextmanager
def batch_norm_mode(model: nn.Module, mode: BatchNormMode) -> Iterator[None]:
    """See `Setting`. In no mode are running statistics moved, so that no measurement changes another."""
    model.train(mode in ("train", "single"))
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    tracked = [module.track_running_stats for module in norms]
    changes: dict[nn.Module, Any] = {}
    handles = []
    try:
        if mode == "eval" and any(module.running_mean is None for module in norms):
            raise ProxyUndefined("a BatchNorm keeps no running statistics, so it has no eval mode")
        for module in norms:
            if mode in ("train", "single"):
                module.track_running_stats = False
            if mode == "train":
                handles.append(module.register_forward_pre_hook(_require_variance))
            if mode == "single":
                if "forward" in vars(module) or type(module).forward not in NORMALISING:
                    raise ProxyUndefined(
                        f"{type(module).__name__} has a forward of its own: what it does to a single sample is unknown"
                    )
                changes[module] = partial(_normalised_alone, module)
        if mode == "bypassed":
            changes = {module: _passed_on for module in model.modules() if isinstance(module, BYPASSED)}
        with forwards_replaced(changes):
            yield
    finally:
        for handle in handles:
            handle.remove()
        for module, was in zip(norms, tracked, strict=True):
            module.track_running_stats = was


def _passed_on(x: Tensor) -> Tensor:
    return x


def normalises_alone(module: nn.Module) -> bool:
    """Whether the mode "single" is on."""
    return getattr(vars(module).get("forward"), "func", None) is _normalised_alone


def _require_variance(module: nn.Module, args: tuple[Tensor, ...]) -> None:
    x = args[0]
    if x.numel() == x.shape[1]:
        raise ProxyUndefined("BatchNorm in train mode has one value a channel here, and so no variance")


def _normalised_alone(module: _BatchNorm, x: Tensor) -> Tensor:
    """What train mode would do to each sample of [N, C, ...] in a batch of its own."""
    if x.dim() < 3 or x.shape[2:].numel() == 1:
        raise ProxyUndefined("BatchNorm over a single sample has one value a channel here, and so no variance")
    return F.instance_norm(x, weight=module.weight, bias=module.bias, use_input_stats=True, eps=module.eps)


def prepare_batch(
    batch: Batch, inputs: Inputs, number: int, seed: int, like: Tensor | None, channels_last: bool = True
) -> Batch:
    """A copy of the batch that a setting reads. number: which one; gaussian inputs differ between batches. like: a
    parameter, for whose type "ones" are made. channels_last: lay images out so, where that is faster."""
    given, targets = batch
    if inputs == "gaussian":
        generator = torch.Generator().manual_seed(seed + 1_000_003 * number)
        given = _mapped(given, lambda x: gaussian(x.shape, generator).to(x))
    elif inputs == "ones":
        dtype = torch.float64 if like is None else like.dtype
        given = _mapped(given, lambda x: torch.ones((1, *x.shape[1:]), dtype=dtype, device=x.device))
        targets = targets[:1]
    return _mapped(given, partial(_laid_out, channels_last=channels_last)), targets


def _mapped(inputs: Any, change: Any) -> Any:
    """The same structure with every floating tensor changed, and detached."""
    if isinstance(inputs, Tensor):
        return change(inputs.detach()) if inputs.is_floating_point() else inputs
    if isinstance(inputs, tuple | list):
        return type(inputs)(_mapped(item, change) for item in inputs)
    return inputs


def _laid_out(x: Tensor, channels_last: bool) -> Tensor:
    fast = channels_last and x.dim() == 4 and x.device.type == "cpu" and x.dtype == torch.float32
    return x.clone(memory_format=torch.channels_last) if fast else x.clone()
