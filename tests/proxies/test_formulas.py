"""Each formula once more by another way, and where it has no value. The reference values are in test_golden.py."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from subshot.proxies import PROXIES, ProxyUndefined, az_nas
from subshot.proxies.base import Batch
from subshot.proxies.zico import zico_over


def batches_of(*images: Tensor, labels: Sequence[int] = (0, 1, 0, 1)) -> list[Batch]:
    return [(batch, torch.tensor(labels)) for batch in images]


@pytest.fixture
def images() -> Tensor:
    return torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(5))


def network(*, relu: nn.Module | None = None) -> nn.Sequential:
    torch.manual_seed(6)
    return nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), relu or nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 2)
    )


@pytest.mark.parametrize("relu", [nn.ReLU(), nn.ReLU(inplace=True), nn.ReLU6()], ids=str)
def test_naswot_counts_units_on_the_same_side(relu: nn.Module, images: Tensor) -> None:
    model = network(relu=relu)
    sides = (model[:2](images) > 0).flatten(1).tolist()
    agreements = [[sum(a == b for a, b in zip(one, two, strict=True)) for two in sides] for one in sides]
    want = math.log(np.linalg.det(np.array(agreements, dtype=float)))
    assert PROXIES["naswot"](model, batches_of(images)) == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize(
    ("model", "reason"),
    [(network(), "singular"), (network(relu=nn.Tanh()), "no ReLU")],
    ids=["equal images", "no ReLU"],
)
def test_naswot_may_be_undefined(model: nn.Module, reason: str, images: Tensor) -> None:
    images[1] = images[0]
    with pytest.raises(ProxyUndefined, match=reason):
        PROXIES["naswot"](model, batches_of(images))


@pytest.mark.parametrize("relu", [nn.ReLU(), nn.ReLU6(), nn.Tanh()], ids=str)
def test_synflow_sums_over_paths(relu: nn.Module) -> None:
    """Without biases every layer's weights sum to the output R = 1' |W2| |W1| 1; no activation saturates."""
    model = nn.Sequential(nn.Linear(3, 4, bias=False), relu, nn.Linear(4, 2, bias=False))
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.linspace(-7.0, 9.0, weight.numel()).view_as(weight))
    first, last = (weight.detach().double().abs() for weight in model.parameters())
    total = float((last @ first).sum())
    batches = [(torch.zeros(1, 3), torch.zeros(1))]
    assert PROXIES["synflow"](model, batches) == pytest.approx(2 * total)
    assert PROXIES["log_synflow"](model, batches) == pytest.approx(math.log(2 * total))
    by_weight = float((first * last.sum(dim=0)[:, None].log1p()).sum() + (last * first.sum(dim=1).log1p()).sum())
    assert PROXIES["synflow_freerea"](model, batches) == pytest.approx(by_weight)


@pytest.mark.parametrize("name", ["synflow", "log_synflow", "synflow_freerea"])
@pytest.mark.parametrize("weight", [0.0, 1e200])
def test_synflow_is_undefined_without_a_path_and_beyond_float64(name: str, weight: float) -> None:
    model = nn.Sequential(*(nn.Linear(3, 3, bias=False, dtype=torch.float64) for _ in range(3)))
    for parameter in model.parameters():
        nn.init.constant_(parameter, weight)
    with pytest.raises(ProxyUndefined, match="sum over paths is"):
        PROXIES[name](model, [(torch.zeros(1, 3), torch.zeros(1))])


def test_jacob_cov_of_equal_gradients(images: Tensor) -> None:
    """A linear network without BatchNorm has one input gradient: R is all ones, eigenvalues N and N - 1 zeros."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(108, 2)).double()
    small = 1e-5
    expected = -(math.log(4 + small) + 1 / (4 + small)) - 3 * (math.log(small) + 1 / small)
    assert PROXIES["jacob_cov"](model, batches_of(images.double())) == pytest.approx(expected, rel=1e-6)


def test_jacob_cov_is_undefined_for_a_constant_gradient(images: Tensor) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(108, 2))
    nn.init.zeros_(model[1].weight)
    with pytest.raises(ProxyUndefined, match="constant"):
        PROXIES["jacob_cov"](model, batches_of(images))


def test_zico_by_numpy_in_loops(images: Tensor) -> None:
    model, batches = network().double(), (images.double(), images.double().flip(0) + 1, images.double() ** 2)
    gradients = []
    for batch in batches:
        model.zero_grad()
        nn.functional.cross_entropy(model(batch), torch.tensor([0, 1, 0, 1])).backward()
        gradients.append([model[number].weight.grad.numpy().ravel().copy() for number in (0, 5)])
    expected = 0.0
    for layer in zip(*gradients, strict=True):
        ratios = [np.abs(values).mean() / np.std(values) for values in zip(*layer, strict=True) if np.std(values) > 0]
        expected += math.log(sum(ratios))
    assert zico_over(3)(model, batches_of(*batches)) == pytest.approx(expected, rel=1e-9)


class WithUnusedLayer(nn.Module):
    def __init__(self, used: nn.Module) -> None:
        super().__init__()
        self.used, self.unused = used, nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.used(x)
        return out


@pytest.mark.parametrize("name", ["zico", "grad_norm", "synflow"])
def test_a_layer_that_nothing_depends_on_adds_nothing(name: str, images: Tensor) -> None:
    batches = batches_of(images, images + 1)
    assert PROXIES[name](WithUnusedLayer(network()), batches) == PROXIES[name](network(), batches)


def test_zico_is_undefined_for_equal_batches(images: Tensor) -> None:
    with pytest.raises(ProxyUndefined, match="no gradient varies"):
        PROXIES["zico"](network(), batches_of(images, images))


def test_zen_draws_its_own_weights_and_images(images: Tensor) -> None:
    model, batches = network(), batches_of(images)
    score = PROXIES["zen"](model, batches)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    assert PROXIES["zen"](model, batches_of(images * 2)) == score
    assert PROXIES["zen"](model, batches, seed=1) != score


def test_zen_leaves_out_a_constant_branch(images: Tensor) -> None:
    """Also where rounding gives it a variance."""

    class Branched(nn.Module):
        def __init__(self, constant: float | None) -> None:
            super().__init__()
            self.layer, self.norm, self.constant = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), constant
            self.side = nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.layer(x)
            side = 0.0 if self.constant is None else self.side(torch.full_like(y, self.constant))
            return self.norm(y) + side

    scores = [PROXIES["zen"](Branched(constant), batches_of(images)) for constant in (None, 0.0, 0.3, 1e4 / 3)]
    assert scores[1:] == pytest.approx(scores[:1] * 3, rel=1e-5)


def test_zen_needs_a_batch_norm(images: Tensor) -> None:
    with pytest.raises(ProxyUndefined, match="no BatchNorm"):
        PROXIES["zen"](nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(32, 2)), batches_of(images))


def test_entropy_of_white_and_of_equal_channels() -> None:
    white = torch.eye(4).sub(0.25).T.reshape(4, 4, 1, 1)
    assert az_nas.entropies([white]) == pytest.approx([math.log(3)], abs=1e-6)
    equal = torch.randn(6, 1, 3, 3).expand(6, 4, 3, 3)
    assert az_nas.entropies([equal]) == pytest.approx([0.0], abs=1e-6)
    assert az_nas.progressivity_of([1.0, 3.0, 2.5]) == -0.5


@pytest.mark.parametrize("stride", [1, 2])
def test_trainability_in_loops(stride: int) -> None:
    generator = torch.Generator().manual_seed(8)
    conv = nn.Conv2d(2, 3, stride, stride).double()
    before = torch.randn(2, 2, 4, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    after = conv(before)
    signs = torch.randint(2, after.shape, generator=generator).double() * 2 - 1
    (g_in,) = torch.autograd.grad(after, before, signs, retain_graph=True)
    size, mean = 4 // stride, np.zeros((2 * stride * stride, 3))
    for n in range(2):
        for h in range(size):
            for w in range(size):
                window = g_in[n, :, h * stride : (h + 1) * stride, w * stride : (w + 1) * stride].reshape(-1).numpy()
                mean += np.outer(window, signs[n, :, h, w].numpy()) / (2 * size * size)
    scale = np.linalg.svd(mean)[1][0]
    expected = 2 - scale - 1 / (scale + 1e-6)
    assert az_nas.trainability_of([before, after], [signs]) == pytest.approx(expected, rel=1e-9)


def test_what_an_identity_is_to_trainability(images: Tensor) -> None:
    """Skipped, or a reason to have no score."""

    class Chain(nn.Module):
        def __init__(self, *blocks: nn.Module) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(blocks)

        def forward(self, x: Tensor) -> Tensor:
            for block in self.blocks:
                x = block(x)
            return x.flatten(1)

    class AddsZeros(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.zeros_like(x)

    def block() -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3))

    skipping, strict = PROXIES["az_trainability"], PROXIES["az_trainability_nasbench201"]
    without, within = Chain(block(), block()), Chain(block(), nn.Identity(), block())
    score = skipping(without, batches_of(images))
    assert strict(without, batches_of(images)) == score == skipping(within, batches_of(images))
    for identity in (within, Chain(block(), AddsZeros())):
        with pytest.raises(ProxyUndefined, match="a block is the identity"):
            strict(identity, batches_of(images))


def test_az_nas_needs_blocks(images: Tensor) -> None:
    with pytest.raises(ProxyUndefined, match="no ModuleList of blocks"):
        PROXIES["az_expressivity"](network(), batches_of(images))
