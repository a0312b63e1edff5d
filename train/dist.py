"""The only file that imports torch.distributed: processes, devices, and the few collectives that the project needs.

Every function works in a single process too. Sums run in a fixed order, so results do not depend on the number of
ranks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as distributed
from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """This process among all: `rank` of `size`, and the device that it computes on."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0


@contextmanager
def joined_world(timeout_minutes: float = 30.0) -> Iterator[World]:
    """Joins torchrun's process group (NCCL where each rank of a node has a GPU, else CPUs and gloo), and leaves it.

    Reads RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE, as torchrun sets them; without them this is a world of one.
    """
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    device = torch.device("cpu")
    if torch.cuda.device_count() >= int(os.environ.get("LOCAL_WORLD_SIZE", "1")):
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if size == 1:
        yield World(rank, size, device)
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, timeout=timedelta(minutes=timeout_minutes))
    try:
        yield World(rank, size, device)
        distributed.barrier()  # nobody leaves while another is still at its part of a collective
    finally:
        distributed.destroy_process_group()


def barrier(world: World) -> None:
    if world.size > 1:
        distributed.barrier()


def gather_objects(value: T, world: World) -> list[T]:
    """Every rank's value, in order of rank, on every rank."""
    if world.size == 1:
        return [value]
    gathered: list[T | None] = [None] * world.size
    distributed.all_gather_object(gathered, value)
    return gathered  # type: ignore[return-value]


def sum_counts(counts: Sequence[int], world: World) -> list[int]:
    """Integer counts summed over ranks: exact, whatever the order."""
    if world.size == 1:
        return list(counts)
    total = torch.tensor(list(counts), dtype=torch.int64, device=world.device)
    distributed.all_reduce(total)
    return [int(count) for count in total]


def ordered_means(
    rows: Sequence[Sequence[Tensor]], like: Sequence[Tensor], num_shards: int, world: World
) -> list[Tensor]:
    """Means over all virtual shards, added up in shard order on every rank: the same bits on any number of ranks.

    rows: one a shard of this rank, which holds shards r, r + size, r + 2 size, ...; each has one tensor a quantity.
    like: tensors of the quantities' shapes, for a rank without a shard. Several ranks cost num_shards / size times the
    communication of a plain all-reduce, and copies; one process adds in place.
    """
    if world.size == 1:
        assert len(rows) == num_shards, "every virtual shard has one row"
        if num_shards == 1:
            return list(rows[0])
        totals = [part.clone() for part in rows[0]]
        for row in rows[1:]:
            for total, part in zip(totals, row, strict=True):
                total += part
        return [total / num_shards for total in totals]
    sizes = [part.numel() for part in like]
    padded = torch.zeros(-(-num_shards // world.size), sum(sizes), device=world.device)
    for place, row in enumerate(rows):
        torch.cat([part.flatten() for part in row], out=padded[place])
    gathered = [torch.empty_like(padded) for _ in range(world.size)]
    distributed.all_gather(gathered, padded)
    mean = gathered[0][0].clone()
    for shard in range(1, num_shards):
        mean += gathered[shard % world.size][shard // world.size]
    mean /= num_shards
    return [part.view(shape.shape) for part, shape in zip(mean.split(sizes), like, strict=True)]


def gather_rows(rows: Tensor, world: World) -> list[Tensor]:
    """Every rank's tensor [n, ...], in order of rank, on every rank; n may differ between ranks and be 0."""
    if world.size == 1:
        return [rows]
    count = torch.tensor([len(rows)], device=rows.device)
    counts = [torch.empty_like(count) for _ in range(world.size)]
    distributed.all_gather(counts, count)
    padded = rows.new_zeros(int(max(counts)), *rows.shape[1:])
    padded[: len(rows)] = rows
    gathered = [torch.empty_like(padded) for _ in range(world.size)]
    distributed.all_gather(gathered, padded)
    return [part[: int(number)] for part, number in zip(gathered, counts, strict=True)]


def broadcast(value: Tensor, source: int, world: World) -> None:
    """Rank `source`'s tensor, written into the others' of the same shape and type."""
    if world.size > 1:
        distributed.broadcast(value, source)


def process_group(world: World) -> Any:
    """The group of all ranks, for torchrec, which asks for it."""
    assert world.size > 1, "one process alone has no group"
    return distributed.group.WORLD
