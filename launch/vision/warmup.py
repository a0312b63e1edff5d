"""The warm-up stage of a run: trains the supernet, logs how far its scales have moved, and can go on where it
stopped."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from safetensors.torch import save_file
from scipy.stats import kendalltau

from subshot.data.imagenet import TrainLoader
from subshot.launch.config import ScoreConfig, WarmupConfig
from subshot.launch.run_log import RunLog
from subshot.supernet.indicators import block_gammas, indicator_score, read_indicators
from subshot.supernet.network import ChainSupernet
from subshot.supernet.space import Additive
from subshot.train.checkpoint import load_checkpoint, save_checkpoint
from subshot.train.dist import World, barrier
from subshot.train.fit import checkpoint_state, fit, restore_state
from subshot.train.paths import path_at
from subshot.train.recipe import make_optimizer
from subshot.train.run_dir import RunDir, append_jsonl, replacing, truncate_jsonl
from subshot.train.stopping import Preempted, stopped_at
from subshot.train.task import image_task
from subshot.train.trainable import select_trainable

CHECKPOINT = "warmup"
RANKED_GENOTYPES = 500
LOG_EVERY_STEPS = 10


@dataclass
class Watch:
    """How training changes the indicators: movement of the scales from their start, and agreement with the epoch
    before."""

    supernet: ChainSupernet
    statistic: str
    rule: str
    genotypes: np.ndarray
    start: tuple[tuple[float, ...], ...]
    previous: np.ndarray | None = None

    def look(self) -> dict[str, float]:
        """gamma_movement: mean |indicator - indicator at the start| over candidates that have one. gamma_p10, p50, p90:
        quantiles of the scales that the block indicators are made of. ranking_kendall: tau-b of the indicator's ranking
        of a fixed sample with that of the last look; absent at first, and while a ranking has ties only."""
        indicators = read_indicators(self.supernet, self.statistic)
        moved = [
            abs(now - before)
            for row, first, bns in zip(indicators.block, self.start, indicators.has_bn, strict=True)
            for now, before, has in zip(row, first, bns, strict=True)
            if has
        ]
        ranking = self._scores()
        values = {"gamma_movement": float(np.mean(moved))}
        quantiles = np.quantile(block_gammas(self.supernet).cpu().numpy(), (0.1, 0.5, 0.9)).tolist()
        values |= dict(zip(("gamma_p10", "gamma_p50", "gamma_p90"), quantiles, strict=True))
        if self.previous is not None:
            tau = float(kendalltau(ranking, self.previous).statistic)
            if np.isfinite(tau):
                values["ranking_kendall"] = tau
        self.previous = ranking
        return values

    def _scores(self) -> np.ndarray:
        indicators = read_indicators(self.supernet, self.statistic)
        additive: Additive = indicator_score(indicators, self.rule)
        return additive.batch(self.genotypes)


def warm_up(
    supernet: ChainSupernet,
    loader: TrainLoader,
    config: WarmupConfig,
    score: ScoreConfig,
    seed: int,
    num_shards: int,
    world: World,
    run: RunDir,
    log: RunLog,
) -> None:
    """Trains the supernet in place to the end of its recipe, from the run's checkpoint if there is one; saves it.

    A checkpoint is written at the end of every epoch and whenever one is due, and with it the path and the loss of
    every step. How often each candidate was trained goes to the log. Raises Preempted, after a checkpoint, at a signal.
    """
    parameters = select_trainable(supernet, config.trainable)
    optimizer = make_optimizer(supernet, parameters, config.recipe)
    log.line(
        f"warm-up: {config.recipe.epochs} epochs of {loader.steps_per_epoch} steps, "
        f"training {sum(p.numel() for p in parameters):,} of {sum(p.numel() for p in supernet.parameters()):,} numbers"
    )
    rng = np.random.default_rng(0)
    sizes = [len(decision.choices) for decision in supernet.space.decisions]
    genotypes = rng.integers(0, sizes, size=(RANKED_GENOTYPES, len(sizes)))
    rule = score.rule if score.kind == "indicator" else "block_sum"
    start_block = read_indicators(supernet, score.statistic).block
    watch = Watch(supernet, score.statistic, rule, genotypes, start_block)
    start, rows = 0, []
    state = load_checkpoint(run.checkpoints, CHECKPOINT, world, log.line)
    if state is not None:
        start = restore_state(state, supernet, optimizer)
        watch.previous = state["ranking"].numpy() if "ranking" in state else None
        log.line(f"warm-up continues after step {start}")
    if world.is_main:
        truncate_jsonl(run.paths_jsonl, start)
    total = config.recipe.epochs * loader.steps_per_epoch

    def model_at(step: int) -> torch.nn.Module:
        return supernet.path(path_at(supernet.space, step, seed, config.sampling))

    task = image_task(config.recipe.label_smoothing)
    steps = fit(model_at, optimizer, loader, config.recipe, task, world, num_shards, start, seed)
    images, seconds = 0, 0.0
    for result in log.progress(steps, total, "warm-up", start):
        rows.append({"path": path_at(supernet.space, result.step, seed, config.sampling), "loss": result.loss})
        images += loader.batch_size
        seconds += result.seconds
        done = result.step + 1
        if done % LOG_EVERY_STEPS == 0 or done == total:
            values = {"epoch": result.epoch, "train/loss": result.loss, "train/accuracy": result.accuracy}
            rates = {"learning_rate": result.learning_rate, "images_per_second": images / seconds}
            log.numbers("warmup", done, values | rates)
        epoch_ends = done % loader.steps_per_epoch == 0
        if epoch_ends:
            look = watch.look()
            log.numbers("warmup", done, look)
            shown = "  ".join(f"{name} {value:.3f}" for name, value in look.items())
            log.line(f"epoch {result.epoch + 1}: loss {result.loss:.3f}  {shown}")
        if world.is_main and (epoch_ends or result.save):
            append_jsonl(run.paths_jsonl, rows)
            rows = []
            state = checkpoint_state(done, supernet, optimizer)
            if watch.previous is not None:
                state["ranking"] = torch.from_numpy(watch.previous)
            save_checkpoint(run.checkpoints, CHECKPOINT, done, state)
        if result.save:
            world.marks.saved()
            barrier(world)  # a launcher gives processes that stay little time after the first has left
        if result.stop and done < total:
            raise Preempted(stopped_at(world.marks, f"step {done} of {total} of the warm-up"))
    if total > start:
        paths = np.array([path_at(supernet.space, step, seed, config.sampling) for step in range(total)])
        counts = [np.bincount(column, minlength=size) for column, size in zip(paths.T, sizes, strict=True)]
        fewest, most = min(int(row.min()) for row in counts), max(int(row.max()) for row in counts)
        log.line(f"every candidate was trained {fewest} to {most} times; {images / seconds:.0f} images a second")
    save_supernet(supernet, run, world)


def save_supernet(supernet: ChainSupernet, run: RunDir, world: World) -> None:
    if world.is_main:
        state = {name: value.detach().cpu().contiguous() for name, value in supernet.state_dict().items()}
        with replacing(run.supernet) as temporary:
            save_file(state, temporary)
    barrier(world)
