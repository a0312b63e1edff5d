"""Modules of operations and networks against compositions written out by hand."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from subshot.supernet import SPACES
from subshot.supernet.chain import Layer, Op
from subshot.supernet.cost import Conv
from subshot.supernet.mobilenetv2 import mbconv
from subshot.supernet.nasbench_macro import nasbench_macro
from subshot.supernet.network import TANH_GAIN, Block, ChainSupernet, LayerBranch, ScaledTanh, build_network


def normalised(x, bn):
    shape = (1, -1, 1, 1)
    scale = bn.weight / torch.sqrt(bn.running_var + bn.eps)
    return (x - bn.running_mean.view(shape)) * scale.view(shape) + bn.bias.view(shape)


def shaken(module):
    generator = torch.Generator().manual_seed(3)
    for child in module.modules():
        if isinstance(child, nn.BatchNorm2d):
            child.weight.data.copy_(0.5 + torch.rand(child.weight.shape, generator=generator))
            child.bias.data.copy_(torch.randn(child.bias.shape, generator=generator))
            child.running_mean.copy_(torch.randn(child.bias.shape, generator=generator))
            child.running_var.copy_(0.5 + torch.rand(child.bias.shape, generator=generator))
    return module.eval()


@pytest.mark.parametrize("stride, out_channels", [(1, 6), (2, 6), (1, 10)])
def test_inverted_residual_by_hand(stride, out_channels) -> None:
    block = shaken(Block(mbconv(6, out_channels, 5, 3, stride), "relu6"))
    expand, depthwise, project = block.main
    x = torch.randn(2, 6, 9, 9)
    y = normalised(F.conv2d(x, expand.conv.weight), expand.bn).clamp(0, 6)
    y = normalised(F.conv2d(y, depthwise.conv.weight, stride=stride, padding=2, groups=18), depthwise.bn).clamp(0, 6)
    y = normalised(F.conv2d(y, project.conv.weight), project.bn)
    torch.testing.assert_close(block(x), x + y if (stride, out_channels) == (1, 6) else y, rtol=1e-4, atol=1e-5)
    assert block.last_bns() == (project.bn,)


def test_identity_is_the_input_or_its_batchnorm() -> None:
    x = torch.randn(2, 4, 5, 5)
    plain = Block(Op("identity", ()), "relu")
    assert plain(x) is x and plain.last_bns() == () and plain.convs() == []
    own = shaken(Block(Op("identity", ()), "relu", 4))
    torch.testing.assert_close(own(x), normalised(x, own.identity_bn))
    assert own.last_bns() == (own.identity_bn,)


@pytest.mark.parametrize("size", [6, 7])
def test_layer_branch_has_the_layers_shape(size) -> None:
    for in_channels, out_channels, stride in ((4, 4, 1), (4, 6, 1), (4, 4, 2), (4, 6, 2)):
        op = Op("conv", (Conv(in_channels, out_channels, 3, stride),))
        layer = Layer("layer", (op,), in_channels, out_channels, stride, size)
        branch, x = LayerBranch(layer), torch.randn(2, in_channels, size, size)
        assert branch(x).shape == Block(op, "relu")(x).shape
        assert not any(p.requires_grad for p in branch.shortcut.parameters())
    identity = LayerBranch(Layer("layer", (), 4, 4, 1, size))
    shaken(identity)
    x = torch.randn(2, 4, size, size)
    torch.testing.assert_close(identity(x), normalised(x, identity.bn))


def test_scaled_tanh() -> None:
    x = torch.linspace(-3, 3, 61, dtype=torch.float64, requires_grad=True)
    y = ScaledTanh()(x)
    assert y.tolist() == pytest.approx([math.tanh(TANH_GAIN * v) / TANH_GAIN for v in x.tolist()])
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert slope[30] == pytest.approx(1.0)
    # The docstring's mean squared slope at a unit Gaussian: 0.93, against 0.46 of a plain tanh.
    z = torch.linspace(-8, 8, 20001, dtype=torch.float64)
    weights = torch.exp(-z.square() / 2)
    for gain, expected in ((TANH_GAIN, 0.93), (1.0, 0.464)):
        squares = (1 - torch.tanh(gain * z).square()).square()
        assert float((squares * weights).sum() / weights.sum()) == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize("name", SPACES)
def test_a_network_is_its_blocks_in_order(name) -> None:
    space = SPACES[name](16, 5, 0.25, 1)
    network = shaken(build_network(space.decode((0,) * len(space.layers)), dropout=0.5))
    x = images = torch.randn(2, 3, 16, 16)
    for block in (*network.stem, *network.layers, network.head):
        x = block(x)
    logits = x.flatten(2).mean(dim=2) @ network.classifier.weight.T
    if network.classifier.bias is not None:
        logits = logits + network.classifier.bias
    torch.testing.assert_close(network(images), logits)
    assert len(network.branches) == 0


def test_dropout_acts_in_training_mode_only() -> None:
    space = SPACES["nasbench-macro"](8, 5, 0.125, 2)
    network = build_network(space.decode((1,) * 8), dropout=0.5)
    images = torch.randn(4, 3, 8, 8)
    assert torch.equal(network.eval()(images), network(images))
    network.train()
    assert not torch.equal(network(images), network(images))
    network.dropout = 0.0
    assert torch.equal(network(images), network(images))


def test_branches_where_they_are_asked_for() -> None:
    space = SPACES["nasbench-macro"](8, 5, 0.125, 0)
    keep = [layer.keeps_shape for layer in space.layers]
    found = {
        branch: [ChainSupernet(space, branch=branch).branch(i) is not None for i in range(8)]
        for branch in ("none", "identity", "projected")
    }
    assert found == {"none": [False] * 8, "identity": keep, "projected": [True] * 8}


def test_activation_overrides_the_spaces() -> None:
    space = SPACES["nasbench-macro"](8, 5, 0.125, 0)
    kinds = {type(unit.activation) for unit in ChainSupernet(space, activation="tanh").block(0, 1).main}
    assert kinds == {nn.Tanh, nn.Identity}


def test_frozen_convolutions_have_the_same_gradients_and_keep_no_inputs() -> None:
    """BatchNorm-only training: gradients equal those of torch's own convolutions, and fewer tensors are saved."""
    space = nasbench_macro(16, 4, 0.25)
    network = build_network(space.decode((1, 2, 0, 1, 2, 2, 1, 1))).double()
    images = torch.randn(6, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def gradients_and_saved(trains_weights: bool) -> tuple[list[torch.Tensor], int]:
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.requires_grad_(trains_weights)
        saved: dict[int, int] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            saved[tensor.data_ptr()] = tensor.numel()
            return tensor

        scales = [module.weight for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = network(images).square().sum()
        return list(torch.autograd.grad(loss, scales)), sum(saved.values())

    plain, saved_by_all = gradients_and_saved(True)
    frozen, saved_by_frozen = gradients_and_saved(False)
    for one, other in zip(plain, frozen, strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-9)
    assert saved_by_frozen < 0.8 * saved_by_all
