"""What trains, and what a step leaves alone to the bit."""

import pytest
import torch
from torch import nn

from subshot.supernet import SPACES
from subshot.supernet.network import Block, ChainSupernet, LayerBranch
from subshot.train.recipe import Recipe, make_optimizer
from subshot.train.trainable import parameter_groups, select_trainable

MODES = ("last_bn", "all_bn", "bn_classifier", "all")


def expected(supernet, mode):
    """By walking the blocks of the supernet one by one: an independent account of each mode."""
    blocks = [block for candidates in supernet.layers for block in candidates]
    branches = list(supernet.branches.values())
    ids = {id(p) for branch in branches for p in (branch.bn.weight, branch.bn.bias)}
    if mode == "last_bn":
        for block in blocks:
            if block.identity_bn is not None:
                bns = [block.identity_bn]
            else:
                bns = [path[-1].bn for path in (block.main, block.projection) if len(path) > 0]
            ids |= {id(p) for bn in bns for p in (bn.weight, bn.bias)}
        return ids
    norms = [m for m in supernet.modules() if type(m) is nn.BatchNorm2d]
    ids |= {id(p) for norm in norms for p in (norm.weight, norm.bias)}
    if mode in ("bn_classifier", "all"):
        ids |= {id(p) for p in supernet.classifier.parameters()}
    if mode == "all":
        frozen = {id(p) for branch in branches for p in branch.shortcut.parameters()}
        ids |= {id(p) for p in supernet.parameters()} - frozen
    return ids


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("mode", MODES)
def test_modes_choose_by_module(name, mode) -> None:
    supernet = ChainSupernet(SPACES[name](16, 5, 0.25, 1), branch="projected", identity_bn=True)
    for _ in range(2):
        chosen = select_trainable(supernet, mode)
        assert {id(p) for p in chosen} == expected(supernet, mode) and len(chosen) == len({id(p) for p in chosen})
        assert {id(p) for p in supernet.parameters() if p.requires_grad} == {id(p) for p in chosen}
        order = {id(p): place for place, p in enumerate(supernet.parameters())}
        assert [order[id(p)] for p in chosen] == sorted(order[id(p)] for p in chosen)
        select_trainable(supernet, "all")


def test_bnnas_trains_30144_numbers() -> None:
    """Computed from the released configuration: 15,072 scales and as many shifts. 17 active layers of 6 candidates."""
    supernet = ChainSupernet(SPACES["mobilenetv2-fixed-depth"](224, 1000, 1.0, 0))
    assert sum(p.numel() for p in select_trainable(supernet, "last_bn")) == 30_144


def test_both_branches_of_a_strided_shuffle_block_have_a_last_bn() -> None:
    supernet = ChainSupernet(SPACES["shufflenetv2"](32, 5, 0.25, 1))
    down, keep = supernet.block(0, 0), supernet.block(1, 0)
    assert down.last_bns() == (down.main[-1].bn, down.projection[-1].bn)
    assert keep.last_bns() == (keep.main[-1].bn,)
    assert sum(len(bn.weight) for bn in down.last_bns()) == supernet.space.layers[0].out_channels


def test_decay_on_weights_only(make_supernet) -> None:
    supernet = make_supernet("projected", True)
    decayed, free = parameter_groups(supernet, select_trainable(supernet, "all"), 0.1)
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.1, 0.0)
    norms = {id(p) for m in supernet.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()}
    assert {id(p) for p in free["params"]} == norms
    assert id(supernet.classifier.weight) in {id(p) for p in decayed["params"]}
    assert not {id(p) for p in decayed["params"]} & norms


def step(supernet, optimizer, genotype, seed=0):
    images = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    optimizer.zero_grad(set_to_none=True)
    supernet.train()(images, genotype).square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_a_step_leaves_frozen_and_unsampled_weights_alone_to_the_bit(make_supernet, mode, kind) -> None:
    supernet = make_supernet("projected", True)
    chosen = select_trainable(supernet, mode)
    recipe = Recipe(epochs=1, learning_rate=0.1, optimizer=kind, momentum=0.9, weight_decay=0.1)
    optimizer = make_optimizer(supernet, chosen, recipe)
    ones = (1,) * len(supernet.space.layers)
    for seed in range(2):
        step(supernet, optimizer, ones, seed)  # gives operation 1 a momentum that must not act later
    before = [p.detach().clone() for p in supernet.parameters()]
    twos = (2,) * len(ones)
    step(supernet, optimizer, twos)
    trains = {id(p) for p in chosen} & {id(p) for p in supernet.path(twos).parameters()}
    for value, (key, parameter) in zip(before, supernet.named_parameters(), strict=True):
        if id(parameter) not in trains:
            assert torch.equal(value, parameter), key
    assert any(not torch.equal(v, p) for v, p in zip(before, supernet.parameters(), strict=True) if id(p) in trains)
    assert {id(p) for p in optimizer.state} <= {id(p) for p in chosen}
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == {id(p) for p in chosen}


def test_frozen_weights_get_no_gradient(make_supernet) -> None:
    supernet = make_supernet("projected")
    chosen = {id(p) for p in select_trainable(supernet, "all_bn")}
    genotype = (1,) * len(supernet.space.layers)
    supernet(torch.randn(4, 3, 8, 8), genotype).sum().backward()
    assert all(p.grad is None for p in supernet.parameters() if id(p) not in chosen)
    shortcuts = [m.shortcut for m in supernet.modules() if isinstance(m, LayerBranch)]
    select_trainable(supernet, "all")
    assert not any(p.requires_grad for shortcut in shortcuts for p in shortcut.parameters())
    assert isinstance(supernet.block(0, 0), Block)
