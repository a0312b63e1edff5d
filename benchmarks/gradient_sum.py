"""What it costs that gradients add up in one order on any number of processes: warm-up steps with `gradient_sum`
fixed_order beside all_reduce, in turns, in one run.

    OMP_NUM_THREADS=1 torchrun --standalone --nproc-per-node 2 benchmarks/gradient_sum.py [--steps 20] [--rounds 5]

A line each for a supernet of which BatchNorms and the classifier are trained, and all of it: numbers that are averaged,
MiB that a process receives a step, milliseconds a step (median and range over rounds), and the ratio.
"""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import dataclass, replace
from typing import Literal

import torch
import tyro

from subshot.data.batch import ImageBatch
from subshot.launch.vision.build import make_space, make_supernet
from subshot.launch.vision.presets import mobilenetv2_imagenette
from subshot.train.dist import World, barrier, joined_world
from subshot.train.fit import train_step
from subshot.train.paths import path_at
from subshot.train.recipe import make_optimizer
from subshot.train.task import image_task
from subshot.train.trainable import select_trainable

CLASSES = 10


@dataclass(frozen=True)
class Arguments:
    steps: int = 20
    rounds: int = 5
    shards: int = 4
    """Virtual shards of a batch."""
    batch_size: int = 32


def milliseconds(trainable: Literal["bn_classifier", "all"], kind: str, arguments: Arguments, world: World) -> float:
    """A step's, over one round, the slower process counting; and the numbers that a step averages."""
    config = mobilenetv2_imagenette()
    space = make_space(config.space, CLASSES)
    supernet = make_supernet(config.supernet, space, 0, world.device)
    parameters = select_trainable(supernet, trainable)
    recipe = replace(config.warmup.recipe, gradient_sum=kind)  # type: ignore[arg-type]
    optimizer = make_optimizer(supernet, parameters, recipe)
    size = arguments.batch_size // arguments.shards
    images = torch.randn(size, 3, space.input_size, space.input_size)
    labels = torch.arange(size) % CLASSES
    batch = ImageBatch(images, labels, torch.arange(size))
    mine = [(shard, batch) for shard in range(world.rank, arguments.shards, world.size)]
    began = 0.0
    for step in range(arguments.steps + 2):
        if step == 2:
            barrier(world)
            began = time.perf_counter()
        path = supernet.path(path_at(space, step, 0, "fair"))
        train_step(path, optimizer, mine, recipe, image_task(), world, arguments.shards, step)
    barrier(world)
    return 1000.0 * (time.perf_counter() - began) / arguments.steps


def averaged(trainable: Literal["bn_classifier", "all"]) -> int:
    """The mean over paths of how many numbers a step averages."""
    config = mobilenetv2_imagenette()
    space = make_space(config.space, CLASSES)
    supernet = make_supernet(config.supernet, space, 0, torch.device("cpu"))
    select_trainable(supernet, trainable)
    paths = [supernet.path(path_at(space, step, 0, "fair")) for step in range(14)]
    return round(statistics.mean(sum(p.numel() for p in path.parameters() if p.requires_grad) for path in paths))


def main() -> int:
    arguments = tyro.cli(Arguments, description=__doc__)
    torch.set_num_threads(1)
    with joined_world() as world:
        if world.is_main:
            print(f"MobileNetV2 space, a quarter of the width, 64 px, batch {arguments.batch_size}, {world.size} ranks")
        for trainable in ("bn_classifier", "all"):
            numbers = averaged(trainable)  # type: ignore[arg-type]
            seen: dict[str, list[float]] = {"fixed_order": [], "all_reduce": []}
            for _ in range(arguments.rounds):
                for kind, times in seen.items():
                    times.append(milliseconds(trainable, kind, arguments, world))  # type: ignore[arg-type]
            if not world.is_main:
                continue
            ratios = [a / b for a, b in zip(seen["fixed_order"], seen["all_reduce"], strict=True)]
            received = {"fixed_order": arguments.shards * numbers, "all_reduce": 2 * numbers}
            print(f"{trainable}: {numbers:,} numbers a step")
            for kind, times in seen.items():
                mib = 4 * received[kind] * (world.size - 1) / world.size / 2**20
                print(
                    f"  {kind:12} {statistics.median(times):7.1f} ms a step ({min(times):.1f} to {max(times):.1f}), "
                    f"about {mib:.2f} MiB received"
                )
            print(f"  ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
