"""Where embedding tables lie and how they learn: torchrec's fused kernel, or ordinary tensors with a dense gradient.

`Tables` (subshot.train.tables) is what the rest of the program sees; a storage knows only lookups and updates.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from fbgemm_gpu.split_table_batched_embeddings_ops_common import BoundsCheckMode
from torch import Tensor, nn
from torchrec import EmbeddingBagCollection, EmbeddingBagConfig, KeyedJaggedTensor
from torchrec.modules.fused_embedding_modules import FusedEmbeddingBagCollection
from torchrec.optim import RowWiseAdagrad

# torchrec asks torch whether it is being traced; once in every process torch logs that the question has a new name.
logging.getLogger("torch.fx._symbolic_trace").addFilter(
    lambda record: not record.getMessage().startswith("is_fx_tracing will return true")
)

TableOptimizer = Literal["adagrad", "rowwise_adagrad", "adagrad_dense"]


@dataclass(frozen=True)
class TableShape:
    """One table, of one field: `rows` ids, `columns` numbers each."""

    name: str
    rows: int
    columns: int


@dataclass(frozen=True)
class TableTensors:
    """One table as it lies in memory; writing into the tensors changes it.

    weight: [rows, columns]. accumulator: Adagrad's sum of squared gradients, [rows, columns]; of row-wise Adagrad the
    sum of their means over the columns, [rows].
    """

    weight: Tensor
    accumulator: Tensor


class Storage(Protocol):
    """Tables of some shapes. Learning rates are 0 until one is set."""

    @property
    def fused(self) -> bool:
        """Whether backward() of a lookup is itself the update."""
        ...

    @property
    def holders(self) -> Mapping[str, int]:
        """The rank that holds a table, of every table; empty where each rank holds all and updates only its own."""
        ...

    def lookup(self, sparse: KeyedJaggedTensor) -> Tensor:
        """[N, F, columns] of one id a sample and field, the fields in the order of the shapes."""
        ...

    def learn(self, sparse: KeyedJaggedTensor, gradient: Tensor) -> None:
        """One optimiser step on the rows that were looked up; gradient: [N, F, columns]."""
        ...

    def set_learning_rate(self, learning_rate: float) -> None: ...

    def tensors(self) -> dict[str, TableTensors]:
        """The tables that this rank holds."""
        ...


PREFIX = "table_"
"""Of a table's name for torchrec, which keeps tables as parts of a module: a field may be called type, or items."""


def bag_configs(shapes: Sequence[TableShape]) -> list[EmbeddingBagConfig]:
    """torchrec's description; a table's feature and the key in a batch bear the field's name."""
    return [
        EmbeddingBagConfig(
            name=f"{PREFIX}{shape.name}",
            embedding_dim=shape.columns,
            num_embeddings=shape.rows,
            feature_names=[shape.name],
        )
        for shape in shapes
    ]


def bounds_check(device: torch.device) -> BoundsCheckMode:
    """By default fbgemm reads row 0 for an id that no row has. `Tables` looks for such ids before; where that would
    make a GPU wait, the kernel stops instead."""
    return BoundsCheckMode.FATAL if device.type == "cuda" else BoundsCheckMode.NONE


class FusedStorage:
    """All tables in this process, updated by fbgemm's kernel inside backward().

    The kernel adds up the gradients of an id that occurs several times, and then makes one Adagrad step on that row:
    what torch.optim.Adagrad does with the dense gradient, without ever building it.
    """

    def __init__(
        self, shapes: Sequence[TableShape], optimizer: TableOptimizer, eps: float, device: torch.device
    ) -> None:
        kind = {"adagrad": torch.optim.Adagrad, "rowwise_adagrad": RowWiseAdagrad}[optimizer]
        settings = {"lr": 0.0, "eps": eps, "bounds_check_mode": bounds_check(device)}
        self.fused, self.holders = True, dict[str, int]()
        self._shape = (len(shapes), shapes[0].columns)
        self._bags = FusedEmbeddingBagCollection(bag_configs(shapes), kind, settings, device=device)

    def lookup(self, sparse: KeyedJaggedTensor) -> Tensor:
        return _looked_up(self._bags, sparse, self._shape)

    def learn(self, sparse: KeyedJaggedTensor, gradient: Tensor) -> None:
        self.lookup(sparse).backward(gradient)

    def set_learning_rate(self, learning_rate: float) -> None:
        push_learning_rate(self._bags.fused_optimizer(), learning_rate)

    def tensors(self) -> dict[str, TableTensors]:
        states = self._bags.fused_optimizer().state_dict()["state"]
        found = {}
        for name, bag in self._bags.embedding_bags.items():
            (accumulator,) = states[f"{name}.weight"].values()
            found[name.removeprefix(PREFIX)] = TableTensors(bag.weight.detach(), accumulator)
        return found


class DenseStorage:
    """All tables in this process, as ordinary parameters: torch.optim.Adagrad walks over every row at every step.

    Slow, and exact by construction: what the fused kernels are measured against.
    """

    def __init__(self, shapes: Sequence[TableShape], eps: float, device: torch.device) -> None:
        self.fused, self.holders = False, dict[str, int]()
        self._shape = (len(shapes), shapes[0].columns)
        self._bags = EmbeddingBagCollection(tables=bag_configs(shapes), device=device)
        self._optimizer = torch.optim.Adagrad(self._bags.parameters(), lr=0.0, eps=eps)

    def lookup(self, sparse: KeyedJaggedTensor) -> Tensor:
        return _looked_up(self._bags, sparse, self._shape)

    def learn(self, sparse: KeyedJaggedTensor, gradient: Tensor) -> None:
        self.lookup(sparse).backward(gradient)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def set_learning_rate(self, learning_rate: float) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate

    def tensors(self) -> dict[str, TableTensors]:
        state = self._optimizer.state
        bags = self._bags.embedding_bags.items()
        found = {name: TableTensors(bag.weight.detach(), state[bag.weight]["sum"]) for name, bag in bags}
        return {name.removeprefix(PREFIX): tensors for name, tensors in found.items()}


def _looked_up(bags: nn.Module, sparse: KeyedJaggedTensor, shape: tuple[int, int]) -> Tensor:
    """[N, *shape]; torchrec's collections in one process cannot take a batch of no samples."""
    samples = sparse.stride()
    if samples == 0:
        return torch.zeros(0, *shape, device=sparse.values().device, requires_grad=True)
    pooled: Tensor = bags(sparse).values()
    return pooled.view(samples, *shape)


def push_learning_rate(fused_optimizer: Any, learning_rate: float) -> None:
    """A rate in param_groups has no effect until step() hands it to the kernel; step() does nothing else."""
    for group in fused_optimizer.param_groups:
        group["lr"] = learning_rate
    fused_optimizer.step()
