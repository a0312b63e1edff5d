"""The NASRec supernet: paths are views, extracted subnets are copies, and both compute the same."""

import copy
import random
from dataclasses import replace

import pytest
import torch

from subshot.supernet.base import Bound, extract
from subshot.supernet.nasrec import NasrecSpace, autoctr_in_nasrec, nasrec_full, nasrec_small
from subshot.supernet.nasrec_supernet import NasrecSupernet

SIZES = {"dense_dims": (8, 16, 21, 40, 128), "sparse_dims": (4, 6, 11)}
SPACES = {
    "small": NasrecSpace("small", 3, 4, 4, ("fc", "dot_product"), ("efc",), **SIZES),
    "full": NasrecSpace("full", 3, 4, 4, **SIZES),
    "zeros": NasrecSpace(
        "zeros", 3, 4, 4, ("fc", "dot_product", "gating", "sum", "none"), ("attention", "none", "efc"), **SIZES
    ),
    "no-dense": NasrecSpace("no-dense", 0, 4, 4, **SIZES),
}
every_space = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES.keys())
both_norms = pytest.mark.parametrize("layer_norm", [True, False])


def build(space, layer_norm=True, seed=0) -> NasrecSupernet:
    """None of the weights is at a special value."""
    supernet = NasrecSupernet(space, torch.Generator().manual_seed(seed), layer_norm)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for weight in supernet.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=generator)
    return supernet


def inputs(space, count=5):
    generator = torch.Generator().manual_seed(2)
    dense = torch.randn(count, space.dense_features, generator=generator)
    return dense, torch.randn(count, space.sparse_fields, space.embedding_dim, generator=generator)


@every_space
@both_norms
def test_path_bound_and_extracted_subnet_are_one_computation(space, layer_norm) -> None:
    supernet, rng, batch = build(space, layer_norm).eval(), random.Random(0), inputs(space)
    with torch.no_grad():
        for _ in range(40):
            genotype = space.draw(rng)
            logits = supernet(batch, genotype)
            subnet = extract(supernet, genotype)
            assert logits.shape == (5,) and bool(logits.isfinite().all())
            assert torch.equal(Bound(supernet, genotype)(batch), logits)
            assert not subnet.training
            torch.testing.assert_close(subnet(batch), logits, rtol=1e-6, atol=1e-6 * float(logits.abs().max()))


@every_space
@both_norms
def test_a_path_has_views_of_the_supernets_weights_and_costs_what_the_space_says(space, layer_norm) -> None:
    supernet, rng = build(space, layer_norm), random.Random(1)
    storages = {weight.untyped_storage().data_ptr() for weight in supernet.parameters()}
    for _ in range(20):
        genotype = space.draw(rng)
        mine = list(supernet.path(genotype).parameters())
        assert {weight.untyped_storage().data_ptr() for weight in mine} <= storages
        assert len({weight.untyped_storage().data_ptr() for weight in mine}) == len(mine)
        assert sum(weight.numel() for weight in mine) == space.cost(genotype, layer_norm).params


@every_space
def test_changing_a_path_changes_the_supernet_and_only_there(space) -> None:
    supernet = build(space)
    genotype = space.draw(random.Random(2))
    before = {name: weight.detach().clone() for name, weight in supernet.full.named_parameters()}
    path = supernet.path(genotype)
    with torch.no_grad():
        for weight in path.parameters():
            weight.fill_(7.0)
    changed = 0
    for name, weight in supernet.full.named_parameters():
        changed += int((weight != before[name]).sum())
        assert bool((weight[weight != before[name]] == 7.0).all())
    assert changed == sum(weight.numel() for weight in path.parameters())


@pytest.mark.parametrize("name", ["small", "full", "zeros"])
def test_every_weight_is_read_by_some_path(name) -> None:
    """At a largest width of 128 the merger tokens would never be projected from it."""
    space = replace(SPACES[name], dense_dims=(8, 16, 21, 40, 100))
    supernet, rng = build(space), random.Random(3)
    with torch.no_grad():
        for weight in supernet.parameters():
            weight.zero_()
        for chosen in (space.full_spec(), *(space.draw(rng, "uniform") for _ in range(300))):
            for weight in supernet.path(chosen).parameters():
                weight.fill_(1.0)
    unread = {name: int((weight == 0).sum()) for name, weight in supernet.named_parameters()}
    assert not {name: count for name, count in unread.items() if count}


@every_space
def test_gradients_are_those_of_the_extracted_subnet_and_stay_on_the_path(space) -> None:
    supernet, batch = build(space).double(), tuple(x.double() for x in inputs(space))
    genotype = space.draw(random.Random(4))
    path, subnet = supernet.path(genotype), extract(supernet, genotype)
    path(batch).square().sum().backward()
    subnet(batch).square().sum().backward()
    for (name, one), other in zip(path.named_parameters(), subnet.parameters(), strict=True):
        assert one.grad is not None and other.grad is not None and one.grad.shape == one.shape, name
        torch.testing.assert_close(one.grad, other.grad)
    assert all(weight.grad is None for weight in supernet.parameters())


def test_gradients_by_differences(check_gradients) -> None:
    """In float64: the derivative of the loss along a random direction of all the path's weights, moved in place."""
    space = SPACES["full"]
    supernet, batch = build(space).double(), tuple(x.double() for x in inputs(space))
    genotype = space.draw(random.Random(5))
    path = supernet.path(genotype)
    parameters = list(path.parameters())
    gradients = torch.autograd.grad(path(batch).square().sum(), parameters)
    check_gradients(lambda: supernet(batch, genotype).square().sum(), parameters, gradients, atol=1e-5)


@every_space
def test_an_extracted_subnet_is_independent_and_no_larger_than_itself(space) -> None:
    supernet, batch = build(space), inputs(space)
    genotype = space.draw(random.Random(6))
    with torch.no_grad():
        logits = supernet(batch, genotype)
        subnet = extract(supernet, genotype)
        for weight in subnet.parameters():
            assert weight.is_contiguous() and weight.untyped_storage().nbytes() == 4 * weight.numel()
            weight.fill_(3.0)
        subnet.eval()
        assert torch.equal(supernet(batch, genotype), logits) and supernet.training


def test_frozen_weights_are_frozen_on_the_path() -> None:
    supernet = build(SPACES["full"])
    supernet.requires_grad_(False)
    supernet.full.classifier.requires_grad_(True)
    path = supernet.path(SPACES["full"].draw(random.Random(7)))
    trains = {name for name, weight in path.named_parameters() if weight.requires_grad}
    assert trains == {"classifier.dense", "classifier.tokens", "classifier.bias"}


def test_copies_and_state_dicts() -> None:
    space = SPACES["full"]
    supernet, batch, genotype = build(space), inputs(space), space.draw(random.Random(8))
    other, copied = NasrecSupernet(space), copy.deepcopy(supernet)
    other.load_state_dict(supernet.state_dict())
    with torch.no_grad():
        assert torch.equal(other(batch, genotype), supernet(batch, genotype))
        for weight in copied.parameters():
            weight.zero_()
        assert not copied(batch, genotype).any() and supernet(batch, genotype).all()


def test_the_full_path_is_wider_than_any_other() -> None:
    space = SPACES["full"]
    supernet, spec = build(space), space.full_spec()
    path = supernet.path(spec)
    assert spec.blocks[3].sparse_in == (0, 1, 2, 3) and path(inputs(space)).shape == (5,)
    largest = {name: weight.shape for name, weight in supernet.full.named_parameters()}
    assert all(weight.shape == largest[name] for name, weight in path.named_parameters())


@pytest.mark.parametrize("make, millions", [(nasrec_small, 31.14), (nasrec_full, 110.06), (autoctr_in_nasrec, 110.06)])
def test_sizes(make, millions) -> None:
    """Small is as large as published (31.14 M). Full is published with 171.5 M, because there the square of `gating`
    covers the concatenation of all earlier blocks; here there is a square for each left one."""
    with torch.device("meta"):
        supernet = NasrecSupernet(make(13, 26))
    assert round(sum(weight.numel() for weight in supernet.parameters()) / 1e6, 2) == millions
