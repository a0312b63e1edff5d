"""What is of vision in a run: the space, the supernet, the images and the task that a configuration names.

A training-free run shares the images, the loaders and what stands before its networks in retraining.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from subshot.data.digits import write_digits
from subshot.data.image_folder import ImageFolder, scan, split_train
from subshot.data.imagenet import DIGITS, IMAGENET, NONE, SMALL_PHOTO, Augmentation, EvalLoader, TrainLoader
from subshot.launch.config import (
    ImageRunConfig,
    LimitsConfig,
    ReadImagesConfig,
    RetrainConfig,
    SpaceConfig,
    SupernetConfig,
    VisionConfig,
)
from subshot.launch.latency_tables.table import read_latency_table
from subshot.launch.own_space import build_space
from subshot.search.objectives import Constraint, Limit, Objective, constraints_of
from subshot.supernet.chain import ChainSpace
from subshot.supernet.cost import Cost, activation_mib
from subshot.supernet.isometry import initialise, initialise_network
from subshot.supernet.network import ChainSupernet, build_network
from subshot.supernet.space import Additive, Genotype, SearchSpace
from subshot.train.dist import World, barrier
from subshot.train.fit import seeded

Network = TypeVar("Network", bound=nn.Module)


class ImageSpace(SearchSpace, Protocol):
    """What retraining and handing over need to know of a space of networks for images."""

    @property
    def input_size(self) -> int: ...

    @property
    def classes(self) -> int: ...

    def cost(self, genotype: Genotype) -> Cost: ...


Builder = Callable[[Genotype, int], nn.Module]
"""(canonical genotype, seed) to the stand-alone network, its initial weights drawn from the seed, on the CPU."""

AUGMENTATIONS: dict[str, Augmentation] = {
    "imagenet": IMAGENET,
    "small_photo": SMALL_PHOTO,
    "digits": DIGITS,
    "none": NONE,
}


@dataclass(frozen=True)
class Images:
    """The splits of a run. train and search are parts of the train folders; val is the untouched test."""

    train: ImageFolder
    search: ImageFolder
    val: ImageFolder

    @property
    def classes(self) -> tuple[str, ...]:
        return self.train.classes


def images_root(config: ImageRunConfig, world: World) -> Path:
    """The folder of the run's images; the `digits` preset writes its own first, to runs/data/digits."""
    if config.data is not None:
        return config.data
    if config.preset != "digits":
        raise ValueError(
            f"the preset {config.preset} needs images: add --data PATH, a folder with train/<class>/ and val/<class>/"
        )
    root = Path("runs/data/digits")
    if world.is_main:
        write_digits(root)
    barrier(world)
    return root


def scan_images(config: ImageRunConfig, world: World) -> tuple[ImageFolder, ImageFolder]:
    """(train, val). Raises DataError where the folder is not of the form train/<class>/, val/<class>/."""
    root, bad = images_root(config, world), config.images.on_bad_image
    return scan(root, "train", on_bad_image=bad), scan(root, "val", on_bad_image=bad)


def open_images(config: VisionConfig, world: World) -> Images:
    """The splits of a supernet's run; raises as `scan_images` does."""
    train, val = scan_images(config, world)
    return Images(*split_train(train, config.images.search_fraction, config.seed), val)


def fingerprint_of(*folders: ImageFolder) -> dict[str, Any]:
    """What the images of some splits are, by their names and sizes."""
    return {
        "classes": len(folders[0].classes),
        "images": {folder.split: len(folder) for folder in folders},
        "sha256": {folder.split: folder.fingerprint for folder in folders},
    }


def make_space(config: SpaceConfig, classes: int) -> ChainSpace:
    return build_space(config, classes)


def make_supernet(config: SupernetConfig, space: ChainSpace, seed: int, device: torch.device) -> ChainSupernet:
    """Built and initialised on the CPU, so that the weights do not depend on the device; then moved there."""
    supernet = ChainSupernet(space, config.branch, config.identity_bn, config.activation)
    initialise(supernet, config.construction, torch.Generator().manual_seed(seed), config.branch_gamma)
    return on_device(supernet, device)


def chain_builder(retrain: RetrainConfig, space: ChainSpace) -> Builder:
    def build(genotype: Genotype, seed: int) -> nn.Module:
        with seeded(seed, torch.device("cpu")):
            network = build_network(space.decode(genotype), retrain.recipe.dropout)
        if retrain.construction != "torch":
            initialise_network(network, space.input_size, retrain.construction, torch.Generator().manual_seed(seed))
        return network

    return build


def on_device(network: Network, device: torch.device) -> Network:
    """On the device, with weights channels-last: depthwise convolutions take half the time so, also on CPUs."""
    nn.utils.convert_conv2d_weight_memory_format(network.to(device), torch.channels_last)
    return network


def make_constraints(limits: LimitsConfig, space: ChainSpace) -> tuple[Constraint, ...]:
    """Raises ImpossibleLimit, with the minimum that the space reaches, where no network meets a limit."""
    per_mib = 1.0 / activation_mib(1.0)
    costs, latency = dict(space.costs), latency_of(limits, space)
    if latency is not None:
        costs["latency_ms"] = latency
    elif limits.max_latency_ms:
        raise ValueError("a limit on latency_ms needs --limits.latency-table FILE; launch/latency.py measures one")
    bounds = {
        "macs": (limits.max_macs, limits.min_macs),
        "params": (limits.max_params, 0.0),
        "activation_elements": (limits.max_activation_mib * per_mib, 0.0),
        "latency_ms": (limits.max_latency_ms, 0.0),
    }
    objectives = [
        Objective(name, maximize=False, limit=Limit(name, high or None, low or None))
        for name, (high, low) in bounds.items()
        if high or low
    ]
    return constraints_of(objectives, costs)


def latency_of(limits: LimitsConfig, space: ChainSpace) -> Additive | None:
    """Milliseconds by the run's table; None where it has none."""
    return None if limits.latency_table is None else read_latency_table(limits.latency_table, space)


def device_id(world: World) -> int | None:
    """DALI's name of the device: None is the CPU."""
    return world.device.index if world.device.type == "cuda" else None


def warmup_loader(config: VisionConfig, folder: ImageFolder, world: World) -> TrainLoader:
    images = config.images
    return TrainLoader(
        folder,
        size=config.space.input_size,
        augmentation=AUGMENTATIONS[images.augmentation],
        batch_size=images.batch_size,
        num_shards=images.num_shards,
        seed=config.seed,
        rank=world.rank,
        world=world.size,
        num_threads=images.num_threads,
        device_id=device_id(world),
    )


def retrain_loader(config: ImageRunConfig, folder: ImageFolder, seed: int, world: World) -> TrainLoader:
    retrain = config.retrain
    return TrainLoader(
        folder,
        size=config.space.input_size,
        augmentation=retrain_augmentation(retrain),
        batch_size=retrain.batch_size,
        num_shards=retrain.num_shards,
        seed=seed,
        rank=world.rank,
        world=world.size,
        num_threads=config.images.num_threads,
        device_id=device_id(world),
    )


def retrain_augmentation(retrain: RetrainConfig) -> Augmentation:
    return replace(
        AUGMENTATIONS[retrain.augmentation],
        random_operations=retrain.random_operations,
        random_magnitude=retrain.random_magnitude,
    )


def eval_loader(
    images: ReadImagesConfig,
    folder: ImageFolder,
    size: int,
    world: World,
    rank: int | None = None,
    ranks: int | None = None,
) -> EvalLoader:
    """This rank's share of a split, in evaluation form; rank 0 of ranks 1 for all of it on every rank."""
    return EvalLoader(
        folder,
        size=size,
        crop_ratio=images.crop_ratio,
        batch_size=images.eval_batch_size,
        rank=world.rank if rank is None else rank,
        world=world.size if ranks is None else ranks,
        num_threads=images.num_threads,
        device_id=device_id(world),
    )


def first_images(folder: ImageFolder, count: int, seed: int) -> ImageFolder:
    """A seeded subset of `count` images (0: all of them), in a shuffled order, so that its batches are mixed."""
    order = torch.randperm(len(folder), generator=torch.Generator().manual_seed(seed)).tolist()
    chosen = order[: count or len(folder)]
    return replace(
        folder,
        paths=tuple(folder.paths[index] for index in chosen),
        labels=tuple(folder.labels[index] for index in chosen),
    )


def proxy_batches(
    config: ImageRunConfig, train: ImageFolder, batch_size: int, batches: int, world: World
) -> tuple[tuple[Tensor, Tensor], ...]:
    """(images, labels): a seeded draw of training images as evaluation shows them; the same on every process."""
    if len(train) < batches * batch_size:
        raise ValueError(f"the proxies read {batches} x {batch_size} training images, and there are {len(train)}")
    shown = replace(config.images, eval_batch_size=batch_size)
    drawn = first_images(train, batches * batch_size, config.seed)
    loader = eval_loader(shown, drawn, config.space.input_size, world, rank=0, ranks=1)
    return tuple((batch.images.contiguous(), batch.labels) for batch in loader)
