"""The warm-up stage of a CTR run: trains supernet and tables, stops where it diverges, goes on where it stopped."""

from __future__ import annotations

from collections import deque

import torch
from safetensors.torch import save_file

from subshot.data.clicks import ClickLoader
from subshot.launch.clicks.config import ClickWarmupConfig
from subshot.launch.run_log import RunLog
from subshot.supernet.nasrec_supernet import NasrecSupernet
from subshot.train.checkpoint import load_checkpoint, read_weights, save_checkpoint
from subshot.train.click_metrics import entropy
from subshot.train.click_paths import PathSampling, click_path_at
from subshot.train.click_task import click_task
from subshot.train.dist import World, barrier
from subshot.train.fit import fit
from subshot.train.run_dir import RunDir, replacing
from subshot.train.sliced_adagrad import SlicedAdagrad
from subshot.train.stopping import Preempted, stopped_at
from subshot.train.tables import Tables

CHECKPOINT = "warmup"
LOG_EVERY_STEPS = 10


def warm_up(
    supernet: NasrecSupernet,
    tables: Tables,
    loader: ClickLoader,
    config: ClickWarmupConfig,
    base_rate: float,
    seed: int,
    num_shards: int,
    world: World,
    run: RunDir,
    log: RunLog,
) -> None:
    """Trains both in place to the end of the recipe, from the run's checkpoint if there is one; saves them.

    Raises ValueError, with the reason and what to change, where the loss is not finite or stays at the entropy of the
    base rate; the last checkpoint before that stays in the run folder.
    """
    total = config.recipe.epochs * loader.steps_per_epoch
    sampling = PathSampling(round(config.full_path_share * total), config.connections)
    optimizer = SlicedAdagrad(dict(supernet.named_parameters()), config.recipe.learning_rate, config.recipe.eps)
    start, losses = restore(supernet, optimizer, tables, world, run, log)
    if start:
        log.line(f"warm-up continues after step {start}")
    log.line(
        f"warm-up: {total} steps of {loader.batch_size} rows ({100 * config.fraction:g} % of the training rows), the "
        f"full path in the first {sampling.full_path_steps} more and more seldom"
    )

    def path_at(step: int) -> torch.nn.Module:
        network = supernet.path(click_path_at(supernet.space, step, seed, sampling))
        optimizer.follow(network.parameters())
        return network

    steps = fit(
        path_at, optimizer, loader, config.recipe, click_task(tables, world.device), world, num_shards, start, seed
    )
    recent = deque(losses, maxlen=config.stuck_steps)
    saved, rows, seconds = start, 0, 0.0
    try:
        for result in log.progress(steps, total, "warm-up", start):
            done = result.step + 1
            recent.append(result.loss)
            rows, seconds = rows + loader.batch_size, seconds + result.seconds
            if done % LOG_EVERY_STEPS == 0 or done == total:
                values = {"epoch": result.epoch, "train/loss": result.loss, "learning_rate": result.learning_rate}
                log.numbers("warmup", done, values | {"rows_per_second": rows / seconds})
            if len(recent) == config.stuck_steps and sum(recent) / len(recent) >= entropy(base_rate):
                raise FloatingPointError(
                    f"the mean loss of {config.stuck_steps} steps is {sum(recent) / len(recent):.4f}, and predicting "
                    f"the base rate gives {entropy(base_rate):.4f}"
                )
            if (result.save or done % config.checkpoint_steps == 0) and done < total:
                checkpoint(done, list(recent), supernet, optimizer, tables, world, run)
                saved = done
                log.line(f"step {done}: loss {sum(recent) / len(recent):.4f} (mean of {len(recent)} steps)")
            if result.stop and done < total:
                raise Preempted(stopped_at(world.marks, f"step {done} of {total} of the warm-up"))
    except FloatingPointError as error:
        kept = f"rolled back to step {saved}, which is in {run.checkpoints}" if saved else "no step was kept"
        raise ValueError(
            f"the warm-up diverged: {error}; {kept}; begin a new run with a lower --warmup.recipe.learning-rate "
            f"(now {config.recipe.learning_rate:g})"
        ) from error
    if total > start:
        last = list(recent)[-max(1, total // 10) :]
        mean = sum(last) / len(last)
        log.line(
            f"warm: mean loss {mean:.4f} in the last {len(last)} steps; {rows / max(seconds, 1e-9):.0f} rows a second"
        )
        if mean >= entropy(base_rate):
            log.line(
                f"caution: predicting the base rate has a loss of {entropy(base_rate):.4f}: the supernet has learned "
                "nothing, and its scores say little (lower --warmup.recipe.learning-rate, or raise --warmup.fraction)"
            )
    save(supernet, tables, world, run)


def checkpoint(
    step: int,
    recent_losses: list[float],
    supernet: NasrecSupernet,
    optimizer: SlicedAdagrad,
    tables: Tables,
    world: World,
    run: RunDir,
) -> None:
    state = {
        "step": step,
        "recent_losses": torch.tensor(recent_losses, dtype=torch.float64),
        "supernet": supernet.state_dict(),
        "optimizer": optimizer.state_dict(),
        "tables": tables.state(),
    }
    if world.is_main:
        save_checkpoint(run.checkpoints, CHECKPOINT, step, state)
    world.marks.saved()
    barrier(world)


def restore(
    supernet: NasrecSupernet, optimizer: SlicedAdagrad, tables: Tables, world: World, run: RunDir, log: RunLog
) -> tuple[int, list[float]]:
    """Puts the run's checkpoint back, where there is one; returns the number of steps that are done, and the losses
    that
    are still looked at."""
    state = load_checkpoint(run.checkpoints, CHECKPOINT, world, log.line, torch.device("cpu"))
    if state is None:
        return 0, []
    supernet.load_state_dict(state["supernet"])
    optimizer.load_state_dict(state["optimizer"])
    tables.load_state(state["tables"])
    return int(state["step"]), state["recent_losses"].tolist()


def save(supernet: NasrecSupernet, tables: Tables, world: World, run: RunDir) -> None:
    """One file: the supernet's weights as network.*, the tables', unsharded, as tables.*."""
    weights = {f"tables.{name}": value for name, value in tables.state().items() if name.endswith(".weight")}
    if world.is_main:
        weights |= {f"network.{name}": value.detach().cpu() for name, value in supernet.state_dict().items()}
        with replacing(run.supernet) as temporary:
            save_file({name: value.contiguous() for name, value in weights.items()}, temporary)
    barrier(world)


def load(supernet: NasrecSupernet, tables: Tables, run: RunDir) -> None:
    """The inverse of `save`, at any number of processes."""
    state = read_weights(run.supernet)
    parts: dict[str, dict[str, torch.Tensor]] = {"network": {}, "tables": {}}
    for name, value in state.items():
        part, rest = name.split(".", 1)
        parts[part][rest] = value
    supernet.load_state_dict(parts["network"])
    tables.load_state(parts["tables"])
