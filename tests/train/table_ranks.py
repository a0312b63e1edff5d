"""What every rank runs in test_tables.py: `torchrun table_ranks.py FOLDER`; rank 0 writes what the test reads there.

Also the small tables and batches of that test. A global batch is four shards, dealt out over the ranks.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from subshot.data.batch import ClickBatch
from subshot.data.keyed_ids import keyed_ids
from subshot.train.dist import World, joined_world
from subshot.train.tables import Tables, TablesConfig, build_tables

FIELDS = (("C1", 40), ("C2", 7), ("C3", 300), ("C4", 3), ("C5", 11))
NAMES = [name for name, _ in FIELDS]
SHARDS, SHARD_SIZE, STEPS, RATE = 4, 6, 6, 0.1
ALONE = World(0, 1, torch.device("cpu"))
CONFIGS = {
    "adagrad": TablesConfig(embedding_dim=8),
    "rowwise_adagrad": TablesConfig(embedding_dim=8, optimizer="rowwise_adagrad"),
    "adagrad_dense": TablesConfig(embedding_dim=8, optimizer="adagrad_dense"),
    "padded": TablesConfig(embedding_dim=5),
}


def make_batch(ids: Tensor) -> ClickBatch:
    """ids: [F, N]."""
    return ClickBatch(torch.zeros(ids.shape[1], 0), keyed_ids(NAMES, ids), torch.zeros(ids.shape[1]))


def shard_at(step: int, shard: int, columns: int) -> tuple[Tensor, Tensor]:
    """ids [F, SHARD_SIZE], of which many occur several times, and a gradient [SHARD_SIZE, F, columns]."""
    generator = torch.Generator().manual_seed(100 * step + shard)
    ids = torch.stack([torch.randint(min(rows, 9), (SHARD_SIZE,), generator=generator) for _, rows in FIELDS])
    return ids, torch.randn(SHARD_SIZE, len(FIELDS), columns, generator=generator)


def step_at(step: int, columns: int, world: World, shards: int = SHARDS) -> tuple[ClickBatch, Tensor]:
    """This rank's shards of a step, one after another."""
    mine = [shard_at(step, shard, columns) for shard in range(world.rank, shards, world.size)]
    ids = torch.cat([torch.empty(len(FIELDS), 0, dtype=torch.int64)] + [ids for ids, _ in mine], dim=1)
    gradient = torch.cat([torch.empty(0, len(FIELDS), columns)] + [gradient for _, gradient in mine])
    return make_batch(ids), gradient


def train(tables: Tables, world: World, steps: range, shards: int = SHARDS) -> None:
    tables.set_learning_rate(RATE)
    for step in steps:
        batch, gradient = step_at(step, tables.config.embedding_dim, world, shards)
        tables(batch, SHARD_SIZE).backward(gradient)


def path_step(tables: Tables, world: World, step: int) -> None:
    """A step through one of two different networks, shard by shard, as the training loop makes it."""
    columns = tables.config.embedding_dim
    torch.manual_seed(step)
    wide = nn.Linear(len(FIELDS) * columns, 1)
    narrow = nn.Linear(2 * columns, 1)
    batch, _ = step_at(step, columns, world)
    pooled = tables(batch, SHARD_SIZE)
    leaf = pooled.detach().requires_grad_()
    for shard in leaf.split(SHARD_SIZE):
        logits = wide(shard.flatten(1)) if step % 2 else narrow(shard[:, :2].flatten(1))
        F.softplus(logits).sum().backward()
    pooled.backward(leaf.grad)


def run(world: World, folder: Path) -> None:
    """Everything that the test compares with one process, as tensors in FOLDER/<name>.pt."""
    results: dict[str, dict[str, Tensor]] = {}
    for name, plain in CONFIGS.items():
        for sharding in ("none", "dmp") if name != "adagrad_dense" else ("none",):
            label, config = f"{name}-{sharding}", replace(plain, sharding=sharding)
            tables = build_tables(FIELDS, config, 3, world)
            results[f"{label}-start"] = tables.state()
            batch, gradient = step_at(0, config.embedding_dim, world)
            with torch.no_grad():
                looked_up = tables(batch)
            squares = tables.gradient_square_norm(batch, gradient, SHARD_SIZE)
            results[f"{label}-measured"] = {"norm": torch.tensor(squares), "looked_up": looked_up}
            train(tables, world, range(STEPS // 2))
            results[f"{label}-half"] = tables.state()
            train(tables, world, range(STEPS // 2, STEPS))
            results[f"{label}-whole"] = tables.state()
            # One process' state of half-way, and on from there.
            again = build_tables(FIELDS, config, 99, world)
            again.load_state(torch.load(folder / f"{name}-half-of-one.pt", weights_only=True))
            results[f"{label}-loaded"] = again.state()
            train(again, world, range(STEPS // 2, STEPS))
            results[f"{label}-resumed"] = again.state()
            # A rank without a shard; then different paths through the network.
            train(again, world, range(1), shards=1)
            results[f"{label}-few"] = again.state()
            for step in range(4):
                path_step(again, world, step)
            results[f"{label}-paths"] = again.state()
            modules = again._storage._model.modules() if sharding == "dmp" else ()
            assert not any(isinstance(module, nn.parallel.DistributedDataParallel) for module in modules)
    for name, tensors in results.items():
        torch.save(tensors, folder / f"{name}-of-rank-{world.rank}.pt")


def main() -> None:
    torch.set_num_threads(1)
    with joined_world() as world:
        run(world, Path(sys.argv[1]))


if __name__ == "__main__":
    main()
