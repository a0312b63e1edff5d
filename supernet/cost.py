"""Exact costs of a chain of convolutions, from its description alone: nothing is built, nothing is run.

Conventions, stated because published numbers differ in them:

- `macs`: multiply-accumulates of convolutions and of the classifier; BatchNorm, activations, pooling and additions
  count 0. FLOPs are 2 x MACs.
- `params`: weights of convolutions and classifier, BatchNorm scales and shifts, classifier bias.
- `activation_elements`: the elements that convolutions and the classifier put out for one image, the measure of
  Radosavovic et al. (2020, "Designing Network Design Spaces", section 3.4). As float32 it is the memory that
  training keeps for each image at least; see `activation_mib`.

All three are sums over the operations of a chain, so each is an `Additive` of the genotype.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Conv:
    """A convolution without bias, its BatchNorm, and an activation where `activation` says so. Padding is kernel //
    2."""

    in_channels: int
    out_channels: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    activation: bool = True

    @property
    def weights(self) -> int:
        return self.out_channels * self.in_channels // self.groups * self.kernel**2


@dataclass(frozen=True)
class Cost:
    """What one image costs: multiply-accumulates, parameters, elements put out by convolutions and classifier."""

    macs: int = 0
    params: int = 0
    activation_elements: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.macs + other.macs,
            self.params + other.params,
            self.activation_elements + other.activation_elements,
        )


COSTS = ("macs", "params", "activation_elements")


def activation_mib(activation_elements: float) -> float:
    """float32 mebibytes of that many activations."""
    return activation_elements * 4 / 2**20


def strided(size: int, stride: int) -> int:
    """The side of the feature map after a convolution with padding kernel // 2, for odd kernels: ceil(size /
    stride)."""
    return -(-size // stride)


def chain_cost(convs: Iterable[Conv], size: int) -> Cost:
    """The cost of convolutions one after the other on a square map of side `size` (pixels)."""
    total = Cost()
    for conv in convs:
        size = strided(size, conv.stride)
        total += Cost(
            macs=size * size * conv.weights,
            params=conv.weights + 2 * conv.out_channels,
            activation_elements=size * size * conv.out_channels,
        )
    return total


def linear_cost(in_features: int, out_features: int, bias: bool) -> Cost:
    weights = in_features * out_features
    return Cost(macs=weights, params=weights + out_features * bias, activation_elements=out_features)


def bnnas_macs(true_macs: float, in_features: int, out_features: int) -> float:
    """MACs in the convention of BNNAS's released tables, which count the classifier as 2 * in - 1 an output.

    Source: bychen515/BNNAS @6570c92, thop/count_hooks.py. Their 473.549 M are 471.821 M true MACs.
    """
    return true_macs + (in_features - 1) * out_features
