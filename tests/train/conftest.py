"""A small supernet, and a loader of random images in virtual shards."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from subshot.supernet import SPACES
from subshot.supernet.isometry import initialise
from subshot.supernet.network import ChainSupernet
from subshot.train.dist import World

CLASSES = 4


class RandomShards:
    """Global batches of `num_shards` shards of `shard_size` random 8 x 8 images, a function of (epoch, step, shard)."""

    def __init__(self, rank: int = 0, world: int = 1, num_shards: int = 3, steps: int = 4, shard_size: int = 4) -> None:
        self.rank, self.world, self.num_shards, self.steps_per_epoch = rank, world, num_shards, steps
        self.shard_size = shard_size

    def shard(self, epoch: int, step: int, number: int) -> SimpleNamespace:
        generator = torch.Generator().manual_seed(1000 * epoch + 10 * step + number)
        labels = torch.randint(CLASSES, (self.shard_size,), generator=generator)
        noise = torch.randn(self.shard_size, 3, 8, 8, generator=generator)
        return SimpleNamespace(images=noise + labels[:, None, None, None], labels=labels)

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[list[tuple[int, SimpleNamespace]]]:
        for step in range(start_step, self.steps_per_epoch):
            yield [(n, self.shard(epoch, step, n)) for n in range(self.rank, self.num_shards, self.world)]


def build_supernet(branch: str = "none", identity_bn: bool = False) -> ChainSupernet:
    space = SPACES["nasbench-macro"](8, CLASSES, 0.125, 2)
    torch.manual_seed(0)
    supernet = ChainSupernet(space, branch=branch, identity_bn=identity_bn)
    initialise(supernet, "kaiming", torch.Generator().manual_seed(0))
    return supernet


@pytest.fixture
def one_process() -> World:
    return World(0, 1, torch.device("cpu"))


@pytest.fixture
def make_supernet():
    return build_supernet


@pytest.fixture
def make_loader():
    return RandomShards
