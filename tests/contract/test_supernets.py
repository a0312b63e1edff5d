"""What every registered supernet promises: sharing, copying, and gradients along the path alone."""

import random

import pytest
import torch

from subshot.supernet import SPACES
from subshot.supernet.base import Bound, extract
from subshot.supernet.network import BRANCHES, ChainSupernet
from subshot.supernet.space import sample

every_space = pytest.mark.parametrize("name", SPACES)
CLASSES = 5


def build(name, branch="none", identity_bn=False, dtype=torch.float32):
    """A small supernet whose BatchNorms are not at their initial values, so that a wrong one would show."""
    torch.manual_seed(0)
    space = SPACES[name](16, CLASSES, 0.25, 1)
    supernet = ChainSupernet(space, branch=branch, identity_bn=identity_bn).to(dtype)
    generator = torch.Generator().manual_seed(1)
    for module in supernet.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for value in (module.weight.data, module.running_var):
                value.copy_(0.5 + torch.rand(value.shape, generator=generator))
            for value in (module.bias.data, module.running_mean):
                value.copy_(0.1 * torch.randn(value.shape, generator=generator))
    return supernet


def images(count=3, dtype=torch.float32):
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(2)).to(dtype)


@every_space
@pytest.mark.parametrize("branch", BRANCHES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_supernet_bound_and_extract_agree(name, branch, dtype) -> None:
    supernet = build(name, branch, identity_bn=branch == "identity", dtype=dtype).eval()
    rng, batch = random.Random(0), images(dtype=dtype)
    outputs = []
    with torch.no_grad():
        for _ in range(2):
            genotype = sample(supernet.space, rng)
            logits = supernet(batch, genotype)
            assert logits.shape == (3, CLASSES) and logits.dtype == dtype
            torch.testing.assert_close(Bound(supernet, genotype).eval()(batch), logits)
            torch.testing.assert_close(extract(supernet, genotype).eval()(batch), logits)
            outputs.append(logits)
    assert not torch.allclose(*outputs)


@every_space
def test_extract_is_independent(name) -> None:
    supernet = build(name, "projected").eval()
    genotype, batch = sample(supernet.space, random.Random(1)), images()
    before = {key: value.clone() for key, value in supernet.state_dict().items()}
    with torch.no_grad():
        logits = supernet(batch, genotype)
        subnet = extract(supernet, genotype)
        for value in (*subnet.parameters(), *subnet.buffers()):
            value.fill_(3.0)
        subnet.train()
        assert torch.equal(supernet(batch, genotype), logits)
    after = supernet.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert not supernet.training and not any(module.training for module in supernet.modules())


@every_space
@pytest.mark.parametrize("branch", BRANCHES)
def test_bound_holds_the_supernets_own_parameters_and_only_the_paths(name, branch) -> None:
    supernet = build(name, branch)
    space = supernet.space
    genotype = sample(space, random.Random(2))
    bound = Bound(supernet, genotype)
    own = {id(parameter) for parameter in supernet.parameters()}
    mine = list(bound.parameters())
    assert len({id(parameter) for parameter in mine}) == len(mine)
    assert all(id(parameter) in own for parameter in mine)
    branches = [supernet.branch(layer) for layer in range(len(genotype))]
    of_branches = sum(p.numel() for b in branches if b is not None for p in b.parameters())
    assert sum(parameter.numel() for parameter in mine) - of_branches == space.costs["params"](genotype)
    assert (of_branches > 0) == (branch != "none" and any(b is not None for b in branches))
    assert sum(p.numel() for p in extract(supernet, genotype).parameters()) == sum(p.numel() for p in mine)


@every_space
def test_gradients_reach_the_path_and_nothing_else(name) -> None:
    supernet = build(name, "identity").train()
    genotype = sample(supernet.space, random.Random(3))
    supernet(images(8), genotype).square().sum().backward()
    on_path = {id(parameter) for parameter in Bound(supernet, genotype).parameters()}
    for key, parameter in supernet.named_parameters():
        assert (parameter.grad is not None) == (id(parameter) in on_path and parameter.requires_grad), key


@every_space
def test_gradients_by_differences(name, check_gradients) -> None:
    """In float64: the derivative of the loss along a random direction of all the path's weights."""
    supernet = build(name, dtype=torch.float64).eval()
    genotype, batch = sample(supernet.space, random.Random(4)), images(dtype=torch.float64)
    parameters = list(Bound(supernet, genotype).parameters())
    gradients = torch.autograd.grad(supernet(batch, genotype).square().sum(), parameters)
    check_gradients(lambda: supernet(batch, genotype).square().sum(), parameters, gradients, atol=1e-6)


@every_space
def test_an_image_does_not_change_anothers_logits(name) -> None:
    supernet = build(name).eval()
    genotype, batch = sample(supernet.space, random.Random(6)), images(4)
    with torch.no_grad():
        torch.testing.assert_close(supernet(batch[1:3], genotype), supernet(batch, genotype)[1:3])


@every_space
def test_training_mode_leaves_the_running_statistics(name) -> None:
    supernet = build(name, "identity").train()
    before = {key: value.clone() for key, value in supernet.named_buffers() if value.is_floating_point()}
    supernet(images(8), sample(supernet.space, random.Random(7)))
    after = dict(supernet.named_buffers())
    assert before and all(torch.equal(before[key], after[key]) for key in before)


@every_space
@pytest.mark.parametrize("branch", BRANCHES)
def test_state_dict_round_trip(name, branch) -> None:
    supernet = build(name, branch).eval()
    other = ChainSupernet(supernet.space, branch=branch).eval()
    other.load_state_dict(supernet.state_dict())
    genotype = sample(supernet.space, random.Random(8))
    with torch.no_grad():
        assert torch.equal(other(images(), genotype), supernet(images(), genotype))
