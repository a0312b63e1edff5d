"""Initialisations that give every candidate module the same signal propagation: mean eigenvalue of J J^T equal to 1.

Dynamical-isometry NAS (arXiv 2307.02263) decomposes Gaussian draws into orthogonal tensors and freezes them; the
paper does not say how, so the constructions here are choices of this project, named, and measured in docs/log.md:

- `kaiming`: Gaussian weights of variance 2 / fan_in. The baseline; not isometric.
- `independent`: every convolution on its own: orthogonal matrices for 1x1 and full kernels, unit-norm depthwise
  filters.
- `delta`: depthwise filters +1 at the centre; the projection of a block is aligned with its expansion (below). The
  smallest variance, but kernels of 3, 5 and 7 are then the same function.
- `blend`: as delta, with depthwise filters sqrt(1 - a^2) at the centre and Gaussian noise of norm a on the other taps.
- `shift`: as delta, with the one tap anywhere in the kernel: pure translations, whose reach is the kernel's.

Alignment. An expansion E = sqrt(t) Q with Q^T Q = I and an independent projection multiply to something of variance
about 1. The projection V Q^T / sqrt(t) instead makes the block's linear part V, orthogonal. Where a residual is
added, J = I + B, so B must not be orthogonal itself: B = -2 U U^T, U of C / 4 orthonormal columns, makes J a
reflection, hence exactly orthogonal, with the branch at unit variance, where BatchNorm leaves it. With activations
and non-trivial kernels in between this holds approximately, and the scale of the last convolution is set by
measurement: of tr(J J^T) for plain blocks, and to s = -2 tr(B) / tr(B B^T), the root of phi(I + s B) = 1, for residual
ones. Filters are scaled for the zero padding of the map they see (a 7x7 filter on a 4x4 map loses half its taps).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from subshot.supernet.cost import strided
from subshot.supernet.network import Block, ChainNetwork, ChainSupernet, ConvUnit, LayerBranch
from subshot.supernet.spectrum import moments

Construction = Literal["kaiming", "independent", "delta", "blend", "shift"]
CONSTRUCTIONS: tuple[Construction, ...] = ("kaiming", "independent", "delta", "blend", "shift")

REFLECTED_FRACTION = 0.25
BLEND_NOISE = 0.5
CALIBRATION_ELEMENTS = (60_000, 60_000, 240_000)


@torch.no_grad()
def initialise(
    supernet: ChainSupernet,
    construction: Construction,
    generator: torch.Generator,
    branch_gamma: float = 1.0,
) -> None:
    """Sets every weight of the supernet in place; BatchNorm shifts become 0, running statistics (0, 1).

    BatchNorm scales start at 1, those of the layer branches at `branch_gamma`: 0 leaves the isometry of the layer as
    it is.
    """
    with _evaluating(supernet):
        _reset_batchnorms(supernet)
        size = _initialise_stem(supernet.stem, supernet.space.input_size, construction, generator)
        for number, layer in enumerate(supernet.space.layers):
            assert layer.size == size
            for choice in range(len(layer.ops)):
                initialise_block(supernet.block(number, choice), size, construction, generator)
            branch = supernet.branch(number)
            if branch is not None:
                initialise_branch(branch, branch_gamma, generator)
            size = strided(size, layer.stride)
        initialise_block(supernet.head, size, construction, generator)
        _initialise_classifier(supernet.classifier, generator)


@torch.no_grad()
def initialise_network(
    network: ChainNetwork, input_size: int, construction: Construction, generator: torch.Generator
) -> None:
    """The same for a stand-alone network on square images of side `input_size`."""
    with _evaluating(network):
        _reset_batchnorms(network)
        size = _initialise_stem(network.stem, input_size, construction, generator)
        for block in (*network.layers, network.head):
            assert isinstance(block, Block)
            initialise_block(block, size, construction, generator)
            size = strided(size, block.op.stride)
        _initialise_classifier(network.classifier, generator)


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    mode = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(mode)


def _reset_batchnorms(module: nn.Module) -> None:
    for child in module.modules():
        if isinstance(child, nn.BatchNorm2d):
            child.reset_parameters()


def _initialise_stem(stem: nn.Module, size: int, construction: Construction, generator: torch.Generator) -> int:
    """Returns the side of the map that the first layer sees."""
    for block in stem.children():
        assert isinstance(block, Block)
        initialise_block(block, size, construction, generator)
        size = strided(size, block.op.stride)
    return size


def _initialise_classifier(classifier: nn.Linear, generator: torch.Generator) -> None:
    out_features, in_features = classifier.weight.shape
    classifier.weight.copy_(orthogonal(out_features, in_features, generator))
    if classifier.bias is not None:
        classifier.bias.zero_()


@torch.no_grad()
def initialise_block(block: Block, size: int, construction: Construction, generator: torch.Generator) -> None:
    """One candidate, on maps of side `size`, in place. Its BatchNorms must be at their initial statistics."""
    paths = [path for path in (block.main, block.projection) if len(path)]
    for path in paths:
        units = [unit for unit in path if isinstance(unit, ConvUnit)]
        if construction == "kaiming":
            for unit in units:
                fan_in = unit.conv.weight[0].numel()
                unit.conv.weight.normal_(0.0, math.sqrt(2.0 / fan_in), generator=generator)
            continue
        map_size = size
        for unit in units:
            unit.conv.weight.copy_(_isometric_weight(unit.conv, map_size, construction, generator))
            map_size = strided(map_size, unit.conv.stride[0])
        residual = block.op.wiring == "residual"
        if construction != "independent":
            _align(units, residual, generator)
        _calibrate(path, units, size, residual and construction != "independent", generator)


def initialise_branch(branch: LayerBranch, gamma: float, generator: torch.Generator) -> None:
    """The layer indicator's connection: a frozen orthogonal 1x1 where there is one, average pooling's loss made up
    for."""
    branch.bn.weight.fill_(gamma)
    pooled = 1
    for module in branch.shortcut:
        if isinstance(module, nn.AvgPool2d):
            pooled = int(module.stride) if isinstance(module.stride, int) else module.stride[0]
        if isinstance(module, nn.Conv2d):
            matrix = orthogonal(module.out_channels, module.in_channels, generator)
            module.weight.copy_(pooled * matrix[:, :, None, None])


def orthogonal(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """A Haar-random matrix, [rows, columns], of mean squared row norm 1: orthonormal rows, or columns of norm
    sqrt(rows / columns).

    Decomposed from a Gaussian draw: the Q of its QR factorisation, with the sign of R's diagonal fixed.
    """
    tall, wide = max(rows, columns), min(rows, columns)
    q, r = torch.linalg.qr(torch.randn(tall, wide, generator=generator, dtype=torch.float64))
    q = q * torch.sign(torch.diagonal(r))
    matrix = q * math.sqrt(rows / columns) if rows >= columns else q.T
    return matrix.to(torch.get_default_dtype())


def tap_fractions(kernel: int, stride: int, size: int) -> Tensor:
    """For each tap of a padded kernel, the fraction of output positions at which it reads the map, not the padding;
    [k, k]."""
    centres = torch.arange(strided(size, stride)) * stride
    reads = centres[None, :] + torch.arange(kernel)[:, None] - kernel // 2
    inside = ((reads >= 0) & (reads < size)).double().mean(dim=1)
    return inside[:, None] * inside[None, :]


def _isometric_weight(conv: nn.Conv2d, size: int, construction: Construction, generator: torch.Generator) -> Tensor:
    """Orthogonal or unit-norm weights with phi = 1 on a zero-padded map of side `size`; [out, in / groups, k, k]."""
    kernel, stride = conv.kernel_size[0], conv.stride[0]
    out_channels, group_in = conv.weight.shape[:2]
    fractions = tap_fractions(kernel, stride, size)
    if conv.groups == 1:
        matrix = orthogonal(out_channels, group_in * kernel**2, generator).view(conv.weight.shape)
        phi = (matrix.double().square() * fractions).sum() / out_channels
        return matrix / phi.sqrt().to(matrix.dtype)
    assert conv.groups == out_channels == conv.in_channels, "grouped convolutions of these spaces are depthwise"
    filters = _depthwise_filters(out_channels, kernel, fractions, construction, generator)
    norms = (filters.square() * fractions).sum(dim=(1, 2), keepdim=True).sqrt()
    return (filters / norms).to(conv.weight.dtype)[:, None]


def _depthwise_filters(
    channels: int, kernel: int, fractions: Tensor, construction: Construction, generator: torch.Generator
) -> Tensor:
    """[channels, k, k] before normalisation."""
    centre = kernel // 2
    noise = torch.randn(channels, kernel, kernel, generator=generator, dtype=torch.float64)
    if construction == "independent":
        return noise
    filters = torch.zeros_like(noise)
    if construction == "shift":
        reachable = torch.nonzero(fractions.flatten() >= 0.5).flatten()
        taps = reachable[torch.randint(len(reachable), (channels,), generator=generator)]
        filters.view(channels, -1)[torch.arange(channels), taps] = 1.0
        return filters
    filters[:, centre, centre] = 1.0
    if construction == "blend":
        noise[:, centre, centre] = 0.0
        noise /= (noise.square() * fractions).sum(dim=(1, 2), keepdim=True).sqrt().clamp_min(1e-12)
        filters = math.sqrt(1 - BLEND_NOISE**2) * filters + BLEND_NOISE * noise
    return filters


def _align(units: list[ConvUnit], residual: bool, generator: torch.Generator) -> None:
    """Replaces the last 1x1 of an expand, depthwise, project path by one aligned with the expansion."""
    pointwise = [unit.conv for unit in units if unit.conv.kernel_size == (1, 1)]
    if len(pointwise) != 2 or units[0].conv is not pointwise[0]:
        return
    expand, project = (conv.weight[:, :, 0, 0] for conv in pointwise)
    middle, in_channels = expand.shape
    out_channels = project.shape[0]
    back = expand.T * (in_channels / middle)
    if residual:
        directions = orthogonal(in_channels, max(1, round(in_channels * REFLECTED_FRACTION)), generator)
        directions = directions / torch.linalg.matrix_norm(directions, 2)
        aligned = -2.0 * directions @ (directions.T @ back)
    else:
        aligned = orthogonal(out_channels, in_channels, generator) @ back
    pointwise[1].weight.copy_(aligned[:, :, None, None])


def _calibrate(path: nn.Module, units: list[ConvUnit], size: int, residual: bool, generator: torch.Generator) -> None:
    """Scales the last convolution so that the measured phi of the path, or of identity plus path, is 1.

    phi goes with the square of the scale, so one measurement is enough, unless the path ends in an activation that
    saturates. Where the output is smaller than the input, more probes keep the precision.
    """
    shape = (units[0].conv.in_channels, size, size)
    last = units[-1].conv.weight
    homogeneous = isinstance(units[-1].activation, nn.Identity | nn.ReLU)
    shrinks = math.prod(unit.conv.stride[0] for unit in units) ** 2 * shape[0] / len(last)
    for elements in CALIBRATION_ELEMENTS[-1:] if homogeneous else CALIBRATION_ELEMENTS:
        phi, trace = moments(path, shape, generator, round(elements * max(1.0, shrinks)))
        if residual:
            last.mul_(-2.0 * trace / phi)
        else:
            last.div_(math.sqrt(phi))
