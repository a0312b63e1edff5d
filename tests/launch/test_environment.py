"""Which sum of gradients a run used stands in its environment.json."""

from __future__ import annotations

from dataclasses import replace

import torch

from subshot.launch.environment import describe_environment
from subshot.launch.presets import clicks, digits, nasbench201_cifar10
from subshot.train.dist import World

ALONE = World(0, 1, torch.device("cpu"))


def test_the_sum_of_gradients_is_told() -> None:
    def told(config: object) -> str:
        return str(describe_environment(config, ALONE)["gradient_sum"])

    config, ctr = digits(), clicks()
    assert told(config).startswith("fixed order over virtual shards")
    recipe = replace(config.warmup.recipe, gradient_sum="all_reduce")
    assert told(replace(config, warmup=replace(config.warmup, recipe=recipe))).startswith("one flat all-reduce")
    assert told(ctr).startswith("fixed order over virtual shards")
    assert "DistributedModelParallel" in told(replace(ctr, tables=replace(ctr.tables, sharding="dmp")))
    assert told(nasbench201_cifar10()) == "no warm-up"
