import copy
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from subshot.proxies import Proxy, ProxyUndefined, Setting, measure
from subshot.proxies.base import floats, preserved, weights_of
from subshot.proxies.batch_pass import LossGradients, LossValue
from subshot.proxies.conditions import batch_norm_mode, prepared, set_weights
from subshot.proxies.structure import StructureReading


def small_model() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))


def disturb(model: nn.Sequential) -> None:
    """Everything that a careless measurement does to a model."""
    model.double()
    with torch.no_grad():
        model[0].weight.mul_(2.0)
    model[0].bias = None
    model[0].requires_grad_(False)
    model[1](torch.ones(2, 4, 2, 2, dtype=torch.float64))
    model[1].running_var = torch.zeros(4)
    model[4].weight = nn.Parameter(torch.zeros(2, 16))
    model[4].bias.grad = torch.ones(2, dtype=torch.float64)
    model[2].register_forward_hook(lambda module, args, output: None, always_call=True)
    model[0]._forward_pre_hooks.clear()
    model.eval()
    random.random()
    np.random.default_rng()
    torch.rand(1)


@pytest.mark.parametrize("fails", [False, True])
def test_preserved_takes_everything_back(fails: bool) -> None:
    model = small_model()
    hook = model[0].register_forward_pre_hook(lambda module, args: None)
    model[4].bias.grad = torch.full((2,), 5.0)
    model[1].eval()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    parameters, grad, generator = list(model.parameters()), model[4].bias.grad, torch.get_rng_state()

    try:
        with preserved(model):
            assert model[4].bias.grad is None
            disturb(model)
            if fails:
                raise ProxyUndefined("half way")
    except ProxyUndefined:
        assert fails

    assert all(ours is theirs for ours, theirs in zip(model.parameters(), parameters, strict=True))
    assert all(p.requires_grad and p.dtype == torch.float32 for p in parameters)
    assert list(model.state_dict()) == list(state)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert model[4].bias.grad is grad and grad.tolist() == [5.0, 5.0]
    assert model.training and not model[1].training and model[2].training
    assert not model[2]._forward_hooks and not model[2]._forward_hooks_always_called
    assert list(model[0]._forward_pre_hooks) == [hook.id]
    assert torch.equal(torch.get_rng_state(), generator)


def test_preserved_keeps_tied_weights_tied() -> None:
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    model[1].weight = model[0].weight
    before = model[0].weight.clone()
    with preserved(model), torch.no_grad():
        model[0].weight.zero_()
    assert model[0].weight is model[1].weight
    assert torch.equal(model[0].weight, before)


def images(count: int = 5) -> torch.Tensor:
    return torch.randn(count, 3, 4, 4, generator=torch.Generator().manual_seed(9))


LABELS = torch.tensor([0, 1, 0, 1, 1])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_no_proxy_gives_what_is_not_finite(value: float) -> None:
    proxy = Proxy("broken", (StructureReading(),), lambda size: value, True, "-")
    with pytest.raises(ProxyUndefined, match="broken is"):
        proxy(nn.Identity(), [(images(), LABELS)])


def test_dropout_draws_from_the_seed() -> None:
    proxy = Proxy("loss", (LossValue(),), float, False, "-")
    model = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(48, 2))
    scores = [proxy(model, [(images(), LABELS)], seed=seed) for seed in (1, 1, 2)]
    assert scores[0] == scores[1] != scores[2]


def test_loss_gradients_are_those_of_backward() -> None:
    model = small_model()
    model[0].weight.requires_grad_(False)
    caught = []
    proxy = Proxy("g", (LossGradients(),), lambda found: float(caught.append(found) is None), True, "-")
    assert proxy(model, [(images(), LABELS)]) == 1.0
    assert model[4].weight.grad is None
    model.requires_grad_(True)
    F.cross_entropy(model(images()), LABELS).backward()
    assert list(caught[0]) == [name for name, _ in model.named_parameters()]
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(caught[0][name], parameter.grad)


def test_weights_have_two_dimensions() -> None:
    assert [name for name, _ in weights_of(small_model())] == ["0.weight", "4.weight"]
    with pytest.raises(ProxyUndefined, match="no weight of two or more dimensions"):
        weights_of(nn.BatchNorm2d(3))


def test_floats_of_nested_inputs() -> None:
    one, two, whole = torch.ones(2), torch.zeros(3), torch.ones(2, dtype=torch.long)
    assert [id(x) for x in floats((one, [whole, (two,)]))] == [id(one), id(two)]


def test_one_undefined_proxy_does_not_stop_the_others() -> None:
    def fail(size: object) -> float:
        raise ProxyUndefined("no such score")

    proxies = [Proxy(n, (StructureReading(),), f, True, "-") for n, f in (("a", fail), ("b", lambda size: 2.0))]
    scores = measure(nn.Linear(2, 2), proxies, [(images(), LABELS)])
    assert str(scores["a"]) == "no such score" and scores["b"] == 2.0


@pytest.mark.parametrize(
    ("weights", "scale"),
    [("gaussian", 1.0), ("kaiming_fan_in", (2 / 27) ** 0.5), ("kaiming_fan_out", (2 / 576) ** 0.5)],
)
def test_weights_are_drawn_as_the_setting_says(weights: str, scale: float) -> None:
    model = nn.Sequential(nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64))
    nn.init.constant_(model[1].weight, 3.0)
    set_weights(model, weights, seed=0)
    assert float(model[0].weight.detach().std()) == pytest.approx(scale, rel=0.05)
    assert not model[0].bias.any() and not model[1].bias.any() and bool((model[1].weight == 1).all())
    double = nn.Sequential(nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64)).double()
    set_weights(double, weights, seed=0)
    torch.testing.assert_close(double[0].weight, model[0].weight.double(), rtol=1e-6, atol=0)
    set_weights(double, weights, seed=1)
    assert float((double[0].weight - model[0].weight).detach().abs().max()) > scale


def test_absolute_weights() -> None:
    model = small_model()
    before = [parameter.detach().double().abs() for parameter in model.parameters()]
    set_weights(model, "absolute", seed=0)
    assert all(torch.equal(now, then) for now, then in zip(model.parameters(), before, strict=True))


def test_a_draw_covers_every_weight_or_none() -> None:
    with pytest.raises(ProxyUndefined, match="in_proj_weight is neither's"):
        set_weights(nn.MultiheadAttention(4, 2), "gaussian", seed=0)


def test_batch_norm_modes() -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4)
    nn.init.uniform_(norm.weight)
    nn.init.uniform_(norm.bias)
    norm.running_mean.normal_()
    x = torch.randn(3, 4, 5, 5)
    statistics = {name: value.clone() for name, value in norm.state_dict().items()}
    evaluated = copy.deepcopy(norm).eval()(x)
    trained = copy.deepcopy(norm)(x)
    alone = torch.cat([copy.deepcopy(norm)(one[None]) for one in x])
    for mode, want in (("train", trained), ("eval", evaluated), ("single", alone), ("bypassed", x)):
        with batch_norm_mode(norm, mode):
            torch.testing.assert_close(norm(x), want)
        assert "forward" not in vars(norm) and norm.track_running_stats
    assert all(torch.equal(value, statistics[name]) for name, value in norm.state_dict().items())


def test_no_eval_mode_without_running_statistics() -> None:
    model = nn.BatchNorm2d(4, track_running_stats=False)
    with (
        pytest.raises(ProxyUndefined, match="keeps no running statistics"),
        prepared(model, Setting("given", "eval"), 0),
    ):
        pass
    assert not model.track_running_stats and model.training


@pytest.mark.parametrize("field", ["weights", "batch_norm", "inputs"])
def test_a_setting_that_does_not_exist_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match=f"Setting: {field} cannot be 'foo'; allowed: "):
        Setting(**{field: "foo"})
