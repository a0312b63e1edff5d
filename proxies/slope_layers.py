"""Convolutions and BatchNorm with the slope of their outputs along the network's own weights, both to be walked back.

A value and its slope travel together as a dual tensor of `torch.autograd.forward_ad`; `with_slopes` replaces what torch
would do for the two layers that take the time. It would need two convolutions for the slope w' = w of a weight where
one and an addition do, and a dozen passes over the feature maps for BatchNorm's second derivative where four do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from subshot.proxies.base import forwards_replaced, hooked
from subshot.proxies.sample_layers import geometry, is_plain_convolution


@contextmanager
def with_slopes(model: nn.Module) -> Iterator[None]:
    """Inside, the model's convolutions and BatchNorms over batches take dual inputs and weights.

    The weights' slopes must be equal to the weights, and those of biases, scales and shifts nothing. A module that is
    called under no_grad raises RuntimeError, since slopes would pass on there where gradients do not.
    """
    changes: dict[nn.Module, Any] = {}
    for module in model.modules():
        if is_plain_convolution(module):
            changes[module] = partial(_convolve, module)
        elif type(module) is nn.BatchNorm2d and module.training and not module.track_running_stats:
            if "forward" not in vars(module):
                changes[module] = partial(_normalise, module)
    with hooked([module.register_forward_pre_hook(_require_gradients) for module in model.modules()]):
        with forwards_replaced(changes):
            yield


def _require_gradients(module: nn.Module, args: tuple[Any, ...]) -> None:
    if not torch.is_grad_enabled():
        raise RuntimeError(f"{type(module).__name__} is called under no_grad")


def _convolve(module: nn.Conv2d, x: Tensor) -> Tensor:
    x, slope = forward_ad.unpack_dual(x)
    weight, direction = forward_ad.unpack_dual(module.weight)
    assert direction is not None, "the weight is a dual tensor"
    value, steep = Convolution.apply(x, slope, weight, direction, module.bias, module)  # type: ignore[no-untyped-call]
    return forward_ad.make_dual(value, steep)


class Convolution(torch.autograd.Function):
    """(x * w + b, x' * w + x * w) of x [N, C, H, W], its slope x' or None, and w. The direction's values are w's.

    The gradient by the direction is that of the slope x * w' at w' = w.
    """

    @staticmethod
    def forward(
        x: Tensor, slope: Tensor | None, weight: Tensor, direction: Tensor, bias: Tensor | None, module: nn.Conv2d
    ) -> tuple[Tensor, Tensor]:
        def convolve(images: Tensor) -> Tensor:
            padding, stride, dilation = geometry(module)
            return torch.conv2d(images, weight, None, stride, padding, dilation, module.groups)

        product = convolve(x)
        steep = product.clone() if slope is None else convolve(slope).add_(product)
        return product if bias is None else product.add_(bias.view(-1, 1, 1)), steep

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        x, slope, weight, _, _, ctx.module = inputs
        ctx.save_for_backward(x, slope, weight)

    @staticmethod
    def backward(ctx: Any, by_value: Tensor, by_slope: Tensor) -> tuple[Tensor | None, ...]:
        x, slope, weight = ctx.saved_tensors
        wanted = bool(ctx.needs_input_grad[0])
        by_x, by_weight = _walk_back(ctx.module, by_value, x, weight, wanted)
        back, by_direction = _walk_back(ctx.module, by_slope, x, weight, wanted or slope is not None)
        if slope is not None:
            by_weight = by_weight + _walk_back(ctx.module, by_slope, slope, weight, False)[1]
        by_x = by_x + back if wanted else None
        return by_x, None if slope is None else back, by_weight, by_direction, None, None


def _walk_back(module: nn.Conv2d, gradient: Tensor, x: Tensor, weight: Tensor, to_input: bool) -> tuple[Any, Tensor]:
    """The gradients by the input, where asked for, and by the weight."""
    padding, stride, dilation = geometry(module)
    by_x, by_weight, _ = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, stride, padding, dilation, False, [0, 0], module.groups, [to_input, True, False]
    )
    return by_x, by_weight


def _normalise(module: nn.BatchNorm2d, x: Tensor) -> Tensor:
    x, slope = forward_ad.unpack_dual(x)
    if slope is None:
        return nn.BatchNorm2d.forward(module, x)
    value, steep, *_ = BatchNorm.apply(x, slope, module.weight, module.bias, module.eps)  # type: ignore[no-untyped-call]
    return forward_ad.make_dual(value, steep)


class BatchNorm(torch.autograd.Function):
    """Of x [N, C, H, W] by the batch's own statistics, and of the slope x' of x; not differentiable by scale and shift.

    With n = (x - mean) r, r = (var + eps)^-1/2, and means over all but the channel, the layer's Jacobian is
    J = scale r (1 - mean(.) - n mean(n .)), which is symmetric: the slope is J x', and a slope's gradient a goes back
    as J a. The derivative of the sum of a J x' by x is

        -scale r^2 (B (a - mean a) + A (x' - mean x') + (mean(a x') - mean a mean x' - 3 A B) n),
        A = mean(n a), B = mean(n x').
    """

    @staticmethod
    def forward(x: Tensor, slope: Tensor, scale: Tensor | None, shift: Tensor | None, eps: float) -> tuple[Tensor, ...]:
        value, mean, r = torch.native_batch_norm(x, scale, shift, None, None, True, 0.0, eps)
        return value, _jacobian_product(slope, x, scale, mean, r, eps), mean, r

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, slope, scale, _, ctx.eps = inputs
        ctx.mark_non_differentiable(*output[2:])
        ctx.save_for_backward(x, slope, scale, *output[2:])

    @staticmethod
    def backward(ctx: Any, by_value: Tensor, by_slope: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, slope, scale, mean, r = ctx.saved_tensors

        def average(tensor: Tensor) -> Tensor:
            return tensor.mean(dim=(0, 2, 3))

        a, b = average(by_slope), average(slope)
        along_a, along_b = r * (average(x * by_slope) - mean * a), r * (average(x * slope) - mean * b)
        by_n = average(by_slope * slope) - a * b - 3 * along_a * along_b
        factor = -r * r if scale is None else -scale * r * r

        def widened(channel: Tensor) -> Tensor:
            return (factor * channel).view(-1, 1, 1)

        by_x = _jacobian_product(by_value, x, scale, mean, r, ctx.eps)
        by_x.addcmul_(by_slope, widened(along_b)).addcmul_(slope, widened(along_a)).addcmul_(x, widened(by_n * r))
        by_x -= widened(along_b * a + along_a * b + by_n * r * mean)
        return by_x, _jacobian_product(by_slope, x, scale, mean, r, ctx.eps), None, None, None


def _jacobian_product(vector: Tensor, x: Tensor, scale: Tensor | None, mean: Tensor, r: Tensor, eps: float) -> Tensor:
    product: Tensor = torch.ops.aten.native_batch_norm_backward(
        vector, x, scale, None, None, mean, r, True, eps, [True, False, False]
    )[0]
    return product
