"""The seam between the domains: what a loss is, what is counted, and what stands in front of the network. Loops know a
Task and nothing of images or clicks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F


class Front(Protocol):
    """What turns the batches of one training step into network inputs, and may itself learn from their gradient."""

    def open(self, batches: Sequence[Any], learning_rate: float) -> tuple[list[Any], list[Tensor]]:
        """(inputs, leaves): network inputs of every batch, and the tensors in them, one a batch, whose gradients
        `learn` takes; no leaves where nothing learns. learning_rate: of that learning."""
        ...

    def square_norm(self, gradients: Sequence[Tensor]) -> float:
        """The squared norm of the gradient of what learns, over all ranks; gradients: of the leaves."""
        ...

    def learn(self, gradients: Sequence[Tensor]) -> None: ...


@dataclass(frozen=True)
class PlainFront:
    """Inputs are a function of the batch, and nothing learns."""

    inputs: Callable[[Any], Any]

    def open(self, batches: Sequence[Any], learning_rate: float) -> tuple[list[Any], list[Tensor]]:
        return [self.inputs(batch) for batch in batches], []

    def square_norm(self, gradients: Sequence[Tensor]) -> float:
        return 0.0

    def learn(self, gradients: Sequence[Tensor]) -> None:
        pass


@dataclass(frozen=True)
class Task:
    """inputs(batch): what the network takes in evaluation. loss(logits, batch): a scalar, the mean over the batch.
    correct(logits, batch): an integer tensor, how many of the batch the logits get right. size(batch): how many
    examples it has. front: what feeds the network in training."""

    inputs: Callable[[Any], Any]
    loss: Callable[[Tensor, Any], Tensor]
    correct: Callable[[Tensor, Any], Tensor]
    size: Callable[[Any], int]
    front: Front


def image_task(label_smoothing: float = 0.0) -> Task:
    """Cross-entropy over classes; logits [N, classes] against batch.labels [N]."""

    def inputs(batch: Any) -> Tensor:
        images: Tensor = batch.images.contiguous(memory_format=torch.channels_last)
        return images

    return Task(
        inputs=inputs,
        loss=lambda logits, batch: F.cross_entropy(logits, batch.labels, label_smoothing=label_smoothing),
        correct=lambda logits, batch: (logits.argmax(dim=1) == batch.labels).sum(),
        size=lambda batch: len(batch.labels),
        front=PlainFront(inputs),
    )
