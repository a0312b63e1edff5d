"""The image task against cross-entropy written out."""

import math
from types import SimpleNamespace

import pytest
import torch

from subshot.train.task import image_task


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_and_counts(smoothing) -> None:
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 2, 0])
    batch = SimpleNamespace(images=torch.ones(5, 3, 2, 2), labels=labels)
    task = image_task(smoothing)
    total = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        normaliser = math.log(sum(math.exp(value) for value in row))
        for index, value in enumerate(row):
            target = smoothing / 3 + (1 - smoothing) * (index == label)
            total -= target * (value - normaliser)
    assert float(task.loss(logits, batch)) == pytest.approx(total / 5, rel=1e-12)
    right = sum(row.index(max(row)) == label for row, label in zip(logits.tolist(), labels.tolist(), strict=True))
    assert int(task.correct(logits, batch)) == right
    assert task.size(batch) == 5
    assert torch.equal(task.inputs(batch), batch.images)
