"""What weight sharing costs: ratios measured side by side, interleaved, in one run.

    python benchmarks/training_speed.py [--repetitions 9]

1. One training step through the supernet against the same step of the extracted subnet (wanted: at most 1.05).
2. A BatchNorm-only step against an all-weights step (at most 0.75), and the peak memory of each in a process of its
own. 3. The share of a one-shot search's time that is not forward passes (at most 0.05).

MobileNetV2 space at 64 pixels, half width, batch 64, one thread; on a GPU, where there is one, with batch 256 in
bfloat16 at 224 pixels and full width, and images a second beside it.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from torch import nn

from subshot.data.batch import ImageBatch
from subshot.launch.vision.build import on_device
from subshot.search.evaluator import FunctionEvaluator
from subshot.search.evolution import EvolutionConfig, init, run_to_end
from subshot.search.sampling import LegalSampler
from subshot.supernet import SPACES
from subshot.supernet.base import extract
from subshot.supernet.network import ChainNetwork, ChainSupernet
from subshot.supernet.space import Genotype, sample
from subshot.train.dist import World
from subshot.train.evaluate import OneShot
from subshot.train.fit import train_step
from subshot.train.recipe import Recipe, make_optimizer
from subshot.train.task import image_task
from subshot.train.trainable import Trainable, select_trainable


@dataclass(frozen=True)
class Arguments:
    repetitions: int = 9
    memory_of: Trainable | None = None
    """Used by the benchmark itself: runs steps of this kind and prints the peak memory of the process in MiB."""


@dataclass(frozen=True)
class Setting:
    """Where and how large."""

    device: torch.device
    batch_size: int
    size: int
    width: float
    recipe: Recipe

    def supernet(self) -> ChainSupernet:
        space = SPACES["mobilenetv2"](self.size, 10, self.width, 1 if self.size < 224 else 0)
        return on_device(ChainSupernet(space), self.device)

    def batch(self) -> ImageBatch:
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(self.batch_size, 3, self.size, self.size, generator=generator)
        labels = torch.randint(10, (self.batch_size,), generator=generator)
        batch = ImageBatch(images.contiguous(memory_format=torch.channels_last), labels, torch.arange(len(labels)))
        return batch.to(self.device)

    def step(self, model: nn.Module, optimizer: torch.optim.Optimizer, batch: ImageBatch) -> None:
        world = World(0, 1, self.device)
        train_step(model, optimizer, [(0, batch)], self.recipe, image_task(), world, num_shards=1)
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def here() -> Setting:
    recipe = Recipe(epochs=1, learning_rate=0.01)
    if torch.cuda.is_available():
        return Setting(torch.device("cuda"), 256, 224, 1.0, replace(recipe, precision="bfloat16"))
    return Setting(torch.device("cpu"), 64, 64, 0.5, recipe)


def interleaved(
    first: Callable[[], None], second: Callable[[], None], repetitions: int
) -> tuple[np.ndarray, np.ndarray]:
    """Seconds of each, taken in turn after a warm-up of both."""
    first()
    second()
    seconds: list[list[float]] = [[], []]
    for _ in range(repetitions):
        for place, run in enumerate((first, second)):
            began = time.perf_counter()
            run()
            seconds[place].append(time.perf_counter() - began)
    return np.array(seconds[0]), np.array(seconds[1])


def report(name: str, first: np.ndarray, second: np.ndarray, wanted: float) -> None:
    ratios = first / second
    print(
        f"{name}: ratio {np.median(ratios):.3f} (range {ratios.min():.3f} to {ratios.max():.3f}; "
        f"wanted at most {wanted}); medians {1e3 * np.median(first):.1f} and {1e3 * np.median(second):.1f} ms",
        flush=True,
    )


def against_extracted(setting: Setting, repetitions: int) -> None:
    supernet, batch = setting.supernet(), setting.batch()
    genotype = sample(supernet.space, random.Random(1))
    subnet = extract(supernet, genotype)
    shared = make_optimizer(supernet, list(supernet.parameters()), setting.recipe)
    own = make_optimizer(subnet, list(subnet.parameters()), setting.recipe)
    first, second = interleaved(
        lambda: setting.step(supernet.path(genotype), shared, batch),
        lambda: setting.step(subnet, own, batch),
        repetitions,
    )
    report("supernet step / extracted subnet's step", first, second, 1.05)
    if setting.device.type == "cuda":
        print(f"    {setting.batch_size / np.median(first):,.0f} images a second at {setting.size} pixels in bfloat16")


def batchnorm_only(setting: Setting, repetitions: int) -> None:
    batch = setting.batch()
    steps = []
    for mode in ("bn_classifier", "all"):
        supernet = setting.supernet()
        genotype = sample(supernet.space, random.Random(1))
        optimizer = make_optimizer(supernet, select_trainable(supernet, mode), setting.recipe)
        steps.append(lambda s=supernet, o=optimizer, g=genotype: setting.step(s.path(g), o, batch))
    report("BatchNorm-only step / all-weights step", *interleaved(steps[0], steps[1], repetitions), 0.75)
    peaks = []
    for mode in ("bn_classifier", "all"):
        command = [sys.executable, __file__, "--memory-of", mode]
        environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}  # freed memory leaves the process at once
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        peaks.append(float(done.stdout))
    ratio = peaks[0] / peaks[1]
    print(f"    peak memory {peaks[0]:.0f} MiB against {peaks[1]:.0f} MiB, ratio {ratio:.3f} (wanted below 1)")


def peak_memory_mib(setting: Setting, mode: Trainable) -> float:
    """Of the device, or of this process (which holds Python and the libraries too)."""
    supernet = setting.supernet()
    genotype = sample(supernet.space, random.Random(1))
    optimizer = make_optimizer(supernet, select_trainable(supernet, mode), setting.recipe)
    for _ in range(3):
        setting.step(supernet.path(genotype), optimizer, setting.batch())
    if setting.device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status").read_text()  # getrusage's peak would be that of the process which started this
    return float(status.split("VmHWM:")[1].split()[0]) / 2**10


class Stopwatch(nn.Module):
    """A network, and the seconds that its forward passes took, added up over all copies."""

    seconds = 0.0

    def __init__(self, network: ChainNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        began = time.perf_counter()
        logits: torch.Tensor = self.network(images)
        if images.is_cuda:
            torch.cuda.synchronize()
        Stopwatch.seconds += time.perf_counter() - began
        return logits


@dataclass(frozen=True)
class Timed:
    """A supernet whose paths are timed."""

    supernet: ChainSupernet

    @property
    def space(self) -> Any:
        return self.supernet.space

    def __call__(self, batch: Any, genotype: Genotype) -> torch.Tensor:
        logits: torch.Tensor = self.supernet(batch, genotype)
        return logits

    def path(self, genotype: Genotype) -> nn.Module:
        return Stopwatch(self.supernet.path(genotype))


def search_overhead(setting: Setting) -> None:
    """A real one-shot search: 60 candidates, each on 4 batches of calibration and 4 of validation."""
    supernet, batch = setting.supernet(), setting.batch()
    one_shot = OneShot(Timed(supernet), [batch] * 4, [batch] * 4, image_task())
    config = EvolutionConfig(budget=60, population=20, sample=5, children=10)
    began = time.perf_counter()
    run_to_end(config, LegalSampler(supernet.space), init(0), FunctionEvaluator(one_shot))
    total = time.perf_counter() - began
    share = 1 - Stopwatch.seconds / total
    print(f"one-shot search, time outside forward passes: {share:.3f} of {total:.1f} s (wanted at most 0.05)")


def main() -> None:
    arguments = tyro.cli(Arguments, description=__doc__)
    torch.set_num_threads(1)
    setting = here()
    if arguments.memory_of is not None:
        print(peak_memory_mib(setting, arguments.memory_of))
        return
    against_extracted(setting, arguments.repetitions)
    batchnorm_only(setting, arguments.repetitions)
    search_overhead(setting)


if __name__ == "__main__":
    main()
