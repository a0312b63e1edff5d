"""What a dry run measures: steps and scorings of a small, a median and a large network, and the memory they take.

Nothing here knows a domain. Every rank calls these functions alike; times are those of the slowest rank.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from torch import nn

from subshot.search.evaluator import Evaluator, Score
from subshot.supernet.space import Genotype
from subshot.train.dist import World, gather_objects, heed_stop, of_main
from subshot.train.fit import Optimizer, TrainBatches, train_step
from subshot.train.recipe import Recipe
from subshot.train.task import Task

SIZES = ("smallest", "median", "largest")
STEPS = 20
SCORINGS = 20
PATIENCE_SECONDS = 60.0
"""A network whose steps take longer than this in all is timed for fewer of them, and scoring alike."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Sized:
    """A network to be timed. size: one of SIZES. macs: of one example. chosen: what the domain makes it from."""

    size: str
    macs: int
    chosen: Any


@dataclass(frozen=True)
class Timed:
    """`count` steps or scorings. seconds: of all of them, waiting for batches included; loading_seconds: that wait."""

    size: str
    macs: int
    count: int
    seconds: float
    loading_seconds: float = 0.0

    @property
    def ms(self) -> float:
        return 1e3 * self.seconds / self.count

    @property
    def loading_ms(self) -> float:
        return 1e3 * self.loading_seconds / self.count


@dataclass(frozen=True)
class Scorings:
    """networks: each scored once, by one process. mixed: random candidates dealt to all processes, as in the search.
    scores: what was scored, with its scores, for the size of a line of the history."""

    networks: tuple[Timed, ...]
    mixed: Timed
    scores: tuple[tuple[Genotype, Score], ...]


def of_three_sizes(candidates: Sequence[Any], macs: Callable[[Any], int]) -> tuple[Sized, ...]:
    """The least, the median and the greatest by MACs."""
    ranked = sorted(candidates, key=macs)
    places = (0, len(ranked) // 2, len(ranked) - 1)
    return tuple(Sized(size, macs(ranked[at]), ranked[at]) for size, at in zip(SIZES, places, strict=True))


def timed_steps(
    networks: Sequence[Sized],
    network_of: Callable[[Any], nn.Module],
    optimizer: Optimizer,
    loader: TrainBatches,
    recipe: Recipe,
    task: Task,
    world: World,
    num_shards: int,
    say: Say,
) -> tuple[Timed, ...]:
    """20 optimiser steps of each network, on the loader's batches one after another, after one that is not counted.

    The learning rate is 0: a step costs the same, and no network can diverge for being trained alone.
    """
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    batches = _endless(loader)
    found = []
    for network in networks:
        say(f"timing {STEPS} steps of the {network.size} network, {network.macs / 1e6:,.4g} M MACs")
        steps, seconds, loading = 0, 0.0, 0.0
        for turn in range(STEPS + 1):
            began = time.perf_counter()
            shards = next(batches)
            loaded = time.perf_counter()
            train_step(network_of(network.chosen), optimizer, shards, recipe, task, world, num_shards, turn)
            synchronise(world)
            if turn:
                steps += 1
                seconds += time.perf_counter() - began
                loading += loaded - began
            heed_stop(world, "in the dry run")
            if steps and of_main(seconds >= PATIENCE_SECONDS, world):
                break
        seconds, loading = slowest(seconds, world), slowest(loading, world)
        found.append(Timed(network.size, network.macs, steps, seconds, loading))
    return tuple(found)


def timed_scorings(
    evaluator: Evaluator, candidates: Sequence[Genotype], macs: Callable[[Genotype], int], world: World, say: Say
) -> Scorings:
    """Scores the least, the median and the greatest candidate alone, then up to 20 of them together.

    evaluator: deals its genotypes to the ranks and keeps no scores. candidates: one or more, all different.
    """
    networks = of_three_sizes(candidates, macs)
    say("timing the scoring of a small, a median and a large candidate")
    evaluator.evaluate([networks[0].chosen])
    alone = []
    for network in networks:
        seconds, _ = _scored(evaluator, [network.chosen], world)
        alone.append(Timed(network.size, network.macs, 1, seconds))
    affordable = int(PATIENCE_SECONDS * world.size / max(alone[1].seconds, 1e-9))
    number = min(len(candidates), SCORINGS, max(world.size, affordable))
    mixed = candidates[: of_main(number, world)]
    say(f"timing {len(mixed)} random candidates together")
    seconds, scores = _scored(evaluator, mixed, world)
    mean_macs = round(sum(map(macs, mixed)) / len(mixed))
    together = Timed("mixed", mean_macs, len(mixed), seconds)
    return Scorings(tuple(alone), together, tuple(zip(mixed, scores, strict=True)))


def synchronise(world: World) -> None:
    if world.device.type == "cuda":
        torch.cuda.synchronize(world.device)


def slowest(seconds: float, world: World) -> float:
    return max(gather_objects(seconds, world))


def peak_mib(world: World) -> tuple[float, float]:
    """(resident memory, GPU memory) at its greatest so far in the process that had most, MiB; the latter 0 on CPUs."""
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    on_gpu = torch.cuda.max_memory_allocated(world.device) / 2**20 if world.device.type == "cuda" else 0.0
    peaks = gather_objects((resident, on_gpu), world)
    return max(peak[0] for peak in peaks), max(peak[1] for peak in peaks)


def tensor_bytes(module: nn.Module) -> int:
    """Bytes of everything in the module's state."""
    return sum(value.numel() * value.element_size() for value in module.state_dict().values())


def gradient_copies(recipe: Recipe, num_shards: int, ranks: int) -> int:
    """How many times a process holds the gradient of a path while a step averages it; see train/dist.py."""
    held = -(-num_shards // ranks)
    if recipe.gradient_sum == "all_reduce":
        return held + 2
    if ranks == 1:
        return 1 if num_shards == 1 else num_shards + 2
    return 2 * held + num_shards + 1


def _scored(evaluator: Evaluator, genotypes: Sequence[Genotype], world: World) -> tuple[float, list[Score]]:
    heed_stop(world, "in the dry run")  # after which all ranks begin together
    began = time.perf_counter()
    scores = evaluator.evaluate(genotypes)
    synchronise(world)
    return slowest(time.perf_counter() - began, world), scores


def _endless(loader: TrainBatches) -> Iterator[Any]:
    for epoch in count():
        yield from loader.batches(epoch)
