"""The seam between the domains: what a loss is, and what is counted. Loops know a Task and nothing of images or
clicks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Task:
    """inputs(batch): what the network takes. loss(logits, batch): a scalar, the mean over the batch. correct(logits,
    batch): an integer tensor, how many of the batch the logits get right. size(batch): how many examples it has."""

    inputs: Callable[[Any], Any]
    loss: Callable[[Tensor, Any], Tensor]
    correct: Callable[[Tensor, Any], Tensor]
    size: Callable[[Any], int]


def image_task(label_smoothing: float = 0.0) -> Task:
    """Cross-entropy over classes; logits [N, classes] against batch.labels [N]."""
    return Task(
        inputs=lambda batch: batch.images.contiguous(memory_format=torch.channels_last),
        loss=lambda logits, batch: F.cross_entropy(logits, batch.labels, label_smoothing=label_smoothing),
        correct=lambda logits, batch: (logits.argmax(dim=1) == batch.labels).sum(),
        size=lambda batch: len(batch.labels),
    )
