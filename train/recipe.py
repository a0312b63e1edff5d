"""How weights are trained: one record for warm-up and retraining, and the optimiser and schedule that follow from
it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from subshot.train.trainable import parameter_groups


@dataclass(frozen=True)
class Recipe:
    """An optimiser, its schedule and its length."""

    epochs: int
    """Passes over the training examples; 0 leaves the weights at their initialisation."""
    learning_rate: float
    """The peak; it is reached after `warmup_epochs` and falls to 0 at the end, so a shorter run rescales the decay."""
    optimizer: Literal["sgd", "adam", "adagrad"] = "sgd"
    """What makes the steps. Clicks take adagrad, as NASRec does."""
    schedule: Literal["linear", "cosine"] = "linear"
    """How the learning rate falls from its peak to 0."""
    warmup_epochs: float = 0.0
    """How long the learning rate rises to its peak."""
    momentum: float = 0.9
    """Of SGD; Adam has its usual 0.9 and 0.999."""
    eps: float = 1e-2
    """Added to the root in Adagrad; NASRec's value."""
    weight_decay: float = 4e-5
    """On weights of convolutions and on the classifier; never on BatchNorm."""
    label_smoothing: float = 0.1
    """The share of a label that is spread over all classes."""
    clip_norm: float = 0.0
    """Gradients are scaled down to this norm; 0 for no limit."""
    ema_decay: float = 0.0
    """Of the running average of the weights that is evaluated and saved (retraining only); 0 for none."""
    dropout: float = 0.0
    """Before the classifier (retraining only)."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of forward and backward passes; weights stay float32."""
    gradient_sum: Literal["fixed_order", "all_reduce"] = "fixed_order"
    """Over several processes. fixed_order: gradients of virtual shards add up one after the other everywhere, so the
    weights are the same bits on any number of processes; each receives all shards' gradients. all_reduce: one flat
    all-reduce, as DistributedDataParallel's without its overlap; less traffic, equal to rounding."""

    def __post_init__(self) -> None:
        if self.epochs < 0:
            raise ValueError(f"epochs is {self.epochs}; it must be 0 or more")
        if not 0.0 <= self.ema_decay < 1.0:
            raise ValueError(f"ema_decay is {self.ema_decay}; it must be in [0, 1)")
        if not self.learning_rate > 0.0:
            raise ValueError(f"learning_rate is {self.learning_rate}; it must be above 0")


def learning_rate_at(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """The rate of optimiser step `step`, counted from 0."""
    total = max(1, recipe.epochs * steps_per_epoch)
    warmup = recipe.warmup_epochs * steps_per_epoch
    if step < warmup:
        return recipe.learning_rate * (step + 1) / warmup
    where = (step - warmup) / max(1.0, total - warmup)
    if recipe.schedule == "linear":
        return recipe.learning_rate * (1.0 - where)
    return recipe.learning_rate * 0.5 * (1.0 + math.cos(math.pi * where))


def make_optimizer(model: nn.Module, parameters: list[nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    """Holds `parameters` and nothing else, so frozen weights have no state. Parameters without a gradient are not
    touched by a step: an operation that was not sampled gets neither momentum nor decay."""
    groups = parameter_groups(model, parameters, recipe.weight_decay)
    if recipe.optimizer == "adam":
        return torch.optim.Adam(groups, lr=recipe.learning_rate)
    if recipe.optimizer == "adagrad":
        return torch.optim.Adagrad(groups, lr=recipe.learning_rate, eps=recipe.eps)
    return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum)
