"""Gradients of single samples and Jacobians of single scalars, against one sample at a time, in float64."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev
from torch.nn import functional as F

from subshot.proxies import Proxy, Setting, measure, sample_pass
from subshot.proxies.base import Batch, ProxyUndefined
from subshot.proxies.class_pass import ScalarJacobian, chosen_scalars
from subshot.proxies.conditions import batch_norm_mode
from subshot.proxies.gradsign import angle, gradalign1, gradalign2, gradsign
from subshot.proxies.sample_layers import CHUNK, Chunk, _parts, sample_gradients
from subshot.proxies.sample_pass import Of, Scope, in_scope, run_samples
from subshot.supernet.nasbench_macro import nasbench_macro
from subshot.supernet.network import ChainSupernet

COUNT = 4


@dataclass(frozen=True)
class Everything:
    """All gradients, [N, entries], and theta, which tells the entries apart: they come in any order."""

    of: ClassVar[Of]
    scope: Scope = "all"
    batch: int = 0
    needs_labels: ClassVar[bool] = True
    cost: ClassVar[str] = "-"

    @property
    def runner(self) -> Any:
        return run_samples

    def accumulator(self, count: int, targets: Tensor) -> "Kept":
        return Kept()


@dataclass(frozen=True)
class OfLoss(Everything):
    of: ClassVar[Of] = "loss"


@dataclass(frozen=True)
class OfOutputs(Everything):
    of: ClassVar[Of] = "outputs"


class Kept:
    def __init__(self) -> None:
        self.chunks: list[Chunk] = []

    def add(self, chunk: Chunk) -> None:
        self.chunks.append(chunk)

    def value(self) -> tuple[Tensor, Tensor]:
        theta = torch.cat([chunk.theta for chunk in self.chunks])
        return torch.cat([chunk.gradients for chunk in self.chunks], dim=1), theta


def read(model: nn.Module, batch: Batch, reading: Everything, mode: Any) -> tuple[Tensor, Tensor]:
    caught: list[tuple[Tensor, Tensor]] = []

    def formula(value: tuple[Tensor, Tensor]) -> float:
        caught.append(value)
        return 0.0

    found = measure(model, [Proxy("all", (reading,), formula, True, "-", Setting(batch_norm=mode))], [batch])
    if isinstance(found["all"], ProxyUndefined):
        raise found["all"]
    return caught[0]


def one_by_one(model: nn.Module, batch: Batch, mode: Any, of: Of, scope: Scope) -> tuple[Tensor, Tensor]:
    named = [(n, p) for n, p in model.named_parameters() if in_scope(scope, n, p)]
    rows = []
    with batch_norm_mode(model, mode):
        for x, y in zip(batch[0], batch[1], strict=True):
            outputs = model(x[None])
            total = F.cross_entropy(outputs, y[None]) if of == "loss" else outputs.sum()
            found = torch.autograd.grad(total, [p for _, p in named], allow_unused=True)
            rows.append(
                torch.cat(
                    [
                        (torch.zeros_like(p) if g is None else g).flatten()
                        for g, (_, p) in zip(found, named, strict=True)
                    ]
                )
            )
    return torch.stack(rows), torch.cat([p.detach().flatten() for _, p in named])


class Functional(nn.Module):
    """A weight that is used by its module and without it, or without it alone."""

    def __init__(self, called: bool) -> None:
        super().__init__()
        self.called, self.first, self.fc = called, nn.Linear(9, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.first(x.flatten(1)))
        return F.linear(torch.tanh(self.fc(x)) if self.called else x, self.fc.weight)


class Constant(nn.Module):
    """A layer whose input is no sample's, and one that leads nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.prototype, self.dead = nn.Linear(9, 4), nn.Linear(3, 4), nn.Linear(9, 2)

    def forward(self, x: Tensor) -> Tensor:
        self.dead(x.flatten(1))
        return self.fc(x.flatten(1)) * self.prototype(x.new_ones(len(x), 3)).tanh()


class Frozen(nn.Module):
    """Stops where its weight does not train; supernets take another way there, to save memory."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(1, 2, 2, bias=False), norm, nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        assert self.conv.weight.requires_grad
        return self.fc(self.norm(self.conv(x).flatten(1)))


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(1, 1, 3, padding=1), nn.BatchNorm2d(1)
        self.fc = nn.Linear(9, 9)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.bn(self.conv(torch.tanh(self.bn(self.conv(x))))))
        return self.fc(torch.tanh(self.fc(x.flatten(1))))


class Sizes(nn.Module):
    """A convolution that is called with maps of two sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 1, 2, padding=1), nn.Linear(25, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.tanh(self.conv(torch.tanh(self.conv(x)))).flatten(1))


def convolution(**options: Any) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(
        nn.Conv2d(4, 6, **options), nn.BatchNorm2d(6), nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(24, 5),
    )  # fmt: skip


class Doubled(nn.Conv2d):
    """A convolution that uses its weight once, but not as it is."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(x, 2 * self.weight, self.bias)


def tied() -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 9), nn.Tanh(), nn.Linear(9, 9))
    model[3].weight = model[1].weight
    return model


class Tokens(nn.Sequential):
    """[N, 1, 3, 3] to tokens [N, 3, 3], on which linear layers act."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(1, 2), nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2, bias=False), nn.Flatten())


IMAGES = {
    "stride": convolution(kernel_size=3, stride=2, padding=1),
    "padding": convolution(kernel_size=(3, 2), padding=(2, 1), bias=False),
    "dilation": convolution(kernel_size=3, dilation=2, padding=1),
    "groups": convolution(kernel_size=3, groups=2, stride=(1, 2)),
    "pointwise": convolution(kernel_size=1, stride=2),
    "no remainder": convolution(kernel_size=2, stride=3),
}
SMALL: dict[str, Callable[[], nn.Module]] = {
    "depthwise": lambda: nn.Sequential(nn.Conv2d(1, 4, 2), nn.Conv2d(4, 8, 2, groups=4), nn.Flatten()),
    "tokens": Tokens,
    "module twice": Twice,
    "module of two sizes": Sizes,
    "constant": Constant,
    "frozen": lambda: Frozen(nn.Tanh()),
}
BY_TRANSFORMS: dict[str, Callable[[], nn.Module]] = {
    "layer norm": lambda: nn.Sequential(nn.Flatten(), nn.Linear(9, 6), nn.LayerNorm(6), nn.Linear(6, 4)),
    "frozen and layer norm": lambda: Frozen(nn.LayerNorm(8)),
    "tied weights": tied,
    "functional weight": lambda: Functional(called=False),
    "module and functional weight": lambda: Functional(called=True),
    "convolution of another kind": lambda: nn.Sequential(Doubled(1, 2, 2), nn.Flatten()),
    "circular padding": lambda: nn.Sequential(nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular"), nn.Flatten()),
}
NETWORKS = {**IMAGES, **SMALL, **BY_TRANSFORMS}


def built(name: str) -> tuple[nn.Module, Batch]:
    torch.manual_seed(21)
    model = NETWORKS[name]().double()
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.1)  # no two entries are equal
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    shape = (4, 7, 6) if name in IMAGES else (1, 3, 3)
    return model, (torch.randn(COUNT, *shape, dtype=torch.float64), torch.tensor([0, 1, 0, 1]))


def ordered(gradients: Tensor, theta: Tensor) -> Tensor:
    """Columns by their theta, without those that are zero: a layer that leads nowhere may be left out."""
    assert len(theta.unique()) == len(theta)
    some = gradients[:, theta.argsort()]
    return some[:, some.abs().sum(dim=0) > 0]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("mode", ["eval", "single"])
@pytest.mark.parametrize("reading", [OfLoss(), OfOutputs(), OfLoss("weights"), OfLoss("named_weight")], ids=repr)
def test_every_sample_s_gradient(name: str, mode: str, reading: Everything) -> None:
    model, batch = built(name)
    found = ordered(*read(model, batch, reading, mode))
    want = ordered(*one_by_one(model, batch, mode, reading.of, reading.scope))
    torch.testing.assert_close(found, want, rtol=1e-9, atol=1e-12)


def test_transforms_may_take_parameters_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here one tensor at a time; the others are no frozen ones, for a network that minds."""
    model, batch = built("frozen and layer norm")
    found, theta = read(model, batch, OfLoss(), "single")
    monkeypatch.setattr(sample_pass, "MAX_HELD", 1)
    again, values = read(model, batch, OfLoss(), "single")
    torch.testing.assert_close(ordered(again, values), ordered(found, theta))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("mode", ["eval", "single"])
@pytest.mark.parametrize("per_tensor", [1, 3])
def test_every_scalar_s_jacobian(name: str, mode: Any, per_tensor: int) -> None:
    model, (images, labels) = built(name)
    reading = ScalarJacobian(5, per_tensor)
    caught: list[Any] = []
    proxy = Proxy("j", (reading,), lambda v: float(caught.append(v) is None), True, "-", Setting(batch_norm=mode))
    assert proxy(model, [(images, labels)]) == 1.0
    jacobian, outputs = caught[0]
    chosen = chosen_scalars(model, reading)
    values = dict(model.named_parameters())
    with batch_norm_mode(model, mode):
        for number, image in enumerate(images):
            want = jacrev(lambda some, x=image: functional_call(model, {**values, **some}, (x[None],))[0])(
                {n: values[n] for n in chosen}
            )
            columns = [want[n].flatten(1)[:, place] for n, places in chosen.items() for place in places]
            torch.testing.assert_close(jacobian[number], torch.stack(columns, dim=1), rtol=1e-9, atol=1e-12)
            torch.testing.assert_close(outputs[number], model(image[None])[0])


def test_which_way_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.func is for the networks that need it; a chain, which takes another way if frozen, is not one of them."""
    ways: list[str] = []
    kept = sample_pass._read_by_transforms
    monkeypatch.setattr(sample_pass, "_read_by_transforms", lambda *a: (ways.append("transforms"), kept(*a)))
    for name in NETWORKS:
        model, batch = built(name)
        for mode in ("eval", "single"):
            ways.clear()
            read(model, batch, OfLoss(), mode)
            assert bool(ways) == (name in BY_TRANSFORMS), name
    ways.clear()
    torch.manual_seed(1)
    supernet = ChainSupernet(nasbench_macro(input_size=16, width=0.25))
    images = torch.randn(3, 3, 16, 16)
    for mode in ("eval", "single"):
        read(supernet.path((1, 2, 1, 0, 2, 0, 1, 1)), (images, torch.tensor([0, 1, 0])), OfLoss(), mode)
    assert not ways


def test_chunks_are_bounded() -> None:
    """No layer's gradients of all samples are held at once, however many there are."""
    assert [part.stop - part.start for part in _parts(10, CHUNK // 3)] == [3, 3, 3, 1]
    assert [part.stop - part.start for part in _parts(3, 2 * CHUNK)] == [1, 1, 1]
    count = 64
    layers = (
        (nn.Conv2d(32, 96, 3, padding=1, bias=False), (count, 32, 8, 8), (count, 96, 8, 8)),
        (nn.Linear(512, 128, bias=False), (count, 512), (count, 128)),
    )
    for module, before, after in layers:
        assert count * module.weight.numel() > CHUNK
        chunks = [
            chunk.gradients.numel()
            for chunk in sample_gradients(module, "weight", [(torch.ones(before), torch.ones(after))], alone=False)
        ]
        assert sum(chunks) == count * module.weight.numel()
        assert max(chunks) <= CHUNK


def test_sign_scores_by_their_formulas() -> None:
    model, batch = built("stride")
    gradients, _ = one_by_one(model, batch, "single", "loss", "weights")
    signs, classes = gradients.sign(), [[0, 2], [1, 3]]
    assert gradsign()(model, [batch]) == float(signs.sum(dim=0).abs().sum())
    unit = gradients / gradients.norm(dim=1, keepdim=True)
    assert angle(gradients @ gradients.T) == pytest.approx(float(unit.mean(dim=0).norm()))
    first = [sum(float(signs[i] @ signs[j]) for i in some for j in some) / len(some) ** 2 for some in classes]
    assert gradalign1("single")(model, [batch]) == pytest.approx(sum(first) / 2)
    second = [float(torch.linalg.det(signs[some] @ signs[some].T).log()) for some in classes]
    assert gradalign2("single")(model, [batch]) == pytest.approx(sum(second) / 2)


def test_samples_that_meet_have_no_gradients() -> None:
    model, batch = built("stride")
    with pytest.raises(ProxyUndefined, match="no sample has a gradient of its own"):
        read(model, batch, OfLoss(), "train")


def test_an_input_that_is_overwritten_is_noticed() -> None:
    class Overwriting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(9, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = x.flatten(1) * 1.0
            out: Tensor = self.fc(x)
            x.zero_()
            return out

    _, batch = built("tokens")
    with pytest.raises(ProxyUndefined, match="the input of a layer is overwritten in place"):
        read(Overwriting().double(), batch, OfLoss(), "eval")
