"""Sharing and copying, seen in a training step; the agreement of all three is in tests/contract/test_supernets.py."""

import torch

from subshot.supernet import SPACES
from subshot.supernet.base import Bound, extract
from subshot.supernet.network import ChainSupernet


def test_training_bound_trains_the_supernet_and_training_a_copy_does_not() -> None:
    supernet = ChainSupernet(SPACES["nasbench-macro"](8, 5, 0.125, 2), branch="identity")
    genotype, images = (1, 2, 0, 1, 2, 0, 1, 2), torch.randn(4, 3, 8, 8)
    before = [p.detach().clone() for p in supernet.parameters()]
    for subnet, shares in ((extract(supernet, genotype), False), (Bound(supernet, genotype), True)):
        parameters = [p for p in subnet.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(parameters, lr=0.1)
        subnet.train()(images).square().sum().backward()
        optimizer.step()
        same = [torch.equal(old, new) for old, new in zip(before, supernet.parameters(), strict=True)]
        assert all(same) != shares
    assert Bound(supernet, genotype).genotype == genotype


def test_a_copy_starts_without_gradients_of_the_supernet_and_follows_no_later_change() -> None:
    supernet = ChainSupernet(SPACES["nasbench-macro"](8, 5, 0.125, 2)).eval()
    genotype, images = (1,) * 8, torch.randn(2, 3, 8, 8)
    bound, copy = Bound(supernet, genotype), extract(supernet, genotype)
    with torch.no_grad():
        for parameter in supernet.parameters():
            parameter.mul_(1.5)
        assert torch.equal(bound(images), supernet(images, genotype))
        assert not torch.allclose(copy(images), supernet(images, genotype))
