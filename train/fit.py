"""The one training loop: supernet warm-up and retraining differ only in which network a step trains.

A global batch comes as virtual shards, a fixed number of them whatever the number of ranks. BatchNorm normalises
within a shard; gradients and running statistics are averaged over shards in a fixed order. So the weights after any
number of steps are the same bits on 1, 2 or 3 ranks (CPU, one thread a rank).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from subshot.train.dist import World, ordered_mean
from subshot.train.recipe import Recipe, learning_rate_at
from subshot.train.task import Task

Shards = list[tuple[int, Any]]


class TrainBatches(Protocol):
    """What the loop asks of a loader; see subshot.data.imagenet.TrainLoader."""

    @property
    def steps_per_epoch(self) -> int: ...

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[Shards]: ...


@dataclass(frozen=True)
class StepResult:
    """loss: mean over the global batch. accuracy: fraction of it that training-mode logits got right. step: counted
    from 0."""

    step: int
    epoch: int
    loss: float
    accuracy: float
    learning_rate: float
    seconds: float


def fit(
    model_at: Callable[[int], nn.Module],
    optimizer: torch.optim.Optimizer,
    loader: TrainBatches,
    recipe: Recipe,
    task: Task,
    world: World,
    num_shards: int,
    start_step: int = 0,
    seed: int = 0,
) -> Iterator[StepResult]:
    """Trains from `start_step` to the recipe's end and yields after every optimiser step; the caller logs and saves.

    model_at: the network of a step, sharing its weights with what the optimiser holds; the same on every rank.
    Raises FloatingPointError when the loss is not finite, before the optimiser would step on it.
    """
    per_epoch = loader.steps_per_epoch
    for epoch in range(start_step // per_epoch, recipe.epochs):
        first = start_step % per_epoch if epoch == start_step // per_epoch else 0
        began = time.perf_counter()
        for index, shards in enumerate(loader.batches(epoch, first), start=first):
            step = epoch * per_epoch + index
            rate = learning_rate_at(recipe, step, per_epoch)
            for group in optimizer.param_groups:
                group["lr"] = rate
            noise = (seed << 32) + step
            loss, accuracy = train_step(model_at(step), optimizer, shards, recipe, task, world, num_shards, noise)
            now = time.perf_counter()
            yield StepResult(step, epoch, loss, accuracy, rate, now - began)
            began = time.perf_counter()


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    shards: Shards,
    recipe: Recipe,
    task: Task,
    world: World,
    num_shards: int,
    noise: int = 0,
) -> tuple[float, float]:
    """One optimiser step on one global batch. Returns its mean loss and its accuracy.

    Dropout draws from a stream of (noise, shard), so it too is the same on any number of ranks and after a resume.
    """
    model.train()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    statistics = [buffer for buffer in model.buffers() if buffer.is_floating_point()] if _tracks(model) else []
    before = [buffer.clone() for buffer in statistics]
    counters = [buffer for buffer in model.buffers() if not buffer.is_floating_point()]
    counted = [buffer + 1 for buffer in counters]
    autocast = torch.autocast(world.device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16")
    rows = []
    for shard, batch in shards:
        for buffer, value in zip(statistics, before, strict=True):
            buffer.copy_(value)
        with autocast, seeded(noise * num_shards + shard, world.device):
            logits = model(task.inputs(batch)).float()
            loss = task.loss(logits, batch)
        gradients = torch.autograd.grad(loss, parameters)
        correct = task.correct(logits.detach(), batch) / task.size(batch)
        parts = [loss.detach().reshape(1), correct.reshape(1).float(), *gradients, *statistics]
        rows.append(torch.cat([part.flatten() for part in parts]))
    elements = 2 + sum(p.numel() for p in parameters) + sum(b.numel() for b in statistics)
    stacked = torch.stack(rows) if rows else torch.zeros(0, elements, device=world.device)
    mean = ordered_mean(stacked, num_shards, world)
    loss_value, accuracy = mean[:2].tolist()
    if not math.isfinite(loss_value):
        raise FloatingPointError(f"the training loss is {loss_value}; lower the learning rate or look for bad inputs")
    optimizer.zero_grad(set_to_none=True)
    parts = mean[2:].split([part.numel() for part in (*parameters, *statistics)])
    for parameter, gradient in zip(parameters, parts, strict=False):
        parameter.grad = gradient.view_as(parameter)
    for buffer, value in zip(statistics, parts[len(parameters) :], strict=True):
        buffer.copy_(value.view_as(buffer))
    for counter, count in zip(counters, counted, strict=True):
        counter.copy_(count)  # num_batches_tracked counts steps, not shards, which differ with the number of ranks
    if recipe.clip_norm:
        nn.utils.clip_grad_norm_(parameters, recipe.clip_norm)
    optimizer.step()
    return loss_value, accuracy


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """torch's global random streams start at `seed` inside, and are as before afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _tracks(model: nn.Module) -> bool:
    """Whether any BatchNorm of the model updates running statistics; those of supernets do not."""
    return any(module.momentum != 0.0 for module in model.modules() if isinstance(module, nn.BatchNorm2d))


def checkpoint_state(step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """What `restore_state` needs to go on after `step` steps: every weight and statistic, and the optimiser."""
    return {"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()}


def restore_state(state: dict[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Puts a checkpoint back; returns the number of steps that are done."""
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])
