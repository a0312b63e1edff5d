"""The only file that imports torch.distributed: processes, devices, and the few collectives that the project needs.

Every function works in a single process too. Sums run in a fixed order, so results do not depend on the number of
ranks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as distributed

# Before any group exists: its default arguments keep whatever group they find for ever. The threads of a group that is
# never freed still run while Python shuts down, and abort the process ("terminate called without an active exception").
import torch.distributed.nn.functional
from torch import Tensor

from subshot.train.stopping import Marks, Preempted, heeding_signals

T = TypeVar("T")
R = TypeVar("R")


class LostProcesses(RuntimeError):
    """Another process died, or did not come to a collective in time."""

    speaks = True
    """Whether this process is to tell the user, and no other does."""


@dataclass(frozen=True)
class World:
    """This process among all: `rank` of `size`, the device that it computes on, and what it was asked for."""

    rank: int
    size: int
    device: torch.device
    marks: Marks = field(default_factory=Marks, compare=False, repr=False)

    @property
    def is_main(self) -> bool:
        return self.rank == 0


@contextmanager
def joined_world(timeout_minutes: float = 30.0, checkpoint_minutes: float = 10.0) -> Iterator[World]:
    """Joins torchrun's process group (NCCL where each rank of a node has a GPU, else CPUs and gloo), and leaves it.

    Inside, signals set the world's marks. timeout_minutes: how long a collective waits for a rank before it raises
    LostProcesses. checkpoint_minutes: how often a checkpoint is due.
    Reads RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE, as torchrun sets them; without them this is a world of one.
    Raises ValueError where one of the two numbers is not above 0.
    """
    for name, minutes in (("timeout", timeout_minutes), ("checkpoint", checkpoint_minutes)):
        if not minutes > 0.0:
            raise ValueError(f"--{name}-minutes is {minutes:g}; it must be above 0")
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    device = torch.device("cpu")
    if torch.cuda.device_count() >= int(os.environ.get("LOCAL_WORLD_SIZE", "1")):
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    marks = Marks(60.0 * checkpoint_minutes)
    with heeding_signals(marks, says_so=rank == 0, launched="WORLD_SIZE" in os.environ):
        if size == 1:
            yield World(rank, size, device, marks)
            return
        backend = "nccl" if device.type == "cuda" else "gloo"
        world = World(rank, size, device, marks)
        with _collective(world):
            distributed.init_process_group(backend, timeout=timedelta(minutes=timeout_minutes))
        try:
            yield world
            barrier(world)  # nobody leaves while another is still at its part of a collective
        finally:
            distributed.destroy_process_group()


@contextmanager
def _collective(world: World) -> Iterator[None]:
    """What gloo and NCCL raise where another process is missing becomes LostProcesses."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise LostProcesses(f"process {world.rank} of {world.size} lost another one: {reason}") from error


def barrier(world: World) -> None:
    if world.size > 1:
        with _collective(world):
            distributed.barrier()


def gather_objects(value: T, world: World) -> list[T]:
    """Every rank's value, in order of rank, on every rank."""
    if world.size == 1:
        return [value]
    gathered: list[T | None] = [None] * world.size
    with _collective(world):
        distributed.all_gather_object(gathered, value)
    return gathered  # type: ignore[return-value]


def of_main(value: T, world: World) -> T:
    """The main process's value, on every rank."""
    return gather_objects(value, world)[0]


def stop_agreed(world: World) -> str:
    """The signal that asked any process to stop, or empty; the same answer on all. Every rank calls this."""
    if sum_counts([int(world.marks.stop)], world)[0] == 0:
        return ""
    return next(name for name in gather_objects(world.marks.stop_signal, world) if name)


def heed_stop(world: World, where: str) -> None:
    """Raises Preempted on every rank where one of them was asked to stop. Every rank calls this."""
    if signal := stop_agreed(world):
        raise Preempted(f"{signal}, {where}")


def together(work: Callable[[], R], world: World) -> list[R]:
    """Every rank's result of its own `work`, in order of rank, on every rank.

    Where `work` raises Preempted on one rank, all raise it, after all others came to the end of theirs.
    """
    stopped = ""
    mine: R | None = None
    try:
        mine = work()
    except Preempted as reason:
        stopped = str(reason)
    gathered = gather_objects((stopped, mine), world)
    for words, _ in gathered:
        if words:
            raise Preempted(words)
    return [value for _, value in gathered]  # type: ignore[misc]


def turn_taker(world: World) -> Callable[[int], Iterator[int]]:
    """Deals work at the time: called alike on every rank with a count, it yields to each the places that it is the
    first to ask for, until all below the count are taken. All ranks call this; what they share is a counter in the
    store where they met. A rank that was asked to stop takes the rest away from all, and the place that it gets must
    not be worked on: see `unless_stopped`.
    """
    if world.size == 1:
        return lambda count: iter(range(count))
    store = distributed.distributed_c10d._get_default_store()
    name = of_main(store.add("subshot/turn_takers", 1) if world.is_main else 0, world)
    round_number = 0

    def turns(count: int) -> Iterator[int]:
        nonlocal round_number
        round_number += 1
        key = f"subshot/turns/{name}/{round_number}"
        while True:
            with _collective(world):
                place = store.add(key, 1) - 1
                if world.marks.stop:
                    store.add(key, count)  # the others take no more of them
            if place >= count:
                return
            yield place

    return turns


def unless_stopped(items: Iterable[T], work: Callable[[T], R], world: World) -> list[R]:
    """`work` of each item on this rank. Raises Preempted before the next item once this process was asked to stop."""
    results: list[R] = []
    for item in items:
        if world.marks.stop:
            raise Preempted(f"{world.marks.stop_signal}, {len(results)} done of the present share")
        results.append(work(item))
    return results


def sum_counts(counts: Sequence[int], world: World) -> list[int]:
    """Integer counts summed over ranks: exact, whatever the order."""
    if world.size == 1:
        return list(counts)
    total = torch.tensor(list(counts), dtype=torch.int64, device=world.device)
    with _collective(world):
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
    with _collective(world):
        distributed.all_gather(gathered, padded)
    mean = gathered[0][0].clone()
    for shard in range(1, num_shards):
        mean += gathered[shard % world.size][shard // world.size]
    mean /= num_shards
    return [part.view(shape.shape) for part, shape in zip(mean.split(sizes), like, strict=True)]


def reduced_means(
    rows: Sequence[Sequence[Tensor]], like: Sequence[Tensor], num_shards: int, world: World
) -> list[Tensor]:
    """The means of `ordered_means` by one flat all-reduce: less communication, and equal to rounding only, because the
    order of the sum depends on the number of ranks."""
    flat = torch.zeros(sum(part.numel() for part in like), device=world.device)
    for row in rows:
        flat += torch.cat([part.flatten() for part in row])
    if world.size > 1:
        with _collective(world):
            distributed.all_reduce(flat)
    flat /= num_shards
    sizes = [part.numel() for part in like]
    return [part.view(shape.shape) for part, shape in zip(flat.split(sizes), like, strict=True)]


def gather_rows(rows: Tensor, world: World) -> list[Tensor]:
    """Every rank's tensor [n, ...], in order of rank, on every rank; n may differ between ranks and be 0."""
    if world.size == 1:
        return [rows]
    count = torch.tensor([len(rows)], device=rows.device)
    counts = [torch.empty_like(count) for _ in range(world.size)]
    with _collective(world):
        distributed.all_gather(counts, count)
    padded = rows.new_zeros(int(max(counts)), *rows.shape[1:])
    padded[: len(rows)] = rows
    gathered = [torch.empty_like(padded) for _ in range(world.size)]
    with _collective(world):
        distributed.all_gather(gathered, padded)
    return [part[: int(number)] for part, number in zip(gathered, counts, strict=True)]


def broadcast(value: Tensor, source: int, world: World) -> None:
    """Rank `source`'s tensor, written into the others' of the same shape and type."""
    if world.size > 1:
        with _collective(world):
            distributed.broadcast(value, source)


def process_group(world: World) -> Any:
    """The group of all ranks, for torchrec, which asks for it."""
    assert world.size > 1, "one process alone has no group"
    return distributed.group.WORLD
