"""The SPOS table against what was published."""

import pytest
import torch

from subshot.supernet.network import Block
from subshot.supernet.shufflenetv2 import shuffle_block, shufflenetv2, xception_block
from subshot.supernet.space import cardinality

SPOS = (2, 1, 0, 1, 2, 0, 2, 0, 2, 0, 2, 3, 0, 0, 0, 0, 3, 2, 3, 3)


def test_published_architecture() -> None:
    space = shufflenetv2()
    assert cardinality(space) == 4**20
    cost = space.cost(SPOS)
    assert cost.macs == 322_918_720
    assert cost.params == pytest.approx(3.5e6, rel=0.02)


@pytest.mark.parametrize("choice, millions", [(0, 295.8), (2, 340.4), (3, 358.8)])
def test_uniform_architectures(choice, millions) -> None:
    assert shufflenetv2().cost((choice,) * 20).macs / 1e6 == pytest.approx(millions, abs=0.05)


def test_half_the_channels_pass_a_kept_layer_untouched() -> None:
    for op in (shuffle_block(8, 8, 5, 1), xception_block(8, 8, 1)):
        x = torch.randn(2, 8, 6, 6)
        out = Block(op, "relu").eval()(x)
        assert out.shape == x.shape
        assert torch.equal(out[:, :4], x[:, ::2])


def test_the_other_half_is_a_function_of_the_odd_channels() -> None:
    block = Block(shuffle_block(8, 8, 3, 1), "relu").eval()
    x, other = torch.randn(2, 8, 6, 6), torch.randn(2, 8, 6, 6)
    other[:, 1::2] = x[:, 1::2]
    assert torch.equal(block(x)[:, 4:], block(other)[:, 4:])


@pytest.mark.parametrize("reduced", range(6))
def test_every_reduction_builds_and_keeps_the_channels(reduced) -> None:
    space, full = shufflenetv2(64, 10, 0.5, reduced), shufflenetv2(64, 10, 0.5, 0)
    assert [layer.out_channels for layer in space.layers] == [layer.out_channels for layer in full.layers]
    assert [len(layer.ops) for layer in space.layers] == [4] * 20
    for layer in (space.layers[i] for i in (0, 4, 8, 16)):
        for op in layer.ops:
            out = Block(op, "relu").eval()(torch.zeros(1, layer.in_channels, 9, 9))
            assert out.shape == (1, layer.out_channels, -(-9 // layer.stride), -(-9 // layer.stride))
