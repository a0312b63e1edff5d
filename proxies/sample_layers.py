"""Gradients of single samples by the parameters of one layer, from the layer's inputs and its outputs' gradients.

Nothing is stored for a whole network: a layer's gradients are made in chunks [N, entries] that fit a core's cache,
read, and dropped. The entries of a chunk are in an order of their own; `Chunk.theta` has the parameter's values in
that order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

CHUNK = 2**20
"""Elements of the unfolded inputs, or of the gradients of N samples, that are held at once."""

Call = tuple[Tensor, Tensor]
"""One call of a layer: its input and its output's gradient, of batches [N, ...]."""


@dataclass(frozen=True)
class Chunk:
    """gradients: [N, entries]. theta: the parameter's values, [entries]."""

    gradients: Tensor
    theta: Tensor


def is_covered(module: nn.Module) -> bool:
    """Whether `sample_gradients` knows the module's parameters: classes of their own may use them in their own way."""
    if type(module) is nn.BatchNorm2d:
        return True
    own = [name for name, parameter in module.named_parameters(recurse=False) if name not in ("weight", "bias")]
    return not own and (is_plain_convolution(module) or type(module) is nn.Linear and "forward" not in vars(module))


def is_plain_convolution(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether the module convolves with its own parameter, padded by zeros that are counted."""
    if type(module) is not nn.Conv2d or "forward" in vars(module) or not isinstance(module.weight, nn.Parameter):
        return False
    return module.padding_mode == "zeros" and not isinstance(module.padding, str)


def sample_gradients(module: nn.Module, parameter: str, calls: Sequence[Call], alone: bool) -> Iterator[Chunk]:
    """The gradients of every sample by one parameter of a covered module, summed over the module's calls.

    alone: BatchNorm normalised each sample by its own statistics, otherwise by the running ones.
    """
    theta = module.get_parameter(parameter).detach()
    if isinstance(module, _BatchNorm):
        yield Chunk(_added(_scale_gradients(module, *call, parameter, alone) for call in calls), theta)
    elif parameter == "bias":
        yield Chunk(_added(_bias_gradients(module, gradient) for _, gradient in calls), theta)
    elif isinstance(module, nn.Conv2d):
        yield from _convolution(module, theta, calls)
    else:
        yield from _linear(theta, calls)


def _added(parts: Iterator[Tensor]) -> Tensor:
    total = next(parts)
    for part in parts:
        total = total + part
    return total


def _bias_gradients(module: nn.Module, gradient: Tensor) -> Tensor:
    if isinstance(module, nn.Conv2d):
        return gradient.sum(dim=(2, 3))
    return gradient.reshape(len(gradient), -1, gradient.shape[-1]).sum(dim=1)


def _scale_gradients(module: _BatchNorm, x: Tensor, gradient: Tensor, parameter: str, alone: bool) -> Tensor:
    """Of BatchNorm's weight, sum of gradient times normalised input, or of its bias, sum of gradient; [N, C]."""
    total = gradient.sum(dim=(2, 3))
    if parameter == "bias":
        return total
    if alone:
        variance, mean = torch.var_mean(x, dim=(2, 3), correction=0)
    else:
        assert module.running_mean is not None and module.running_var is not None
        variance, mean = module.running_var, module.running_mean
    return ((gradient * x).sum(dim=(2, 3)) - mean * total) * (variance + module.eps).rsqrt()


def _linear(theta: Tensor, calls: Sequence[Call]) -> Iterator[Chunk]:
    """Sums of outer products over all dimensions between the first and the last, in chunks of rows of the weight."""
    flat = [(x.reshape(len(x), -1, x.shape[-1]), g.reshape(len(g), -1, g.shape[-1])) for x, g in calls]
    for rows in _parts(theta.shape[0], len(flat[0][0]) * theta.shape[1]):
        products = _added(g[..., rows].transpose(1, 2) @ x for x, g in flat)
        yield Chunk(products.flatten(1), theta[rows].flatten())


def _convolution(module: nn.Conv2d, theta: Tensor, calls: Sequence[Call]) -> Iterator[Chunk]:
    """For each sample its output gradients times what the taps see of its inputs, in chunks over output channels."""
    if module.groups == 1 and module.stride == (1, 1):
        yield from _without_strides(module, theta, calls)
        return
    groups, outputs = module.groups, module.out_channels // module.groups
    by_group = theta.permute(0, 2, 3, 1).reshape(groups, outputs, -1)
    entries = len(calls[0][0]) * groups * by_group.shape[2]
    for part in _parts(outputs, entries):
        products = _added(_unfolded_products(module, x, gradient, part) for x, gradient in calls)
        yield Chunk(products.flatten(1), by_group[:, part].flatten())


def _without_strides(module: nn.Conv2d, theta: Tensor, calls: Sequence[Call]) -> Iterator[Chunk]:
    """The same without groups and strides, where nothing needs to be unfolded.

    With the places of the gradient set out as wide as the padded image, zeros behind each row, a tap sees the image's
    places from its own offset on.
    """
    (top, left), _, (dy, dx) = geometry(module)
    rows, columns = module.kernel_size
    flat = []
    for x, gradient in calls:
        images = F.pad(x.permute(0, 2, 3, 1), (0, 0, left, left, top, top + (columns > 1))).contiguous()
        width = images.shape[2]
        wide = F.pad(gradient.permute(0, 2, 3, 1), (0, 0, 0, width - gradient.shape[3])).contiguous()
        flat.append((width, images.flatten(1, 2).transpose(1, 2), wide.flatten(1, 2)))
    count, inputs, _ = flat[0][1].shape
    for part in _parts(theta.shape[0], count * inputs * rows * columns):
        products = theta.new_empty(rows * columns, count, inputs, part.stop - part.start)
        for number, (width, places, by_place) in enumerate(flat):
            for tap, product in enumerate(products):
                offset = tap // columns * dy * width + tap % columns * dx
                seen = places[..., offset : offset + by_place.shape[1]]
                if number:
                    product.baddbmm_(seen, by_place[..., part])
                else:
                    torch.bmm(seen, by_place[..., part], out=product)
        yield Chunk(products.transpose(0, 1).flatten(1), theta[part].permute(2, 3, 1, 0).flatten())


def _unfolded_products(module: nn.Conv2d, x: Tensor, gradient: Tensor, part: slice) -> Tensor:
    """[N, groups, outputs of the part, taps x inputs of a group]."""
    groups, channels = module.groups, module.in_channels // module.groups
    taps = module.kernel_size[0] * module.kernel_size[1]
    count, places = len(x), gradient.shape[2] * gradient.shape[3]
    by_place = gradient.permute(0, 2, 3, 1).reshape(count, places, groups, -1)[..., part]
    products = x.new_empty(count, groups, by_place.shape[-1], taps * channels)
    for some in _parts(count, places * taps * x.shape[1]):
        windows = _windows(module, x[some], gradient.shape[2:])
        n = len(windows)
        left = by_place[some].permute(0, 2, 3, 1).reshape(n * groups, -1, places)
        right = (
            windows.reshape(n, places, taps, groups, channels).permute(0, 3, 1, 2, 4).reshape(n * groups, places, -1)
        )
        torch.bmm(left, right, out=products[some].view(n * groups, -1, taps * channels))
    return products


def geometry(module: nn.Conv2d) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Padding, stride and dilation of a covered convolution, each (rows, columns)."""
    assert not isinstance(module.padding, str), "such a module is not covered"
    (top, left), (down, right), (dy, dx) = module.padding, module.stride, module.dilation
    return (top, left), (down, right), (dy, dx)


def _windows(module: nn.Conv2d, x: Tensor, size: torch.Size) -> Tensor:
    """What each output place looks at, [N, height, width, taps, C]: a view where the kernel is a single tap."""
    (top, left), (down, right), (dy, dx) = geometry(module)
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, left, left, top, top)).contiguous()
    n, row, column, channel = padded.stride()
    shape = (len(x), *size, *module.kernel_size, x.shape[1])
    return padded.as_strided(shape, (n, row * down, column * right, row * dy, column * dx, channel))


def _parts(count: int, elements: int) -> list[slice]:
    """0..count in runs of which none has more than CHUNK elements, `elements` each; at least one a run."""
    step = max(1, CHUNK // max(1, elements))
    return [slice(start, stop) for start, stop in pairwise([*range(0, count, step), count])]
