"""The task of click-through-rate prediction, and the embedding tables in front of its networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from subshot.data.batch import ClickBatch
from subshot.data.keyed_ids import keyed_ids
from subshot.train.tables import Tables
from subshot.train.task import Task

CPU = torch.device("cpu")


def joined(batches: Sequence[ClickBatch]) -> ClickBatch:
    """One batch of all the rows, in order; fields hold one id a row."""
    if len(batches) == 1:
        return batches[0]
    keys = batches[0].sparse.keys()
    ids = torch.cat([batch.sparse.values().view(len(keys), len(batch)) for batch in batches], dim=1)
    dense = torch.cat([batch.dense for batch in batches])
    return ClickBatch(dense, keyed_ids(keys, ids), torch.cat([batch.labels for batch in batches]))


class TableFront:
    """Looks categories up, and lets the tables learn once a step from the gradient of what was looked up.

    The network sees detached embeddings: `backward` of a fused table would change it, and only `learn` may do that.
    """

    def __init__(self, tables: Tables, device: torch.device) -> None:
        self.tables = tables
        self.device = device
        self._batch: ClickBatch | None = None
        self._embedded: Tensor | None = None
        self._shard_size = 0

    def open(self, batches: Sequence[Any], learning_rate: float) -> tuple[list[Any], list[Tensor]]:
        self.tables.set_learning_rate(learning_rate)  # fused kernels take the rate with them from the lookup on
        self._batch, self._shard_size = joined(batches).to(self.device), len(batches[0])
        self._embedded = self.tables(self._batch, self._shard_size)
        parts = self._embedded.detach().split([len(batch) for batch in batches])
        leaves = [part.requires_grad_() for part in parts]
        dense = self._batch.dense.split([len(batch) for batch in batches])
        return list(zip(dense, leaves, strict=True)), leaves

    def square_norm(self, gradients: Sequence[Tensor]) -> float:
        assert self._batch is not None, "open comes first"
        return self.tables.gradient_square_norm(self._batch, torch.cat(list(gradients)), self._shard_size)

    def learn(self, gradients: Sequence[Tensor]) -> None:
        assert self._embedded is not None, "open comes first"
        self._embedded.backward(torch.cat(list(gradients)))
        self._batch = self._embedded = None


def click_task(tables: Tables, device: torch.device = CPU) -> Task:
    """Binary cross-entropy of logits [N] against batch.labels [N]; the network takes (dense, embedded)."""

    def inputs(batch: ClickBatch) -> tuple[Tensor, Tensor]:
        there = batch.to(device)
        return there.dense, tables(there).detach()

    return Task(
        inputs=inputs,
        loss=lambda logits, batch: F.binary_cross_entropy_with_logits(logits, batch.labels.to(device)),
        correct=lambda logits, batch: ((logits > 0) == (batch.labels.to(device) > 0.5)).sum(),
        size=len,
        front=TableFront(tables, device),
    )
