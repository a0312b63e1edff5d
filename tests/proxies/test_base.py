import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from subshot.proxies.base import Probe, Proxy, ProxyUndefined, preserved, weight_gradients


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


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_no_proxy_gives_what_is_not_finite(value: float) -> None:
    proxy = Proxy("broken", lambda model, probe: value, True, 0, False, "here")
    with pytest.raises(ProxyUndefined, match="broken is"):
        proxy(nn.Identity(), Probe(()))


def test_dropout_draws_from_the_probe_s_seed() -> None:
    proxy = Proxy("sum", lambda model, probe: float(model.train()(probe.batches[0][0]).sum()), True, 1, False, "here")
    batch = (torch.ones(4, 50), torch.zeros(4))
    scores = [proxy(nn.Dropout(), Probe((batch,), seed=seed)) for seed in (1, 1, 2)]
    assert scores[0] == scores[1] != scores[2]


def test_weight_gradients_are_those_of_backward() -> None:
    model = small_model()
    batch = torch.randn(5, 3, 4, 4), torch.tensor([0, 1, 0, 1, 1])
    model[0].weight.requires_grad_(False)
    conv, linear = weight_gradients(model, batch, F.cross_entropy)
    assert model[4].weight.grad is None
    F.cross_entropy(model(batch[0]), batch[1]).backward()
    assert conv is not None and linear is not None
    torch.testing.assert_close(conv, model[0].weight.grad)
    torch.testing.assert_close(linear, model[4].weight.grad)


def test_weight_gradients_need_a_weight() -> None:
    with pytest.raises(ProxyUndefined, match="no convolution and no linear layer"):
        weight_gradients(nn.Flatten(), (torch.ones(2, 3), torch.zeros(2, dtype=torch.long)), F.cross_entropy)
