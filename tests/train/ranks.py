"""What every rank runs in test_dist.py: `torchrun ranks.py OUT`; rank 0 writes what all saw."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from contextlib import suppress
from pathlib import Path

import torch

from subshot.supernet.network import build_network
from subshot.train.dist import World, barrier, gather_objects, joined_world, ordered_means, sum_counts, turn_taker
from subshot.train.evaluate import OneShot, evaluate_accuracy
from subshot.train.fit import fit
from subshot.train.paths import path_at
from subshot.train.recipe import Recipe, make_optimizer
from subshot.train.task import image_task
from subshot.train.trainable import select_trainable

_spec = importlib.util.spec_from_file_location("train_fixtures", Path(__file__).with_name("conftest.py"))
fixtures = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fixtures)


def digest(module: torch.nn.Module) -> str:
    sha = hashlib.sha256()
    for value in module.state_dict().values():
        sha.update(value.contiguous().numpy().tobytes())
    return sha.hexdigest()


def results(world: World) -> dict[str, object]:
    """Everything that must not depend on the number of ranks."""
    task, recipe = image_task(0.1), Recipe(epochs=2, learning_rate=0.1, clip_norm=1.0)
    loader = fixtures.RandomShards(world.rank, world.size, num_shards=4, steps=2)
    supernet = fixtures.build_supernet("projected", True)
    optimizer = make_optimizer(supernet, select_trainable(supernet, "all"), recipe)

    def path(step):
        return supernet.path(path_at(supernet.space, step, 0, "fair"))

    losses = [result.loss for result in fit(path, optimizer, loader, recipe, task, world, 4)]
    # Fewer shards than ranks: one rank has nothing to do but must end with the same weights.
    torch.manual_seed(0)
    network = build_network(supernet.space.decode((1,) * 8))
    optimizer = make_optimizer(network, list(network.parameters()), recipe)
    few = fixtures.RandomShards(world.rank, world.size, num_shards=2, steps=2)
    losses += [result.loss for result in fit(lambda _: network, optimizer, few, recipe, task, world, 2)]
    validation = [fixtures.RandomShards().shard(9, 0, number) for number in range(world.rank, 7, world.size)]
    accuracy, examples = evaluate_accuracy(network, validation, task, world)
    together = OneShot(supernet, [fixtures.RandomShards().shard(8, 0, 0)], validation, task, world)
    rows = torch.randn(7, 1000, generator=torch.Generator().manual_seed(0)) * 10.0 ** torch.arange(-3, 4)[:, None]
    mine = [[row] for row in rows[world.rank :: world.size]]
    (mean,) = ordered_means(mine, [rows[0]], 7, world)
    barrier(world)
    return {
        "losses": losses,
        "supernet": digest(supernet),
        "network": digest(network),
        "accuracy": accuracy,
        "one_shot": together((0,) * 8),
        "examples": examples,
        "mean": hashlib.sha256(mean.numpy().tobytes()).hexdigest(),
        "counts": sum_counts([2**53 * (world.rank == 0) + 1 - world.size * (world.rank == 0), 5 // 5], world)[0],
    }


def all_reduced(world: World) -> list[float]:
    """Losses with one flat all-reduce instead of a sum in fixed order."""
    recipe = Recipe(epochs=2, learning_rate=0.1, clip_norm=1.0, gradient_sum="all_reduce")
    loader = fixtures.RandomShards(world.rank, world.size, num_shards=4, steps=2)
    supernet = fixtures.build_supernet("projected", True)
    optimizer = make_optimizer(supernet, select_trainable(supernet, "all"), recipe)
    path = supernet.path((0,) * 8)
    return [result.loss for result in fit(lambda _: path, optimizer, loader, recipe, image_task(), world, 4)]


def gloo_threads() -> list[str]:
    names = []
    for path in Path("/proc/self/task").glob("*/comm"):
        with suppress(FileNotFoundError):
            names.append(path.read_text())
    return [name for name in names if "gloo" in name]


def main() -> None:
    torch.set_num_threads(1)
    with joined_world() as world:
        turns, others = turn_taker(world), turn_taker(world)
        taken = [list(turns(count)) for count in (5, 0)] + [list(others(7))]
        mine = results(world) | {"all_reduced": all_reduced(world), "taken": taken}
        everyone = gather_objects({"rank": world.rank, **mine}, world)
        if world.is_main:
            Path(sys.argv[1]).write_text(json.dumps(everyone))
        assert gloo_threads()
    assert not gloo_threads(), "one that lives on while Python shuts down can abort the process"


if __name__ == "__main__":
    main()
