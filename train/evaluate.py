"""Accuracy of a network, and one-shot evaluation: the accuracy of a subnet with the weights that it inherits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from subshot.supernet.base import Supernet, extract
from subshot.supernet.space import Genotype
from subshot.train.dist import World, sum_counts
from subshot.train.task import Task


@torch.no_grad()
def recalibrate_batchnorm(model: nn.Module, batches: Iterable[Any], task: Task) -> None:
    """Replaces every BatchNorm's running statistics by their plain average over `batches`, in place.

    Differs from SPOS's released code, which runs a momentum-0.1 average over 200 batches (src/Search/tester.py).
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    mode = model.training
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    model.train()
    for batch in batches:
        model(task.inputs(batch))
    model.train(mode)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


@torch.no_grad()
def count_correct(model: nn.Module, batches: Iterable[Any], task: Task) -> tuple[int, int]:
    """(right, seen) in evaluation mode over `batches`; the mode is as before afterwards."""
    mode = model.training
    model.eval()
    right = seen = 0
    for batch in batches:
        right += int(task.correct(model(task.inputs(batch)), batch))
        seen += task.size(batch)
    model.train(mode)
    return right, seen


def evaluate_accuracy(model: nn.Module, batches: Iterable[Any], task: Task, world: World) -> tuple[float, int]:
    """(accuracy, examples) over all ranks; `batches` is this rank's share. Counts are summed, so the ranks cannot
    matter."""
    right, seen = sum_counts(count_correct(model, batches, task), world)
    if seen == 0:
        raise ValueError("there is nothing to evaluate on: the split is empty")
    return right / seen, seen


@dataclass(frozen=True)
class OneShot:
    """Inherited-weight accuracy of subnets, each on the same calibration and validation batches (re-iterable).

    world: the processes that evaluate a subnet together, each on its share of the validation batches and on all of the
    calibration's; they call this alike, and integer counts are added up.
    The supernet is not touched: a copy of the subnet is recalibrated and evaluated. Both sets of batches come from
    the training split; validation images are ones that the supernet was not trained on.
    """

    supernet: Supernet
    calibration: Iterable[Any]
    validation: Iterable[Any]
    task: Task
    world: World = World(0, 1, torch.device("cpu"))

    def __call__(self, genotype: Genotype) -> float:
        """Accuracy in [0, 1], higher is better."""
        subnet = extract(self.supernet, genotype)
        recalibrate_batchnorm(subnet, self.calibration, self.task)
        return evaluate_accuracy(subnet, self.validation, self.task, self.world)[0]
