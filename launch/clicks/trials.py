"""One training of one CTR network from scratch, and what is kept of it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from subshot.data.clicks import ClickEvalLoader, ClickLoader, ClickSplit, concatenated
from subshot.launch.clicks.config import ClickConfig
from subshot.launch.clicks.contenders import Trial, build
from subshot.launch.clicks.data import ClickData
from subshot.launch.config import differences, to_json
from subshot.launch.manifest import hash_of
from subshot.launch.run_log import RunLog
from subshot.supernet.nasrec import NasrecSpace
from subshot.train.checkpoint import load_checkpoint, remove_checkpoints, save_checkpoint
from subshot.train.click_metrics import click_metrics, entropy
from subshot.train.click_task import click_task
from subshot.train.dist import World
from subshot.train.fit import checkpoint_state, fit, restore_state
from subshot.train.recipe import make_optimizer
from subshot.train.run_dir import RunDir, read_json, replacing, write_json
from subshot.train.stopping import Preempted, stopped_at
from subshot.train.tables import Tables, TablesConfig, build_tables

DIVERGED = 10.0
"""Times the entropy of the base rate: a training that ends above this has no use."""


@dataclass(frozen=True)
class Trained:
    """The network, the tables in front of it, and the record that trials/<name>.json keeps."""

    network: nn.Module
    tables: Tables
    record: dict[str, Any]


def trial_settings(trial: Trial, config: ClickConfig, data: ClickData) -> dict[str, Any]:
    """What a finished trial must have been made with to be taken as it is."""
    return {
        "genotype": to_json(trial.contender.genotype),
        "learning_rate": trial.learning_rate,
        "seed": trial.seed,
        "tested": trial.tested,
        "recipe": to_json(replace(config.retrain.recipe, learning_rate=trial.learning_rate)),
        "batch_size": config.retrain.batch_size,
        "max_rows": config.retrain.max_rows,
        "layer_norm": config.retrain.layer_norm and trial.contender.genotype is not None,
        "table_optimizer": config.tables.optimizer,
        "data": data.fingerprint()["manifest_sha256"],
        "run_seed": config.seed,
        "space": to_json(config.space),
    }


def finished(trial: Trial, config: ClickConfig, data: ClickData, run: RunDir) -> dict[str, Any] | None:
    """The record of a finished trial. Raises ValueError where it was made with other settings."""
    path = run.trial_json(trial.name)
    if not path.is_file():
        return None
    record: dict[str, Any] = read_json(path)
    changed = differences(record["settings"], trial_settings(trial, config, data))
    if changed:
        raise ValueError(f"{path} was made with other settings ({'; '.join(changed)}); use the same, or delete it")
    return record


def train(
    trial: Trial, config: ClickConfig, space: NasrecSpace, data: ClickData, run: RunDir, world: World, log: RunLog
) -> Trained:
    """Trains in this process alone, for one recipe's length, from its last checkpoint where there is one. Raises
    Preempted, after a checkpoint, at a signal.

    A training that ends with a loss that is not finite, or ten times that of predicting the base rate, has diverged:
    its record says so, and the other learning rates of the grid go on.
    """
    device = world.device
    alone = World(0, 1, device, world.marks)
    seed = config.seed + 1000 * (trial.seed + 1)
    network, width, small = build(trial.contender, space, seed, config.retrain.layer_norm)
    network.to(device)
    settings = config.retrain
    tables_config = TablesConfig(
        embedding_dim=width,
        optimizer=config.tables.optimizer if width % 4 == 0 else "adagrad",
        eps=settings.recipe.eps,
        max_rows=settings.max_rows,
        initial="small" if small else "xavier",
    )
    tables = build_tables(data.fields, tables_config, seed, alone)
    split = data.split("train")
    if trial.tested:
        split = concatenated(split, data.split("val"))
    cap = settings.max_rows
    loader = ClickLoader(split, batch_size=settings.batch_size, num_shards=1, seed=seed, max_rows_per_table=cap)
    recipe = replace(settings.recipe, learning_rate=trial.learning_rate)
    optimizer = make_optimizer(network, list(network.parameters()), recipe)
    total, kept_for = recipe.epochs * loader.steps_per_epoch, hash_of(trial_settings(trial, config, data))
    start, losses, diverged = 0, [], None
    state = load_checkpoint(run.checkpoints, trial.name, alone, log.line, torch.device("cpu"))
    if state is not None and state["settings"] != kept_for:
        log.line(f"{trial.name}: its checkpoint is of other settings and is deleted")
        remove_checkpoints(run.checkpoints, trial.name)
    elif state is not None:
        start, losses = restore_state(state, network, optimizer), state["losses"].tolist()
        tables.load_state(state["tables"])
        log.line(f"{trial.name}: continues after step {start}")
    steps = fit(lambda step: network, optimizer, loader, recipe, click_task(tables, device), alone, 1, start, seed)
    try:
        for result in log.progress(steps, total, f"training {trial.name}", start):
            losses.append(result.loss)
            if result.save and len(losses) < total:
                state = checkpoint_state(len(losses), network, optimizer) | {"tables": tables.state()}
                state |= {"losses": torch.tensor(losses, dtype=torch.float64), "settings": kept_for}
                save_checkpoint(run.checkpoints, trial.name, len(losses), state)
                world.marks.saved()
            if result.stop and len(losses) < total:
                raise Preempted(stopped_at(world.marks, f"step {len(losses)} of {total} of {trial.name}"))
    except FloatingPointError as error:
        diverged = f"step {len(losses)}: {error}"
    last = float(np.mean(losses[-50:])) if losses else math.nan
    if diverged is None and not last < DIVERGED * entropy(split.base_rate):
        diverged = f"the mean loss of the last steps is {last:.3g}"
    record: dict[str, Any] = {
        "name": trial.name,
        "contender": trial.contender.name,
        "role": trial.contender.role,
        "settings": trial_settings(trial, config, data),
        "params": sum(parameter.numel() for parameter in network.parameters()),
        "train_rows": len(split),
        "train/last_losses_mean": last if diverged is None else None,
        "diverged": diverged,
    }
    if diverged is None:
        looked_at = "test" if trial.tested else "val"
        logits, labels = predict(network, tables, data.split(looked_at), cap, config.batches.eval_batch_size, device)
        metrics = asdict(click_metrics(logits, labels, seed=config.seed))
        record |= {f"{looked_at}/{name}": value for name, value in metrics.items()}
        if trial.tested:
            with replacing(run.trial_logits(trial.name)) as temporary:
                with temporary.open("wb") as file:
                    np.savez(file, logits=logits.numpy(), labels=labels.numpy())
    return Trained(network, tables, record)


def keep(trial: Trial, trained: Trained, run: RunDir) -> None:
    """Writes the record, last of all files: a trial that has it is finished, and needs no checkpoint."""
    write_json(run.trial_json(trial.name), trained.record)
    remove_checkpoints(run.checkpoints, trial.name)


@torch.no_grad()
def predict(
    network: nn.Module, tables: Tables, split: ClickSplit, max_rows: int, batch_size: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """(logits, labels) [rows] of a whole split, in its order, on the CPU."""
    network.eval()
    logits, labels = [], []
    for batch in ClickEvalLoader(split, batch_size=batch_size, max_rows_per_table=max_rows):
        there = batch.to(device)
        logits.append(network((there.dense, tables(there))).cpu())
        labels.append(batch.labels)
    return torch.cat(logits), torch.cat(labels)


def val_log_loss(record: dict[str, Any]) -> float:
    """What networks and learning rates are chosen by; lower is better, infinite for a training that diverged."""
    estimate = record.get("val/log_loss")
    return math.inf if estimate is None else float(estimate["value"])
