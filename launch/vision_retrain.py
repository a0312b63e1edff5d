"""Retraining of a run on images: winners and random networks of their cost, from scratch, each tested once."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from scipy.stats import binomtest
from torch import nn

from subshot.data.image_folder import ImageFolder
from subshot.launch.config import ImageRunConfig, differences, to_json
from subshot.launch.domain import RetrainPlan
from subshot.launch.run_log import RunLog
from subshot.launch.vision import (
    Builder,
    ImageSpace,
    eval_loader,
    first_images,
    on_device,
    retrain_loader,
    scan_images,
)
from subshot.launch.vision_winner import write_winner
from subshot.supernet.space import Genotype, validated
from subshot.train.dist import World, barrier
from subshot.train.ema import RunningAverage
from subshot.train.evaluate import evaluate_accuracy
from subshot.train.fit import checkpoint_state, fit, restore_state
from subshot.train.recipe import make_optimizer
from subshot.train.run_dir import RunDir, WinnerDir, read_json, replacing, write_json
from subshot.train.task import image_task

GOLDEN_IMAGES = 8


@dataclass(frozen=True)
class Job:
    """One training: a line of the manifest. role: winner or control."""

    name: str
    role: str
    genotype: Genotype
    seed: int
    search_score: float | None


def manifest(summary: dict[str, Any], top: int, controls: int, seeds: int) -> list[Job]:
    """Winners by rank (1, 2, ...), then controls (random-1, ...), each with every seed."""
    chosen = [("winner", str(rank), found) for rank, found in enumerate(summary["best"][:top], start=1)]
    chosen += [("control", f"random-{i}", found) for i, found in enumerate(summary["controls"][:controls], start=1)]
    return [
        Job(name if seed == 0 else f"{name}-seed{seed}", role, tuple(found["genotype"]), seed, found["score"])
        for role, name, found in chosen
        for seed in range(seeds)
    ]


def retrain(
    plan: RetrainPlan,
    config: ImageRunConfig,
    space: ImageSpace,
    build: Builder,
    world: World,
    run: RunDir,
    log: RunLog,
) -> Path:
    """Trains and tests what the plan asks for; by default the winner and three random networks, once each."""
    train, test = scan_images(config, world)
    top, controls, seeds = plan.top or 1, 3 if plan.controls is None else plan.controls, plan.seeds or 1
    jobs = manifest(read_json(run.summary_json), top, controls, seeds)
    if world.is_main:
        write_json(run.manifest_json, [asdict(job) for job in jobs])
    if plan.index is not None:
        if not 0 <= plan.index < len(jobs):
            raise ValueError(f"--index is {plan.index}; the manifest has lines 0 to {len(jobs) - 1}")
        jobs = [jobs[plan.index]]
    for job in jobs:
        train_one(job, config, space, build, train, test, world, run, log)
    if world.is_main:
        for line in results(run, [job.name for job in jobs]):
            log.line(line)
    return run.winner(jobs[0].name).root


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


def train_one(
    job: Job,
    config: ImageRunConfig,
    space: ImageSpace,
    build: Builder,
    train: ImageFolder,
    test: ImageFolder,
    world: World,
    run: RunDir,
    log: RunLog,
) -> None:
    """Trains one network on all training images, tests it once on the untouched ones, writes its folder."""
    folder = run.winner(job.name)
    settings = {"genotype": list(job.genotype), "seed": job.seed, "data": str(train.root)} | to_json(config.retrain)
    if folder.metrics_json.is_file():
        require_same(read_json(folder.metrics_json)["settings"], settings, folder)
        log.line(f"{job.name}: trained already")
        return
    genotype = validated(space, job.genotype)
    network = on_device(build(genotype, training_seed(config, job)), world.device)
    tested = _fit(job, network, config, train, settings, world, run, log)
    test_loader = eval_loader(config.images, test, space.input_size, world)
    accuracy, count = evaluate_accuracy(tested, test_loader, image_task(), world)
    interval = binomtest(round(accuracy * count), count).proportion_ci(method="wilson")
    metrics = {
        "name": job.name,
        "role": job.role,
        "seed": job.seed,
        "epochs": config.retrain.recipe.epochs,
        "train_images": len(train),
        "search/score": job.search_score,
        "test/accuracy": accuracy,
        "test/n": count,
        "test/interval_95": [interval.low, interval.high],
        "settings": settings,
    }
    log.line(f"{job.name}: test accuracy {accuracy:.4f} [{interval.low:.4f}, {interval.high:.4f}] on {count} images")
    if world.is_main:
        golden = eval_loader(
            config.images, first_images(test, GOLDEN_IMAGES, config.seed), space.input_size, world, rank=0, ranks=1
        )
        sample = next(iter(golden)).to(torch.device("cpu"))
        tested = tested.cpu().eval()
        write_winner(folder, tested, config, space, genotype, train.classes, sample, metrics)
        folder.checkpoint.unlink(missing_ok=True)
    barrier(world)


def training_seed(config: ImageRunConfig, job: Job) -> int:
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
    job: Job,
    network: nn.Module,
    config: ImageRunConfig,
    train: ImageFolder,
    settings: dict[str, Any],
    world: World,
    run: RunDir,
    log: RunLog,
) -> nn.Module:
    """Trains to the end of the recipe, from the last epoch's checkpoint if there is one. Returns what is to be
    tested."""
    recipe = config.retrain.recipe
    seed = training_seed(config, job)
    loader = retrain_loader(config, train, seed, world)
    optimizer = make_optimizer(network, list(network.parameters()), recipe)
    average = RunningAverage(network, recipe.ema_decay) if recipe.ema_decay else None
    checkpoint, start = run.winner(job.name).checkpoint, 0
    if checkpoint.is_file():
        state = torch.load(checkpoint, map_location=world.device, weights_only=True)
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
            if world.is_main:
                state = checkpoint_state(done, network, optimizer) | {"settings": json.dumps(settings)}
                if average is not None:
                    state["average"] = average.network.state_dict()
                with replacing(checkpoint) as temporary:
                    torch.save(state, temporary)
    return network if average is None else average.network
