"""GraSP's walk through values and slopes is the same as torch's own second derivative, taken the long way."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrize import register_parametrization

from subshot.proxies import PROXIES
from subshot.proxies.base import Batch
from subshot.proxies.slope_layers import with_slopes


def pointwise(channels: int) -> nn.Module:
    return nn.Conv2d(channels, channels, 1)


class Shared(nn.Module):
    """A convolution and a BatchNorm that are called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.layer(x)).flatten(1)


class Doubled(nn.Conv2d):
    """A convolution of another kind."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.weight, self.bias)


class Normalised(nn.BatchNorm2d):
    """BatchNorm and what follows, in one module."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(super().forward(x))


class Backbone(nn.Module):
    """Layers that are kept from training."""

    def __init__(self) -> None:
        super().__init__()
        self.kept, self.trained = nn.Conv2d(3, 3, 3), nn.Sequential(nn.Conv2d(3, 3, 3), nn.Tanh(), pointwise(3))

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = self.kept(x)
        return self.trained(x)


BODIES = {
    "plain": nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Softplus(), pointwise(4), nn.BatchNorm2d(4)),
    "groups, stride, dilation": nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=2, dilation=2, groups=3), nn.BatchNorm2d(6), nn.Sigmoid(), pointwise(6)
    ),
    "BatchNorm without scales": nn.Sequential(pointwise(3), nn.BatchNorm2d(3, affine=False, eps=0.1), pointwise(3)),
    "BatchNorm of the inputs": nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 2, (3, 1), stride=(1, 2))),
    "padding by a word": nn.Sequential(nn.Conv2d(3, 3, 3, padding="same"), nn.BatchNorm2d(3), nn.Tanh(), pointwise(3)),
    "shared": Shared(),
    "another kind of convolution": nn.Sequential(Doubled(3, 3, 3), nn.Tanh(), pointwise(3)),
    "BatchNorm of another kind": nn.Sequential(nn.Conv2d(3, 3, 3), Normalised(3), pointwise(3)),
    "BatchNorm1d": nn.Sequential(nn.Flatten(), nn.Linear(108, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 4)),
    "LayerNorm": nn.Sequential(nn.Conv2d(3, 3, 3), nn.LayerNorm(4), nn.Tanh(), pointwise(3)),
    "InstanceNorm": nn.Sequential(nn.Conv2d(3, 3, 3), nn.InstanceNorm2d(3), nn.Tanh(), pointwise(3)),
    "GroupNorm": nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Tanh(), pointwise(4)),
    "kept from training": Backbone(),
    "another kind of weight": nn.Sequential(
        register_parametrization(nn.Conv2d(3, 3, 3), "weight", nn.Tanh()), nn.Tanh(), pointwise(3)
    ),
}


@pytest.mark.parametrize("body", BODIES)
def test_it_is_torch_s_second_derivative(body: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(BODIES[body], nn.Flatten(), nn.LazyLinear(3)).double()
    batch = torch.randn(5, 3, 6, 6, dtype=torch.float64), torch.randint(3, (5,))
    model(batch[0])
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    assert PROXIES["grasp"](model, [batch]) == pytest.approx(the_long_way(model, batch), rel=1e-9)


def the_long_way(model: nn.Module, batch: Batch) -> float:
    """-g . (H w) by two backward passes, from here on without running statistics."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.track_running_stats = False
    weights = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    gradients = torch.autograd.grad(
        F.cross_entropy(model(batch[0]), batch[1]), weights, create_graph=True, allow_unused=True
    )
    slope = sum((g * w.detach()).sum() for g, w in zip(gradients, weights, strict=True) if g is not None)
    products = torch.autograd.grad(slope, weights, allow_unused=True)
    return -sum(
        (g * p).sum().item() for g, p in zip(gradients, products, strict=True) if g is not None and p is not None
    )


def test_layers_are_as_before_afterwards() -> None:
    model = BODIES["plain"]
    with pytest.raises(ZeroDivisionError), with_slopes(model):
        assert all("forward" in vars(layer) for layer in (model[0], model[3]))
        raise ZeroDivisionError
    assert not any("forward" in vars(module) for module in model.modules())
