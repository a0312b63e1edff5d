"""What a dry run measures of a vision run: warm-up steps of a small, a median and the largest path, and one-shot
scoring."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from subshot.launch.config import RetrainConfig, VisionConfig
from subshot.launch.domain import Networks
from subshot.launch.plan import (
    CHECKPOINTS,
    SAMPLE,
    Measured,
    Scoring,
    WarmUp,
    candidates_of,
    history_bytes,
    own_scorings,
)
from subshot.launch.plan_timing import (
    SIZES,
    Say,
    Sized,
    gradient_copies,
    peak_mib,
    tensor_bytes,
    timed_steps,
)
from subshot.launch.vision.build import make_supernet, warmup_loader
from subshot.launch.vision.domain import VisionDomain
from subshot.search.evaluator import Score
from subshot.supernet.chain import ChainSpace
from subshot.supernet.network import ChainSupernet
from subshot.supernet.space import Genotype
from subshot.train.dist import World
from subshot.train.paths import path_at
from subshot.train.recipe import Recipe, make_optimizer
from subshot.train.run_dir import json_line
from subshot.train.task import image_task
from subshot.train.trainable import select_trainable

NETWORKS_RETRAINED = 4
"""launch/retrain.py's winner and random networks, as it trains them without options."""


def measure(config: VisionConfig, domain: VisionDomain, world: World, say: Say) -> Measured:
    supernet = make_supernet(config.supernet, domain.space, config.seed, world.device)
    parameters = select_trainable(supernet, config.warmup.trainable)
    warm_up, sizes = _warm_up(config, domain, supernet, parameters, world, say)
    candidates = candidates_of(domain, config.seed)
    scoring: Scoring | None = None
    found: Sequence[tuple[Genotype, Score]] = [(genotype, 1 / 3) for genotype in candidates]
    if config.score.kind == "one_shot":
        say("reading the images that score subnets")
        timed = own_scorings(domain, supernet, candidates, world, say)
        scoring, found = Scoring(0, 2 * config.evolution.budget, timed), timed.scores
    trained = sum(p.numel() * p.element_size() for p in parameters)
    largest = supernet.path(sizes[2].chosen)
    gradient = sum(p.numel() * p.element_size() for p in largest.parameters() if p.requires_grad)
    state = optimizer_copies(config.warmup.recipe) * trained
    copies = gradient_copies(config.warmup.recipe, config.images.num_shards, world.size)
    memory = {
        "weights": tensor_bytes(supernet) / 2**20,
        f"gradients of the largest path, {copies} times": copies * gradient / 2**20,
        "optimiser's state": state / 2**20,
    }
    steps = 0 if warm_up is None else warm_up.steps
    disk = {
        "supernet.safetensors": tensor_bytes(supernet),
        CHECKPOINTS: 3 * (tensor_bytes(supernet) + state) if steps else 0,
        "paths.jsonl": steps * (len(json_line({"path": list(sizes[2].chosen), "loss": 1 / 3})) + 1),
        "history.jsonl": history_bytes(config, domain, found),
        **retraining_bytes(config.retrain, domain, candidates),
    }
    return Measured(warm_up, scoring, memory, peak_mib(world), disk)


def _warm_up(
    config: VisionConfig,
    domain: VisionDomain,
    supernet: ChainSupernet,
    parameters: list[torch.nn.Parameter],
    world: World,
    say: Say,
) -> tuple[WarmUp | None, tuple[Sized, ...]]:
    """The timed steps, None where nothing is trained; and the three paths."""
    recipe, images = config.warmup.recipe, config.images
    sizes = three_paths(domain.space, config)
    if recipe.epochs == 0:
        return None, sizes
    loader = warmup_loader(config, domain.images.train, world)
    timed = timed_steps(
        sizes,
        supernet.path,
        make_optimizer(supernet, parameters, recipe),
        loader,
        recipe,
        image_task(recipe.label_smoothing),
        world,
        images.num_shards,
        say,
    )
    return WarmUp("images", recipe.epochs, loader.steps_per_epoch, images.batch_size, images.num_shards, timed), sizes


def three_paths(space: ChainSpace, config: VisionConfig) -> tuple[Sized, ...]:
    """The cheapest choice of every decision, the median of the warm-up's own first paths, the dearest choices."""
    macs = space.costs["macs"]
    paths = [path_at(space, step, config.seed, config.warmup.sampling) for step in range(SAMPLE)]
    chosen = (
        tuple(int(np.argmin(row)) for row in macs.table),
        sorted(paths, key=macs)[len(paths) // 2],
        tuple(int(np.argmax(row)) for row in macs.table),
    )
    return tuple(Sized(size, round(macs(path)), path) for size, path in zip(SIZES, chosen, strict=True))


def optimizer_copies(recipe: Recipe) -> int:
    """Numbers that the optimiser keeps for each one that it trains."""
    return {"sgd": 1 if recipe.momentum else 0, "adam": 2, "adagrad": 1}[recipe.optimizer]


def retraining_bytes(retrain: RetrainConfig, networks: Networks, candidates: list[Genotype]) -> dict[str, int]:
    """Folders of launch/retrain.py for the largest of the candidates, by name: weights and ONNX program of each, and
    one checkpoint while it trains."""
    weights = 4 * round(max(networks.costs(genotype)["params"] for genotype in candidates))
    checkpoint = weights * (1 + optimizer_copies(retrain.recipe) + bool(retrain.recipe.ema_decay))
    return {
        f"{NETWORKS_RETRAINED} retrained networks, if large": NETWORKS_RETRAINED * 2 * weights,
        "a retraining's checkpoint, one that is kept and one that is being written": 2 * checkpoint,
    }
