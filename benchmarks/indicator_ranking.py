"""Which score of a warmed-up supernet ranks networks? NAS-Bench-Macro answers: all of its 6,561 networks were trained.

    python benchmarks/indicator_ranking.py --data SHARED_DATA [--variants di,kaiming] [--seeds 3] [--steps 1000]
    [--out FILE]

SHARED_DATA holds nasbench_macro_cifar10.csv.gz and cifar10_train10k.npz. Every variant trains one supernet a seed,
from scratch, on 9,000 images (shrunk to --size pixels), and prints Kendall's tau-b with the table's mean accuracy
over all 6,561 strings for each rule that it can give, and for one-shot accuracy on a sample of networks (1,000
held-out images) beside the closed-form baselines there. One line of JSON a variant and seed is appended to --out.
"""

from __future__ import annotations

import csv
import gzip
import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from torch.nn import functional as F

from subshot.data.batch import ImageBatch
from subshot.launch.config import SupernetConfig
from subshot.launch.vision.build import make_supernet
from subshot.search.main_effects import main_effects, negated, path_loss_and_activations, reliability
from subshot.search.ranking import bootstrap, kendall
from subshot.supernet.chain import ChainSpace
from subshot.supernet.indicators import NEEDS_BRANCH, RULES, indicator_score, read_indicators
from subshot.supernet.nasbench_macro import nasbench_macro
from subshot.supernet.network import ChainSupernet
from subshot.supernet.space import Genotype
from subshot.train.dist import World
from subshot.train.evaluate import OneShot
from subshot.train.fit import fit
from subshot.train.paths import Sampling, path_at
from subshot.train.recipe import Recipe, make_optimizer
from subshot.train.task import image_task
from subshot.train.trainable import Trainable, select_trainable


@dataclass(frozen=True)
class Variant:
    """One way to build and train the supernet."""

    supernet: SupernetConfig
    trainable: Trainable = "bn_classifier"
    sampling: Sampling = "fair"
    optimizer: str = "adam"
    learning_rate: float = 0.01


DI, KAIMING = SupernetConfig(construction="blend"), SupernetConfig(construction="kaiming")
VARIANTS = {
    "di": Variant(DI),
    "di+layer": Variant(SupernetConfig(construction="blend", branch="projected")),
    "kaiming": Variant(KAIMING),
    "kaiming+layer": Variant(SupernetConfig(construction="kaiming", branch="projected")),
    "di+layer0": Variant(SupernetConfig(construction="blend", branch="projected", branch_gamma=0.0)),
    "di+identity-bn": Variant(SupernetConfig(construction="blend", identity_bn=True)),
    "di-tanh": Variant(SupernetConfig(construction="blend", activation="scaled_tanh")),
    "di-delta": Variant(SupernetConfig(construction="delta")),
    "di-shift": Variant(SupernetConfig(construction="shift")),
    "di-large-steps": Variant(DI, learning_rate=0.05),
    "di+layer-large-steps": Variant(SupernetConfig(construction="blend", branch="projected"), learning_rate=0.05),
    "di-uniform": Variant(DI, sampling="uniform"),
    "bnnas": Variant(KAIMING, trainable="last_bn", sampling="uniform", optimizer="sgd", learning_rate=0.25),
    "all-kaiming": Variant(KAIMING, trainable="all", optimizer="sgd", learning_rate=0.1),
    "all-di": Variant(DI, trainable="all", optimizer="sgd", learning_rate=0.1),
}


@dataclass(frozen=True)
class Arguments:
    data: Path
    """Folder with the table and the images."""
    variants: str = "di,di+layer,kaiming,kaiming+layer,all-kaiming,all-di"
    seeds: int = 3
    first_seed: int = 0
    steps: int = 1000
    batch_size: int = 128
    size: int = 16
    """Pixels of a side that images are shrunk to."""
    sample: int = 150
    """Networks whose one-shot accuracy is measured."""
    out: Path | None = None


@dataclass(frozen=True)
class Table:
    """All networks of the benchmark in canonical form, [6561, 8], with their mean test accuracy in percent and MACs."""

    genotypes: np.ndarray
    accuracy: np.ndarray
    macs: np.ndarray


@dataclass(frozen=True)
class InMemory:
    """Random flips of images [N, 3, H, W] in random order; one virtual shard."""

    images: torch.Tensor
    labels: torch.Tensor
    batch_size: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        return len(self.images) // self.batch_size

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[list[tuple[int, ImageBatch]]]:
        generator = torch.Generator().manual_seed(self.seed * 1000 + epoch)
        order = torch.randperm(len(self.images), generator=generator)
        for step in range(start_step, self.steps_per_epoch):
            indices = order[step * self.batch_size : (step + 1) * self.batch_size]
            flips = torch.rand(len(indices), 1, 1, 1, generator=generator) < 0.5
            images = self.images[indices]
            images = torch.where(flips, images.flip(3), images).contiguous(memory_format=torch.channels_last)
            yield [(0, ImageBatch(images, self.labels[indices], indices))]


def read_table(data: Path, space: ChainSpace) -> Table:
    with gzip.open(data / "nasbench_macro_cifar10.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    canonical = [space.canonical(tuple(int(digit) for digit in row["arch"])) for row in rows]
    accuracy, macs = ([float(row[column]) for row in rows] for column in ("mean_acc", "flops"))
    return Table(np.array(canonical), np.array(accuracy), np.array(macs))


def read_images(data: Path, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    stored = np.load(data / "cifar10_train10k.npz", allow_pickle=False)
    images = torch.from_numpy(stored["images"]).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    images = F.interpolate((images - mean) / std, size=(size, size), mode="area")
    return images.contiguous(memory_format=torch.channels_last), torch.from_numpy(stored["labels"]).long()


def train(
    variant: Variant, supernet: ChainSupernet, loader: InMemory, steps: int, seed: int
) -> tuple[list[Genotype], list[float]]:
    """Trains the supernet; returns each step's path and loss."""
    parameters = select_trainable(supernet, variant.trainable)
    epochs = -(-steps // loader.steps_per_epoch)
    recipe = Recipe(
        epochs,
        variant.learning_rate,
        optimizer="adam" if variant.optimizer == "adam" else "sgd",
        clip_norm=5.0,
    )
    optimizer = make_optimizer(supernet, parameters, recipe)
    paths = [path_at(supernet.space, step, seed, variant.sampling) for step in range(epochs * loader.steps_per_epoch)]
    world = World(0, 1, torch.device("cpu"))
    results = fit(
        lambda step: supernet.path(paths[step]), optimizer, loader, recipe, image_task(0.1), world, num_shards=1
    )
    losses = [result.loss for result in results]
    return paths, losses


def taus_of(
    variant: Variant, arguments: Arguments, seed: int, table: Table, images: torch.Tensor, labels: torch.Tensor
) -> dict[str, float]:
    """Kendall's tau-b of every score that a trained variant gives, and facts about the training."""
    space = nasbench_macro(arguments.size)
    supernet = make_supernet(variant.supernet, space, seed, torch.device("cpu"))
    held_out = 1000
    loader = InMemory(images[held_out:], labels[held_out:], arguments.batch_size, seed)
    start = read_indicators(supernet).block
    paths, losses = train(variant, supernet, loader, arguments.steps, seed)
    found: dict[str, float] = {"steps": len(losses), "train/loss": float(np.mean(losses[-50:]))}
    for statistic in ("mean_abs", "mean", "root_mean_square", "std"):
        indicators = read_indicators(supernet, statistic)
        for rule in RULES:
            if rule in NEEDS_BRANCH and not any(indicators.has_branch):
                continue
            scores = indicator_score(indicators, rule).batch(table.genotypes)
            if np.ptp(scores) > 0:
                found[f"{rule}/{statistic}"] = kendall(table.accuracy, scores)
    block = np.array(read_indicators(supernet).block)
    found["gamma_movement"] = float(np.abs(block - np.array(start)).sum() / np.count_nonzero(start))
    effects = main_effects(space, paths, losses)
    found["path_loss reliability"] = reliability(space, paths, losses)
    both = path_loss_and_activations(effects, found["path_loss reliability"], space.costs["activation_elements"])
    rng = np.random.default_rng(0)
    for name, score in (
        ("block_sum/mean_abs", indicator_score(read_indicators(supernet), "block_sum")),
        ("path_loss", negated(effects)),
        ("path_loss_activations", both),
    ):
        interval = bootstrap(kendall, table.accuracy, score.batch(table.genotypes), rng, resamples=200)
        found |= {name: interval.value, f"{name} low": interval.low, f"{name} high": interval.high}
    found |= one_shot_taus(supernet, table, arguments, images, labels, held_out)
    return found


def one_shot_taus(
    supernet: ChainSupernet,
    table: Table,
    arguments: Arguments,
    images: torch.Tensor,
    labels: torch.Tensor,
    held_out: int,
) -> dict[str, float]:
    """On a sample of distinct networks: inherited accuracy, and closed-form baselines on the same sample."""
    distinct = np.unique(table.genotypes, axis=0, return_index=True)[1]
    chosen = random.Random(0).sample(distinct.tolist(), arguments.sample)
    batches = [
        ImageBatch(images[i : i + 250], labels[i : i + 250], torch.arange(i, i + 250)) for i in range(0, 2000, 250)
    ]
    one_shot = OneShot(supernet, batches[4:6], batches[:4], image_task())
    accuracy = [one_shot(tuple(int(g) for g in table.genotypes[index])) for index in chosen]
    truth = table.accuracy[chosen]
    return {
        "one_shot (sample)": kendall(truth, accuracy),
        "one_shot mean accuracy": float(np.mean(accuracy)),
        "macs (sample)": kendall(truth, table.macs[chosen]),
    }


def main() -> None:
    arguments = tyro.cli(Arguments, description=__doc__)
    torch.set_num_threads(1)
    table = read_table(arguments.data, nasbench_macro())
    images, labels = read_images(arguments.data, arguments.size)
    for name in arguments.variants.split(","):
        for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
            began = time.perf_counter()
            found = taus_of(VARIANTS[name], arguments, seed, table, images, labels)
            seconds = time.perf_counter() - began
            shown = "  ".join(f"{key} {value:.3f}" for key, value in found.items())
            print(f"{name} seed {seed} ({seconds:.0f} s): {shown}", flush=True)
            if arguments.out is not None:
                with arguments.out.open("a") as file:
                    file.write(json.dumps({"variant": name, "seed": seed, "size": arguments.size, **found}) + "\n")


if __name__ == "__main__":
    main()
