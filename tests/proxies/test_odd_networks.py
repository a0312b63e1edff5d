"""Networks out of the ordinary: each proxy has a finite value or a reason why not, and values that must agree do."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from subshot.proxies import PROXIES, ProxyUndefined, measure
from subshot.proxies.base import Batch

ALL = list(PROXIES.values())
COUNT = 8


class Net(nn.Module):
    """Blocks of convolution, BatchNorm and ReLU, and a classifier. relu: makes what stands for the ReLUs."""

    def __init__(self, relu: Callable[[], Any] = nn.ReLU) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(6, 6, 3, padding=1, groups=groups, bias=False), nn.BatchNorm2d(6))
            for groups in (1, 6, 2)
        )
        self.relus = [relu() for _ in self.blocks]
        for number, one in enumerate(self.relus):
            if isinstance(one, nn.Module):
                self.add_module(f"relu{number}", one)
        self.fc = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block, relu in zip(self.blocks, self.relus, strict=True):
            x = relu(block(x))
        out: Tensor = self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return out


class Twice(nn.Module):
    """One convolution that is called twice, and one whose weight is another's."""

    def __init__(self, tied: bool) -> None:
        super().__init__()
        self.stem, self.conv, self.other = (nn.Conv2d(c, 5, 3, padding=1, bias=False) for c in (3, 5, 5))
        self.bn, self.relu, self.fc = nn.BatchNorm2d(5), nn.ReLU(), nn.Linear(5, 4)
        self.tied = tied
        if tied:
            self.other.weight = self.conv.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.relu(self.bn(self.stem(x))))
        x = self.relu(self.other(x) if self.tied else self.conv(x))
        out: Tensor = self.fc(x.mean(dim=(2, 3)))
        return out


class WithUnused(nn.Module):
    def __init__(self, used: nn.Module) -> None:
        super().__init__()
        self.used = used
        self.conv, self.bn, self.free = nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.used(x)
        return out


class FunctionalWeight(nn.Module):
    """The classifier's weight is used a second time without its module."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.relu = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn(self.conv(x))).mean(dim=(2, 3))
        out: Tensor = F.linear(torch.tanh(self.fc(x)), self.fc.weight)
        return out


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(11)
    return make()


class Overwriting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.fc = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(144, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(self.bn(F.relu_(self.conv(x))).flatten(1))
        return out


class Constant(nn.Module):
    """Does not look at its input."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(x.new_ones(len(x), 3))
        return out


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "plain": Net,
    "in-place module": lambda: Net(lambda: nn.ReLU(inplace=True)),
    "in-place function": lambda: Net(lambda: F.relu_),
    "function": lambda: Net(lambda: F.relu),
    "module twice": lambda: Twice(tied=False),
    "tied weights": lambda: Twice(tied=True),
    "unused parameters": lambda: WithUnused(Net()),
    "functional weight": FunctionalWeight,
    "layer norm": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.LayerNorm((4, 6, 6)), nn.Flatten(), nn.Linear(144, 4)),
    "no normalisation": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4)),
    "no statistics": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4, track_running_stats=False), nn.ReLU(), nn.Flatten(),
        nn.Linear(144, 4),
    ),
    "no scales": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4, affine=False), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4)
    ),
    "one pixel": lambda: nn.Sequential(nn.Conv2d(3, 4, 8), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4, 4)),
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 4)),
    "no parameter": lambda: nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.ReLU()),
    "constant": Constant,
    "in-place after a layer": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 4)
    ),
    "in-place function after a layer": Overwriting,
}  # fmt: skip


@pytest.fixture
def batches() -> list[Batch]:
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(4, COUNT, 3, 8, 8, generator=generator)
    return [(x, torch.arange(COUNT) % 3) for x in images]


def outcomes(model: nn.Module, batches: list[Batch]) -> dict[str, Any]:
    """Values, all finite, and reasons."""
    found = measure(model, ALL, batches)
    assert list(found) == list(PROXIES)
    for name, score in found.items():
        assert str(score) if isinstance(score, ProxyUndefined) else math.isfinite(score), name
    return {name: str(s) if isinstance(s, ProxyUndefined) else s for name, s in found.items()}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_value_or_a_reason(name: str, batches: list[Batch]) -> None:
    found = outcomes(seeded(NETWORKS[name]), batches)
    if name == "plain":
        assert not {key for key, score in found.items() if isinstance(score, str)}


@pytest.mark.parametrize("count", [1, 4, COUNT], ids=["one sample", "one sample a class", "one class"])
def test_labels_that_say_little(count: int, batches: list[Batch]) -> None:
    labels = torch.zeros(COUNT, dtype=torch.long) if count == COUNT else torch.arange(count)
    found = outcomes(seeded(Net), [(images[:count], labels) for images, _ in batches])
    undefined = {name: score for name, score in found.items() if isinstance(score, str)}
    if count == 4:
        assert set(undefined) == {"epe_nas", "gradalign1", "gradalign2"}
        assert all("no class of the batch has two samples" in reason for reason in undefined.values())
    if count == COUNT:
        assert not undefined


def test_equal_samples(batches: list[Batch]) -> None:
    """Kernels over samples are singular; GradAlign-II's has a jitter."""
    found = outcomes(seeded(Net), [(images[:1].expand(6, -1, -1, -1), labels[:6]) for images, labels in batches])
    undefined = {name for name, score in found.items() if isinstance(score, str)}
    assert undefined == {"naswot", "ntk_condition", "ntk_condition_eval"}


def differing(one: dict[str, float | str], other: dict[str, float | str]) -> set[str]:
    """Names of the scores that are not equal; of GraSP, laid out otherwise, more than rounding apart."""
    apart = {name for name in one if one[name] != other[name]}
    same = one["grasp"] == pytest.approx(other["grasp"], rel=1e-6)
    return apart - {"grasp"} if same else apart


def test_in_place_activations_change_no_score(batches: list[Batch]) -> None:
    """Modules; and functions, but for what a hook sees of the last feature map."""
    assert not differing(outcomes(seeded(NETWORKS["in-place module"]), batches), outcomes(seeded(Net), batches))
    in_place, function = (outcomes(seeded(NETWORKS[name]), batches) for name in ("in-place function", "function"))
    assert differing(function, in_place) <= {"zen", "zen_zennas", "meco"}
    assert {name for name, score in function.items() if isinstance(score, str)} == {"naswot", "linear_regions", "swap"}


def test_a_layer_s_output_that_is_overwritten(batches: list[Batch]) -> None:
    """A copy is kept where an in-place module may do it; a function is noticed."""
    model = seeded(NETWORKS["in-place after a layer"])
    other = copy.deepcopy(model)
    other[1] = nn.ReLU()
    assert outcomes(model, batches) == outcomes(other, batches)
    found = outcomes(seeded(Overwriting), batches)
    assert (
        found["fisher"]
        == found["fisher_channel_sum"]
        == ("what layer conv puts out is overwritten in place by a function")
    )
    assert found["gradsign"] == PROXIES["gradsign"](seeded(Overwriting), batches)


COUNTED = {"params", "num_layers", "l2_norm", "bn_indicator"}
"""What the parameters alone say, used or not."""


def test_unused_parameters_change_nothing_else(batches: list[Batch]) -> None:
    """But VKDNW reads the first 128 tensors, used or not."""
    model = seeded(NETWORKS["unused parameters"])
    found, plain = outcomes(model, batches), outcomes(model.used, batches)
    differing = {name for name in found if found[name] != plain[name]}
    vkdnw = {name for name in PROXIES if name.startswith("vkdnw")}
    assert COUNTED <= differing <= COUNTED | vkdnw | {"meco"}


def test_train_mode_needs_two_values_a_channel(batches: list[Batch]) -> None:
    model = seeded(NETWORKS["one pixel"])
    with pytest.raises(ProxyUndefined, match="BatchNorm in train mode has one value a channel"):
        PROXIES["snip"](model, [(images[:1], labels[:1]) for images, labels in batches])
    with pytest.raises(ProxyUndefined, match="BatchNorm in train mode has one value a channel"):
        PROXIES["synflow_bn"](model, batches)
    with pytest.raises(ProxyUndefined, match="BatchNorm over a single sample has one value a channel"):
        PROXIES["gradsign"](model, batches)


def test_meco_needs_a_network_of_any_size(batches: list[Batch]) -> None:
    with pytest.raises(ProxyUndefined, match="takes no image of 64 x 64 pixels"):
        PROXIES["meco"](seeded(NETWORKS["no normalisation"]), batches)
