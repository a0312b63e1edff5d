"""What people's own networks do that ours do not: every proxy answers as if it had been written plainly."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune
from torch.nn.utils.parametrize import register_parametrization

from subshot.proxies import PROXIES, ProxyUndefined, Setting, measure
from subshot.proxies.base import Batch

ALL = list(PROXIES.values())
SAMPLES = ("gradsign", "gradalign1", "gradalign2", "grad_angle")


class Call(nn.Module):
    """A function as a layer."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def batches(count: int = 4) -> list[Batch]:
    generator = torch.Generator().manual_seed(5)
    return [(torch.randn(8, 3, 8, 8, generator=generator), torch.arange(8) % 2) for _ in range(count)]


def network(*layers: nn.Module, seed: int = 0) -> nn.Module:
    """The layers behind a convolution, before a classifier; equal seeds draw equal weights for equal layers."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), *layers, nn.LazyLinear(2))
    with torch.no_grad():
        model.eval()(batches(1)[0][0])
    torch.manual_seed(seed)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.train()


def outcomes(model: nn.Module, given: list[Batch] | None = None) -> dict[str, Any]:
    found = measure(model, ALL, batches() if given is None else given)
    return {name: str(score) if isinstance(score, ProxyUndefined) else score for name, score in found.items()}


def test_views_of_feature_maps() -> None:
    viewed = outcomes(network(nn.MaxPool2d(2), Call(lambda x: x.view(len(x), -1))))
    flattened = outcomes(network(nn.MaxPool2d(2), nn.Flatten()))
    assert {name: str(score) for name, score in viewed.items() if isinstance(score, str)} == {
        name: score for name, score in flattened.items() if isinstance(score, str)
    }
    for name, score in flattened.items():
        if not isinstance(score, str):
            assert viewed[name] == pytest.approx(score, rel=5e-3), name


def test_a_network_that_normalises_its_inputs_in_place_changes_no_batch() -> None:
    given = batches()
    model = nn.Sequential(Call(lambda x: x.sub_(1.0).div_(2.0)), network(nn.Flatten()))
    first = PROXIES["snip"](model, given)
    assert torch.equal(given[0][0], batches()[0][0]) and PROXIES["snip"](model, given) == first


@pytest.mark.parametrize("change", ["pruned", "parametrized", "hooked", "patched", "constant"])
def test_samples_of_layers_that_are_used_in_another_way(change: str) -> None:
    """As one sample after the other has it."""
    model = network(nn.Flatten(), nn.Linear(144, 6), nn.Tanh())
    layer: Any = model[4]
    if change == "pruned":
        prune.random_unstructured(layer, "weight", amount=0.5)
    if change == "parametrized":
        register_parametrization(layer, "weight", nn.Tanh())
    if change == "hooked":
        layer.register_forward_hook(lambda module, args, output: 3 * output)
    if change == "patched":
        layer.forward = lambda x: F.linear(x, layer.weight * layer.weight, layer.bias)
    if change == "constant":
        model.insert(3, AddsConstant())
    model.double()
    (images, labels), *_ = batches(1)
    images = images.double()
    proxy = replace(PROXIES["grad_angle"], setting=Setting(batch_norm="eval"))
    angle = proxy(model, [(images, labels)])
    weights = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    total = 0.0
    for place in range(len(images)):
        found = torch.autograd.grad(
            F.cross_entropy(model.eval()(images[place : place + 1]), labels[place : place + 1]), weights
        )
        row = torch.cat([gradient.flatten() for gradient in found])
        total = total + row / row.norm()
    assert angle == pytest.approx(float((total / len(images)).norm()), rel=1e-9)


class AddsConstant(nn.Module):
    """What a convolution makes of a buffer, the same for all samples."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 4, 3, padding=1)
        self.register_buffer("grid", torch.randn(1, 1, 6, 6))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layer(self.grid)


class Frozen(nn.Module):
    """A backbone under no_grad."""

    def __init__(self) -> None:
        super().__init__()
        model = network(nn.Flatten())
        self.body, self.head = model[:3], model[3:]

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = self.body(x)
        return self.head(x)


def test_a_frozen_backbone() -> None:
    found = measure(Frozen(), [PROXIES[name] for name in (*SAMPLES, "grasp", "snip")], batches())
    assert not {name: score for name, score in found.items() if isinstance(score, ProxyUndefined)}


def test_what_is_bypassed_changes_nothing_in_place() -> None:
    model, other = (network(nn.ReLU6(inplace=inplace), nn.Flatten()) for inplace in (True, False))
    assert PROXIES["synflow"](model, batches()) == PROXIES["synflow"](other, batches())


def test_a_forward_that_was_put_upon_a_batch_norm_stays() -> None:
    model = network(nn.Flatten())
    norm: Any = model[1]
    norm.forward = own = lambda x: nn.BatchNorm2d.forward(norm, x)
    found = outcomes(model)
    assert vars(norm)["forward"] is own
    assert "has a forward of its own" in found["gradsign"] and isinstance(found["grasp"], float)


def test_an_activation_in_place_is_a_block() -> None:
    def chain(inplace: bool) -> nn.Module:
        torch.manual_seed(3)
        blocks = nn.ModuleList([nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(inplace=inplace), nn.Conv2d(3, 3, 3, padding=1)])
        model = nn.Module()
        model.blocks = blocks
        model.forward = lambda x: blocks[2](blocks[1](blocks[0](x))).flatten(1)
        return model

    names = ("az_expressivity", "az_progressivity", "az_trainability")
    in_place, plain = (measure(chain(inplace), [PROXIES[n] for n in names], batches()) for inplace in (True, False))
    assert in_place == plain


def test_parametrized_weights_count_in_fisher() -> None:
    model = network(nn.Flatten())
    same = PROXIES["fisher"](model, batches())
    register_parametrization(model[0], "weight", nn.Identity())
    assert PROXIES["fisher"](model, batches()) == same


def test_strides_that_differ_have_no_trainability() -> None:
    torch.manual_seed(1)
    model = nn.Module()
    model.blocks = nn.ModuleList([nn.Conv2d(3, 3, 3, padding=1, stride=(1, 2))])
    model.forward = lambda x: model.blocks[0](x).flatten(1)
    with pytest.raises(ProxyUndefined, match="no stride alike both ways"):
        PROXIES["az_trainability"](model, batches())


def test_values_that_are_not_finite_are_no_scores() -> None:
    model = network(Call(lambda x: x / 0.0), nn.Flatten())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = outcomes(model)
    assert all(isinstance(found[name], str) for name in ("vkdnw", "ntk_condition", "ntk_condition_eval", "snip"))


def test_half_precision_counts_signs_exactly() -> None:
    model = network(nn.Flatten())
    scores = [
        PROXIES["gradalign1"](model.to(dtype), [(images.to(dtype), labels) for images, labels in batches()])
        for dtype in (torch.float32, torch.bfloat16)
    ]
    assert scores[1] == pytest.approx(scores[0], rel=0.05)
