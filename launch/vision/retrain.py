"""Retraining of a run on images: winners and random networks of their cost, from scratch, each tested once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from scipy.stats import binomtest
from torch import nn

from subshot.data.image_folder import ImageFolder
from subshot.launch.config import ImageRunConfig, differences, to_json
from subshot.launch.domain import RetrainPlan
from subshot.launch.job import claimed_by_main
from subshot.launch.manifest import Element, Manifest, hash_of, numbered
from subshot.launch.run_log import RunLog
from subshot.launch.vision.build import (
    Builder,
    ImageSpace,
    eval_loader,
    first_images,
    on_device,
    retrain_loader,
    scan_images,
)
from subshot.launch.vision.winner import image_handover
from subshot.launch.winners.handover import write_winner
from subshot.supernet.space import Genotype, validated
from subshot.train.checkpoint import load_checkpoint, remove_checkpoints, save_checkpoint
from subshot.train.dist import World, barrier, of_main
from subshot.train.ema import RunningAverage
from subshot.train.evaluate import evaluate_accuracy
from subshot.train.fit import checkpoint_state, fit, restore_state
from subshot.train.recipe import make_optimizer
from subshot.train.run_dir import RunDir, read_json, require_replaceable
from subshot.train.stopping import Preempted, stopped_at
from subshot.train.task import image_task
from subshot.train.winner_dir import WinnerDir

GOLDEN_IMAGES = 8


@dataclass(frozen=True)
class Retraining:
    """What all trainings from scratch of a run on images have in common. build: a network at its initialisation."""

    config: ImageRunConfig
    space: ImageSpace
    build: Builder
    world: World

    @cached_property
    def images(self) -> tuple[ImageFolder, ImageFolder]:
        """(All training images, the untouched ones)."""
        return scan_images(self.config, self.world)

    def settings_of(self, genotype: Genotype, seed: int) -> dict[str, Any]:
        """What a finished training must have been made with to be taken as it is."""
        train, _ = self.images
        settings = {"genotype": list(genotype), "seed": seed, "run_seed": self.config.seed, "data": train.fingerprint}
        return settings | {"space": to_json(self.config.space), **to_json(self.config.retrain)}


def manifest(summary: dict[str, Any], top: int, controls: int, seeds: int) -> tuple[Element, ...]:
    """Winners by rank (1, 2, ...), then controls (random-1, ...), each with every seed."""
    chosen = [("winner", str(rank), found) for rank, found in enumerate(summary["best"][:top], start=1)]
    chosen += [("control", f"random-{i}", found) for i, found in enumerate(summary["controls"][:controls], start=1)]
    lines = []
    for role, network, found in chosen:
        for seed in range(seeds):
            name = network if seed == 0 else f"{network}-seed{seed}"
            lines.append(
                {
                    "name": name,
                    "network": network,
                    "role": role,
                    "genotype": tuple(found["genotype"]),
                    "genotype_hash": found["hash"],
                    "seed": seed,
                    "learning_rate": None,
                    "score": found["score"],
                    "result": f"winners/{name}/metrics.json",
                }
            )
    return numbered(lines)


def planned(plan: RetrainPlan, config: ImageRunConfig, data: dict[str, Any], run: RunDir) -> Manifest:
    """What the plan asks for; by default the winner and three random networks, once each."""
    top, controls, seeds = plan.top or 1, 3 if plan.controls is None else plan.controls, plan.seeds or 1
    elements = manifest(read_json(run.summary_json), top, controls, seeds)
    return Manifest(trainings_hash(config, data), "test/accuracy", elements)


def trainings_hash(config: ImageRunConfig, data: dict[str, Any]) -> str:
    """Of all that a training from scratch depends on, beside its network and seed. data: the images' fingerprint."""
    return hash_of([to_json(config.retrain), to_json(config.space), config.images.on_bad_image, config.seed, data])


def retrain(elements: Sequence[Element], retraining: Retraining, run: RunDir, log: RunLog) -> Path:
    """Trains and tests each; returns the first one's folder."""
    world = retraining.world
    for element in elements:
        with claimed_by_main(run.claim_json(f"training-{element.name}"), f"the training of {element.name}", world):
            train_one(element, retraining, run, log)
    if world.is_main:
        for line in results(run, [element.name for element in elements]):
            log.line(line)
    return run.winner(elements[0].name).root


def results(run: RunDir, names: list[str]) -> list[str]:
    """What was trained, a line each, and in one sentence whether the winner is better than the random networks."""
    found = [
        (read_json(run.winner(name).metrics_json), read_json(run.winner(name).architecture_json)) for name in names
    ]
    lines = [f"{'network':12}{'test accuracy (95 % interval)':32}{'M MACs':>8}  operations"]
    for metrics, architecture in found:
        low, high = metrics["test/interval_95"]
        accuracy = f"{metrics['test/accuracy']:.4f} ({low:.4f} to {high:.4f})"
        macs = architecture["costs"]["macs"] / 1e6
        lines.append(f"{metrics['name']:12}{accuracy:32}{macs:8.2f}  {architecture['words']}")
    winner = [m["test/accuracy"] for m, _ in found if m["name"].split("-seed")[0] == "1"]
    controls = [m["test/accuracy"] for m, _ in found if m["role"] == "control"]
    if winner and controls:
        gain = 100 * (sum(winner) / len(winner) - sum(controls) / len(controls))
        low, high = found[0][0]["test/interval_95"]
        half = 50 * (high - low)
        verdict = "more than" if abs(gain) > half else "no more than"
        lines.append(
            f"the winner ({counted(winner)}) is {gain:+.2f} points from the mean of random networks of its cost "
            f"({counted(controls)}): {verdict} its own test's uncertainty of {half:.2f} points"
        )
    return lines


def counted(trainings: list[float]) -> str:
    return f"{len(trainings)} training" + ("" if len(trainings) == 1 else "s")


def trained(job: Element, retraining: Retraining, run: RunDir, log: RunLog) -> tuple[nn.Module, dict[str, Any]]:
    """(the network, trained on all training images from its last checkpoint on; its metrics on the untouched ones)."""
    config, space, world, (train, test) = retraining.config, retraining.space, retraining.world, retraining.images
    assert job.genotype is not None, "no baselines among images"
    settings = retraining.settings_of(job.genotype, job.seed)
    network = on_device(retraining.build(validated(space, job.genotype), training_seed(config, job)), world.device)
    tested = _fit(job, network, retraining, settings, run, log)
    test_loader = eval_loader(config.images, test, space.input_size, world)
    accuracy, count = evaluate_accuracy(tested, test_loader, image_task(), world)
    interval = binomtest(round(accuracy * count), count).proportion_ci(method="wilson")
    metrics = {
        "name": job.name,
        "role": job.role,
        "seed": job.seed,
        "epochs": config.retrain.recipe.epochs,
        "train_images": len(train),
        "search/score": job.score,
        "test/accuracy": accuracy,
        "test/n": count,
        "test/interval_95": [interval.low, interval.high],
        "settings": settings,
    }
    log.line(f"{job.name}: test accuracy {accuracy:.4f} [{interval.low:.4f}, {interval.high:.4f}] on {count} images")
    return tested, metrics


def train_one(job: Element, retraining: Retraining, run: RunDir, log: RunLog) -> None:
    """Trains one network on all training images, tests it once on the untouched ones, writes its folder."""
    config, space, world, (train, test) = retraining.config, retraining.space, retraining.world, retraining.images
    folder = run.winner(job.name)
    assert job.genotype is not None, "no baselines among images"
    settings = retraining.settings_of(job.genotype, job.seed)
    require_replaceable(folder.root)
    if of_main(folder.checksums.is_file(), world):
        require_same(read_json(folder.metrics_json)["settings"], settings, folder)
        if world.is_main:
            remove_checkpoints(run.checkpoints, checkpoint_name(job))
        log.line(f"{job.name}: trained already")
        return
    genotype = validated(space, job.genotype)
    tested, metrics = trained(job, retraining, run, log)
    if world.is_main:
        golden = eval_loader(
            config.images, first_images(test, GOLDEN_IMAGES, config.seed), space.input_size, world, rank=0, ranks=1
        )
        sample = next(iter(golden)).to(torch.device("cpu"))
        tested = tested.cpu().eval()
        handed = image_handover(tested, config, space, genotype, train.classes, sample, metrics, run)
        write_winner(folder, handed)
        remove_checkpoints(run.checkpoints, checkpoint_name(job))
    barrier(world)


def checkpoint_name(job: Element) -> str:
    return f"retrain-{job.name}"


def training_seed(config: ImageRunConfig, job: Element) -> int:
    """Of initial weights, image order, augmentation and dropout; far from the seeds of the search."""
    return config.seed + 1000 * (job.seed + 1)


def require_same(saved: dict[str, Any], wanted: dict[str, Any], folder: WinnerDir) -> None:
    """Raises ValueError where a network was trained, wholly or in part, with other settings than the present ones."""
    changed = differences(saved, wanted)
    if changed:
        listed = "; ".join(changed)
        raise ValueError(
            f"{folder.root} was trained with other settings ({listed}); use the same, or delete that folder"
        )


def _fit(
    job: Element, network: nn.Module, retraining: Retraining, settings: dict[str, Any], run: RunDir, log: RunLog
) -> nn.Module:
    """Trains to the end of the recipe, from the last checkpoint if there is one. Returns what is to be
    tested."""
    config, world = retraining.config, retraining.world
    recipe = config.retrain.recipe
    seed = training_seed(config, job)
    loader = retrain_loader(config, retraining.images[0], seed, world)
    optimizer = make_optimizer(network, list(network.parameters()), recipe)
    average = RunningAverage(network, recipe.ema_decay) if recipe.ema_decay else None
    checkpoints, kept_as, start = run.checkpoints, checkpoint_name(job), 0
    state = load_checkpoint(checkpoints, kept_as, world, log.line)
    if state is not None:
        require_same(json.loads(state["settings"]), settings, run.winner(job.name))
        start = restore_state(state, network, optimizer)
        if average is not None:
            average.network.load_state_dict(state["average"])
        log.line(f"{job.name}: continues after step {start}")
    total = recipe.epochs * loader.steps_per_epoch
    steps = fit(
        lambda step: network,
        optimizer,
        loader,
        recipe,
        image_task(recipe.label_smoothing),
        world,
        config.retrain.num_shards,
        start,
        seed,
    )
    for result in log.progress(steps, total, f"retrain {job.name}", start):
        if average is not None:
            average.update(network, result.step)
        done = result.step + 1
        if done % loader.steps_per_epoch == 0:
            numbers = {"epoch": result.epoch, "train/loss": result.loss, "train/accuracy": result.accuracy}
            rates = {"learning_rate": result.learning_rate, "images_per_second": loader.batch_size / result.seconds}
            log.numbers(f"retrain/{job.name}", done, numbers | rates)
        if world.is_main and (result.save or done % loader.steps_per_epoch == 0):
            state = checkpoint_state(done, network, optimizer) | {"settings": json.dumps(settings)}
            if average is not None:
                state["average"] = average.network.state_dict()
            save_checkpoint(checkpoints, kept_as, done, state)
        if result.save:
            world.marks.saved()
            barrier(world)  # a launcher gives processes that stay little time after the first has left
        if result.stop and done < total:
            raise Preempted(stopped_at(world.marks, f"step {done} of {total} of {job.name}"))
    return network if average is None else average.network
