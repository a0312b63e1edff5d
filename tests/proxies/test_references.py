"""Proxies against slow references that share nothing with them: loops, masks, double backward; tiny, in float64."""

import math
import random
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from subshot.proxies import PROXIES, Setting, linear_regions, ntk, swap, vkdnw
from subshot.proxies.base import Batch
from subshot.supernet.base import Bound
from subshot.supernet.mobilenetv2 import mobilenetv2
from subshot.supernet.nasbench201 import NasBench201Space, from_string
from subshot.supernet.nasbench201_supernet import NasBench201Supernet
from subshot.supernet.network import ChainSupernet

LABELS = torch.tensor([0, 1, 1, 0, 2])


class Net(nn.Module):
    """Two convolutions with BatchNorm and ReLU, the second depthwise, a classifier; masks multiply layers' outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.relu = nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU()
        self.depthwise, self.bn2, self.relu2 = nn.Conv2d(6, 6, 2, groups=6), nn.BatchNorm2d(6), nn.ReLU()
        self.fc = nn.Linear(6, 3)

    def forward(self, x: Tensor, masks: list[Tensor] | None = None) -> Tensor:
        m1, m2, m3 = masks or [torch.ones(()).double()] * 3
        x = self.relu(self.bn(self.conv(x) * m1))
        x = self.relu2(self.bn2(self.depthwise(x) * m2))
        out: Tensor = self.fc(x.mean(dim=(2, 3))) * m3
        return out


@pytest.fixture
def model() -> Net:
    torch.manual_seed(31)
    found = Net().double()
    for norm in (found.bn, found.bn2):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.bias, -0.3, 0.3)
    return found


@pytest.fixture
def images() -> Tensor:
    return torch.randn(5, 2, 5, 5, generator=torch.Generator().manual_seed(32)).double()


@pytest.fixture
def batches(images: Tensor) -> list[Batch]:
    return [(images, LABELS), (images.flip(0).square(), LABELS)]


def loss_of(model: Net, images: Tensor) -> Tensor:
    return F.cross_entropy(model(images), LABELS)


def weights_and_gradients(model: Net, images: Tensor, create_graph: bool = False) -> list[tuple[Tensor, Tensor]]:
    weights = [p for p in model.parameters() if p.ndim >= 2]
    return list(
        zip(weights, torch.autograd.grad(loss_of(model, images), weights, create_graph=create_graph), strict=True)
    )


def test_saliencies_entry_by_entry(model: Net, images: Tensor, batches: list[Batch]) -> None:
    pairs = weights_and_gradients(model, images)
    entries = [[(w, g) for w, g in zip(*(t.flatten().tolist() for t in pair), strict=True)] for pair in pairs]
    want = {
        "grad_norm": sum(math.sqrt(sum(g * g for _, g in layer)) for layer in entries),
        "snip": sum(abs(w * g) for layer in entries for w, g in layer),
        "plain": sum(w * g for layer in entries for w, g in layer),
        "l2_norm": sum(math.sqrt(sum(w * w for w, _ in layer)) for layer in entries),
    }
    for name, value in want.items():
        assert PROXIES[name](model, batches) == pytest.approx(value, rel=1e-10), name


def test_grasp_by_double_backward(model: Net, images: Tensor, batches: list[Batch]) -> None:
    pairs = weights_and_gradients(model, images, create_graph=True)
    flat = sum((gradient * gradient.detach()).sum() for _, gradient in pairs)  # its gradient is H g
    products = torch.autograd.grad(flat, [weight for weight, _ in pairs])
    want = sum(float((-weight * product).detach().sum()) for (weight, _), product in zip(pairs, products, strict=True))
    assert PROXIES["grasp"](model, batches) == pytest.approx(want, rel=1e-9)


def test_fisher_by_masks(model: Net, images: Tensor, batches: list[Batch]) -> None:
    """A mask of ones a sample and channel on each layer's output: its gradient is the sum that is squared."""
    masks = [torch.ones(5, 6, 1, 1).double(), torch.ones(5, 6, 1, 1).double(), torch.ones(5, 3).double()]
    for mask in masks:
        mask.requires_grad_(True)
    found = torch.autograd.grad(F.cross_entropy(model(images, masks), LABELS), masks)
    channels = [gradient.flatten(1).square().mean(dim=0).sum().item() / 2 for gradient in found]
    weights_a_channel = (2 * 3 * 3, 1 * 2 * 2, 6)
    assert PROXIES["fisher_channel_sum"](model, batches) == pytest.approx(sum(channels), rel=1e-10)
    want = sum(channel * count for channel, count in zip(channels, weights_a_channel, strict=True))
    assert PROXIES["fisher"](model, batches) == pytest.approx(want, rel=1e-10)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_ntk_in_loops(mode: str, model: Net, batches: list[Batch]) -> None:
    rows = []
    for images, _ in batches:
        model.train(mode == "train")
        for output in model(images):
            model.zero_grad()
            output.sum().backward(retain_graph=True)
            rows.append(np.concatenate([p.grad.numpy().ravel() for n, p in model.named_parameters() if "weight" in n]))
    model.zero_grad()

    def condition(some: list[np.ndarray]) -> float:
        eigenvalues = np.linalg.eigvalsh([[a @ b for a in some] for b in some])
        return float(eigenvalues[-1] / eigenvalues[0])

    given = Setting(batch_norm=mode)  # type: ignore[arg-type]
    two = replace(ntk.ntk_over(2), setting=given)
    assert two(model, batches) == pytest.approx(condition(rows), rel=1e-6)
    one = replace(PROXIES["ntk_condition" if mode == "train" else "ntk_condition_eval"], setting=given)
    assert one(model, batches) == pytest.approx(condition(rows[:5]), rel=1e-6)


def test_vkdnw_s_matrix_is_the_fisher_information(model: Net, images: Tensor) -> None:
    """mean over samples and classes, by their probability, of the outer product of d log p / d theta."""
    model.eval()
    parameters = list(model.parameters())
    jacobian, matrix = [], np.zeros((len(parameters), len(parameters)))
    for image in images:
        logits = model(image[None])[0]
        jacobian.append(
            [[g.flatten()[0] for g in torch.autograd.grad(z, parameters, retain_graph=True)] for z in logits]
        )
        for probability, log in zip(logits.softmax(0).tolist(), logits.log_softmax(0), strict=True):
            slope = [g.flatten()[0].item() for g in torch.autograd.grad(log, parameters, retain_graph=True)]
            matrix += probability * np.outer(slope, slope) / len(images)
    found = vkdnw.fisher_matrix(torch.tensor(jacobian, dtype=torch.float64), model(images).detach(), "paper")
    np.testing.assert_allclose(found.numpy(), matrix, rtol=1e-9, atol=1e-14)
    eigenvalues = np.linalg.eigvalsh(matrix)
    parts = np.quantile(eigenvalues.clip(0), np.arange(1, 10) / 10)
    parts = parts / parts.sum()
    want = -sum(part * math.log(part) for part in parts if part > 0)
    proxy = replace(vkdnw.vkdnw("paper"), setting=Setting(batch_norm="eval"))
    assert proxy(model, [(images, LABELS)]) == pytest.approx(want, rel=1e-6)


def patterns_of(model: Net, images: Tensor) -> list[list[bool]]:
    """Of each sample, whether each ReLU is on."""
    model.train()
    first = model.bn(model.conv(images))
    second = model.bn2(model.depthwise(first.relu()))
    return [[*a.flatten().gt(0).tolist(), *b.flatten().gt(0).tolist()] for a, b in zip(first, second, strict=True)]


def test_counts_of_patterns_in_loops(model: Net, images: Tensor) -> None:
    images = torch.cat([images[:2], images[:1], images[2:], images[2:3]])
    batches, given = [(images, torch.zeros(7, dtype=torch.long))], Setting()
    rows = patterns_of(model, images)
    regions = sum(1 / sum(row == other for other in rows) for row in rows)
    assert replace(linear_regions.PROXY, setting=given)(model, batches) == pytest.approx(regions) == 5
    assert replace(swap.PROXY, setting=given)(model, batches) == len(set(zip(*rows, strict=True)))
    small = replace(linear_regions.linear_regions(crop=4), setting=Setting(batch_norm="eval"))
    assert 1 <= small(model, [(images, LABELS)]) <= 5


def test_swap_reads_sixteen_samples(model: Net) -> None:
    images = torch.randn(20, 2, 5, 5, generator=torch.Generator().manual_seed(1)).double()
    distinct = len(set(zip(*patterns_of(model, images[:16]), strict=True)))
    assert replace(swap.PROXY, setting=Setting())(model, [(images, LABELS)]) == distinct
    size = sum(parameter.numel() for parameter in model.parameters()) / 1000
    regularised = replace(swap.swap_regularised(0.05, 0.01), setting=Setting())
    want = distinct * math.exp(-((size - 0.05) ** 2) / 0.01)
    assert regularised(model, [(images, LABELS)]) == pytest.approx(want)


def test_meco_module_by_module(model: Net, images: Tensor) -> None:
    image = torch.randn((1, 2, 64, 64), generator=torch.Generator().manual_seed(0)).double()
    model.train()
    first = model.conv(image)
    steps = [first, model.bn(first)]
    steps.append(steps[-1].relu())
    steps.append(model.depthwise(steps[-1]))
    steps.append(model.bn2(steps[-1]))
    steps.append(steps[-1].relu())
    want = 0.0
    for step in steps:
        correlations = np.nan_to_num(np.corrcoef(step[0].detach().numpy().reshape(6, -1)))
        want += min(np.linalg.eigvals(correlations).real)
    assert PROXIES["meco"](model, [(images, LABELS)]) == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize("seed", [0, 3])
def test_zen_from_its_own_draws(seed: int, model: Net, images: Tensor) -> None:
    """The last map before pooling of a network whose weights are drawn, for a drawn image and a small change of it."""
    score = PROXIES["zen"](model, [(images, LABELS)], seed=seed)
    weights, inputs, noise = (torch.Generator().manual_seed(seed + more) for more in (0, 0, 1))
    for layer in (model.conv, model.depthwise, model.fc):
        layer.weight.data = torch.randn(layer.weight.shape, generator=weights).double()
        layer.bias.data.zero_()
    x = torch.randn(images.shape, generator=inputs).double()
    changed = x + 0.01 * torch.randn(images.shape, generator=noise).double()

    def normalised(x: Tensor) -> tuple[Tensor, float]:
        variance = x.var(dim=(0, 2, 3), correction=0, keepdim=True)
        return (x - x.mean(dim=(0, 2, 3), keepdim=True)) / (variance + 1e-5).sqrt(), variance.mean().item()

    def features(x: Tensor) -> tuple[Tensor, list[float]]:
        first, one = normalised(model.conv(x))
        second, two = normalised(model.depthwise(first.relu()))
        return second.relu(), [one, two]

    clean, variances = features(x)
    distances = (features(changed)[0] - clean).flatten(1).norm(dim=1)
    want = math.log(float(distances.detach().mean())) + sum(math.log(math.sqrt(variance)) for variance in variances)
    assert score == pytest.approx(want, rel=1e-9)


def test_input_gradient_scores_in_loops(model: Net, images: Tensor, batches: list[Batch]) -> None:
    x = images.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(model.train()(x).sum(), x)
    correlations = np.corrcoef(gradient.flatten(1).numpy())
    eigenvalues = np.linalg.eigvals(correlations).real + 1e-5
    want = -sum(math.log(value) + 1 / value for value in eigenvalues)
    assert PROXIES["jacob_cov"](model, batches) == pytest.approx(want, rel=1e-6)
    classes = [[0, 3], [1, 2]]
    sums = [sum(math.log(abs(correlations[i, j]) + 1e-5) for i in some for j in some) for some in classes]
    assert PROXIES["epe_nas"](model, batches) == pytest.approx(sum(abs(value) for value in sums), rel=1e-9)


def test_epe_nas_of_many_classes() -> None:
    """Over a hundred, differences between classes take the place of their sizes."""
    generator = torch.Generator().manual_seed(5)
    jacobian = torch.randn(202, 7, generator=generator).double()
    targets = torch.arange(101).repeat(2)
    sums = []
    for label in range(101):
        r = np.corrcoef(jacobian[targets == label].numpy())
        sums.append(float(np.log(np.abs(r) + 1e-5).sum()))
    want = sum(abs(a - b) for a, b in combinations(sums, 2)) / 101
    assert PROXIES["epe_nas"].formula(jacobian, targets) == pytest.approx(want)


@pytest.mark.parametrize("name", ["nasbench201", "mobilenetv2"])
def test_size_agrees_with_the_spaces_costs(name: str) -> None:
    if name == "nasbench201":
        space = NasBench201Space(input_size=16, channels=4, cells=1)
        supernet = NasBench201Supernet(space)
        genotypes = [
            from_string("|nor_conv_3x3~0|+|skip_connect~0|nor_conv_1x1~1|+|avg_pool_3x3~0|none~1|nor_conv_3x3~2|")
        ]
    else:
        space = mobilenetv2(input_size=32, width=0.25)
        supernet = ChainSupernet(space)
        rng = random.Random(0)
        genotypes = [tuple(rng.randrange(len(d.choices)) for d in space.decisions) for _ in range(2)]
    images = torch.zeros(2, 3, space.input_size, space.input_size)
    for genotype in genotypes:
        bound, cost = Bound(supernet, genotype), space.cost(genotype)
        assert PROXIES["params"](bound, [(images, LABELS[:2])]) == cost.params
        assert PROXIES["macs"](bound, [(images, LABELS[:2])]) == cost.macs
