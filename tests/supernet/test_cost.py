"""Costs of convolutions, counted one multiplication at a time."""

import itertools

import pytest
import torch
from torch import nn

from subshot.supernet.cost import Conv, Cost, activation_mib, bnnas_macs, chain_cost, linear_cost, strided


def counted(conv: Conv, size: int) -> Cost:
    """Loops over outputs and taps; a tap that reads the padding counts, as in every published table."""
    half, out = conv.kernel // 2, 0
    side = len(range(-half, size + half - conv.kernel + 1, conv.stride))
    per_group = conv.in_channels // conv.groups
    macs = 0
    for _ in itertools.product(range(conv.out_channels), range(side), range(side)):
        out += 1
        macs += sum(1 for _ in itertools.product(range(per_group), range(conv.kernel), range(conv.kernel)))
    weights = conv.out_channels * per_group * conv.kernel**2
    return Cost(macs, weights + 2 * conv.out_channels, out)


@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [1, 6, 7])
def test_convolutions_by_counting(kernel, stride, size) -> None:
    for conv in (Conv(4, 6, kernel, stride), Conv(4, 4, kernel, stride, groups=4)):
        assert chain_cost([conv], size) == counted(conv, size)
        module = nn.Conv2d(conv.in_channels, conv.out_channels, kernel, stride, kernel // 2, groups=conv.groups)
        assert module(torch.zeros(1, 4, size, size)).shape[-1] == strided(size, stride)
        assert module.weight.numel() == conv.weights
    two = (Conv(4, 6, kernel, stride), Conv(6, 2))
    assert chain_cost(two, size) == counted(two[0], size) + counted(two[1], strided(size, stride))


def test_classifier_and_conventions() -> None:
    assert linear_cost(5, 3, True) == Cost(15, 18, 3)
    assert linear_cost(5, 3, False) == Cost(15, 15, 3)
    assert bnnas_macs(15 + 100, 5, 3) == 100 + 3 * (2 * 5 - 1)
    assert activation_mib(2**20) == 4.0
    assert chain_cost((), 9) == Cost()
