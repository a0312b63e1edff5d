"""The one training loop: supernet warm-up and retraining differ only in which network a step trains.

A global batch comes as virtual shards, a fixed number of them whatever the number of ranks. BatchNorm normalises
within a shard; gradients and running statistics are averaged over shards in a fixed order. So the weights after any
number of steps are the same bits on 1, 2 or 3 ranks (CPU, one thread a rank). With `gradient_sum` all_reduce they are
averaged by one flat all-reduce, and are the same to rounding.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from subshot.train.dist import World, ordered_means, reduced_means
from subshot.train.recipe import Recipe, learning_rate_at
from subshot.train.task import Front, Task

Shards = list[tuple[int, Any]]


class TrainBatches(Protocol):
    """What the loop asks of a loader; see TrainLoader in subshot.data.imagenet, ClickLoader in subshot.data.clicks."""

    @property
    def steps_per_epoch(self) -> int: ...

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[Shards]: ...


class Optimizer(Protocol):
    """What the loop asks of an optimiser: torch's, or `SlicedAdagrad` for paths that are views of a supernet."""

    @property
    def param_groups(self) -> list[dict[str, Any]]: ...

    def step(self) -> Any: ...

    def zero_grad(self, set_to_none: bool = True) -> None: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class StepResult:
    """loss: mean over the global batch. accuracy: fraction of it that training-mode logits got right. step: counted
    from 0. stop: a rank was asked to stop. save: a checkpoint is due, on the clock of some rank or because of a stop.
    All ranks have the same of each."""

    step: int
    epoch: int
    loss: float
    accuracy: float
    learning_rate: float
    seconds: float
    stop: bool = False
    save: bool = False


def fit(
    model_at: Callable[[int], nn.Module],
    optimizer: Optimizer,
    loader: TrainBatches,
    recipe: Recipe,
    task: Task,
    world: World,
    num_shards: int,
    start_step: int = 0,
    seed: int = 0,
) -> Iterator[StepResult]:
    """Trains from `start_step` to the recipe's end and yields after every optimiser step; the caller logs and saves,
    and leaves where a result says stop.

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
            done = train_step(model_at(step), optimizer, shards, recipe, task, world, num_shards, noise)
            now = time.perf_counter()
            save = done.stop or done.save
            yield StepResult(step, epoch, done.loss, done.accuracy, rate, now - began, done.stop, save)
            began = time.perf_counter()


class StepMeans(NamedTuple):
    """Means over a global batch, and what any rank was asked for."""

    loss: float
    accuracy: float
    stop: bool
    save: bool


def train_step(
    model: nn.Module,
    optimizer: Optimizer,
    shards: Shards,
    recipe: Recipe,
    task: Task,
    world: World,
    num_shards: int,
    noise: int = 0,
) -> StepMeans:
    """One optimiser step on one global batch. The marks of all ranks travel with its means, at no further cost.

    Dropout draws from a stream of (noise, shard), so it too is the same on any number of ranks and after a resume.
    """
    model.train()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    statistics = [buffer for buffer in model.buffers() if buffer.is_floating_point()] if _tracks(model) else []
    before = [buffer.clone() for buffer in statistics]
    counters = [count for name, count in model.named_buffers() if name.endswith("num_batches_tracked")]
    counted = [buffer + 1 for buffer in counters]
    autocast = torch.autocast(world.device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16")
    marks = [torch.tensor(float(mark), device=world.device) for mark in (world.marks.stop, world.marks.checkpoint_due)]
    inputs, leaves = task.front.open([batch for _, batch in shards], optimizer.param_groups[0]["lr"])
    rows, leaf_gradients = [], []
    for place, (shard, batch) in enumerate(shards):
        for buffer, value in zip(statistics, before, strict=True):
            buffer.copy_(value)
        with autocast, seeded(noise * num_shards + shard, world.device):
            logits = model(inputs[place]).float()
            loss = task.loss(logits, batch)
        leaf = leaves[place : place + 1]
        gradients = torch.autograd.grad(loss, [*parameters, *leaf])
        leaf_gradients += [gradient / num_shards for gradient in gradients[len(parameters) :]]
        correct = task.correct(logits.detach(), batch) / task.size(batch)
        moved = [gradient.contiguous() for gradient in gradients[: len(parameters)]]
        scalars = [loss.detach(), correct.float(), *marks]
        rows.append([*scalars, *moved, *(buffer.clone() for buffer in statistics)])
    like = [torch.zeros((), device=world.device)] * 4 + parameters + statistics
    means = ordered_means if recipe.gradient_sum == "fixed_order" else reduced_means
    mean = means(rows, like, num_shards, world)
    (loss_value, accuracy, stop, save), mean = torch.stack(mean[:4]).tolist(), mean[4:]
    if not math.isfinite(loss_value):
        raise FloatingPointError(f"the training loss is {loss_value}; lower the learning rate or look for bad inputs")
    optimizer.zero_grad(set_to_none=True)
    for parameter, gradient in zip(parameters, mean, strict=False):
        parameter.grad = gradient
    for buffer, value in zip(statistics, mean[len(parameters) :], strict=True):
        buffer.copy_(value)
    for counter, count in zip(counters, counted, strict=True):
        counter.copy_(count)  # num_batches_tracked counts steps, not shards, which differ with the number of ranks
    if recipe.clip_norm:
        leaf_gradients = _clip(parameters, leaf_gradients, task.front, recipe.clip_norm)
    optimizer.step()
    task.front.learn(leaf_gradients)
    return StepMeans(loss_value, accuracy, stop > 0.0, save > 0.0)


def _clip(parameters: list[nn.Parameter], leaf_gradients: list[Tensor], front: Front, clip_norm: float) -> list[Tensor]:
    """Scales all gradients down to one common norm, those of what stands in front of the network included.

    The front's tables learn in their own backward pass, where no clipping function of torch sees their gradients.
    Returns the scaled gradients of the leaves.
    """
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if leaf_gradients:
        norm = torch.sqrt(norm**2 + front.square_norm(leaf_gradients))
    nn.utils.clip_grads_with_norm_(parameters, clip_norm, norm)
    scale = torch.clamp(clip_norm / (norm + 1e-6), max=1.0)
    return [gradient * scale for gradient in leaf_gradients]


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """torch's global random streams start at `seed` inside, and are as before afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _tracks(model: nn.Module) -> bool:
    """Whether any BatchNorm of the model updates running statistics; those of supernets do not."""
    return any(module.momentum != 0.0 for module in model.modules() if isinstance(module, nn.BatchNorm2d))


def checkpoint_state(step: int, model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """What `restore_state` needs to go on after `step` steps: every weight and statistic, and the optimiser."""
    return {"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()}


def restore_state(state: dict[str, Any], model: nn.Module, optimizer: Optimizer) -> int:
    """Puts a checkpoint back; returns the number of steps that are done."""
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])
