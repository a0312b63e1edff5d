"""Embedding tables in front of a click network: looked up once a batch, updated by their own optimiser in backward().

The same seed gives the same tables, and a state fits, whatever the number of processes, the optimiser's kernel and the
sharding. Gradients of all ranks add up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchrec import KeyedJaggedTensor

from subshot.data.batch import ClickBatch
from subshot.data.keyed_ids import keyed_ids
from subshot.train.dist import World, broadcast, gather_rows
from subshot.train.sharded_tables import ShardedStorage
from subshot.train.table_storage import DenseStorage, FusedStorage, Storage, TableOptimizer, TableShape, TableTensors

SMALL = 0.01

Fields = Sequence[tuple[str, int]]
"""(name, cardinality) of the categorical fields, in the order of a batch."""


@dataclass(frozen=True)
class TablesConfig:
    """How wide tables are, how they learn, and where they lie."""

    embedding_dim: int = 16
    optimizer: TableOptimizer = "adagrad"
    """adagrad: fused, one accumulator a weight. rowwise_adagrad: fused, one accumulator a row, a sixteenth of the
    memory. adagrad_dense: the same steps as adagrad through whole dense gradients, slow. Fused Adam does not exist on
    CPUs and is not offered."""
    eps: float = 1e-2
    """Added to the root in Adagrad; NASRec's value."""
    max_rows: int = 0
    """No table gets more rows; 0: no limit. Loaders must map ids with the same limit."""
    initial: Literal["xavier", "small"] = "xavier"
    """xavier: normal, as NASRec's. small: normal of deviation 0.01, for models that add up products of embeddings."""
    sharding: Literal["none", "dmp"] = "none"
    """none: every process holds all tables and makes the same updates. dmp: torchrec's DistributedModelParallel deals
    the tables out; one process alone holds all of them here too."""

    def __post_init__(self) -> None:
        if self.embedding_dim < 1 or self.eps < 0 or self.max_rows < 0 or self.max_rows == 1:
            raise ValueError(
                "embedding_dim must be at least 1, eps at least 0, and max_rows 0 (no limit) or at least 2; they are "
                f"{self.embedding_dim}, {self.eps} and {self.max_rows}"
            )
        if self.optimizer == "rowwise_adagrad" and self.embedding_dim % 4:
            raise ValueError(
                f"rowwise_adagrad needs an embedding_dim that is a multiple of 4, not {self.embedding_dim}: the fused "
                "kernel pads tables to one, and would count the padding in its means; use adagrad"
            )
        if self.optimizer == "adagrad_dense" and self.sharding == "dmp":
            raise ValueError(
                "tables with sharding dmp are updated by fused kernels alone; use adagrad or rowwise_adagrad"
            )


def table_shapes(fields: Fields, config: TablesConfig) -> list[TableShape]:
    """The tables as they are stored: rows under the limit, and columns filled up to what fbgemm takes, a multiple of 4.

    Raises ValueError on no field, a field named twice, or one without ids.
    """
    names = [name for name, _ in fields]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"embedding tables need one or more categorical fields of different names, not {names}")
    for name, cardinality in fields:
        if cardinality < 1:
            raise ValueError(f"field {name} has cardinality {cardinality}; a table needs at least one row")
    columns = config.embedding_dim if config.optimizer == "adagrad_dense" else -(-config.embedding_dim // 4) * 4
    return [TableShape(name, min(count, config.max_rows or count), columns) for name, count in fields]


def tables_mib(fields: Fields, config: TablesConfig) -> float:
    """MiB that weights and optimiser state will take, and the gradient where it is dense; nothing is allocated.

    In every process; with dmp in all of them together.
    """
    numbers = 0
    for shape in table_shapes(fields, config):
        copies = {
            "adagrad": 2 * shape.columns,
            "rowwise_adagrad": shape.columns + 1,
            "adagrad_dense": 3 * shape.columns,
        }
        numbers += shape.rows * copies[config.optimizer]
    return numbers * 4 / 2**20


class Tables:
    """One embedding table a categorical field; see `build_tables`."""

    def __init__(self, fields: Fields, config: TablesConfig, storage: Storage, world: World) -> None:
        self.names = [name for name, _ in fields]
        self.config = config
        shapes = table_shapes(fields, config)
        self._padding = shapes[0].columns - config.embedding_dim
        self._rows = torch.tensor([shape.rows for shape in shapes], device=world.device)
        self._storage, self._world = storage, world
        self._anchor = torch.zeros((), requires_grad=True)

    def __call__(self, batch: ClickBatch, shard_size: int = 0) -> Tensor:
        return self.forward(batch, shard_size)

    def forward(self, batch: ClickBatch, shard_size: int = 0) -> Tensor:
        """Embeddings [N, F, embedding_dim] of a batch, in the order of its fields.

        `backward` of the result, or of anything computed from it, updates the tables, with the sum of the gradients of
        all ranks: detach it for whatever only looks. Until then, and under torch.no_grad, nothing changes.

        shard_size: samples in one virtual shard; the batch is this rank's shards one after another. With sharding none
        the tables are then the same bits on any number of ranks; without it (0) they are the same to rounding. With dmp
        every rank must call this, and backward, equally often; any of them may have an empty batch.

        Raises ValueError where the batch has other fields, or an id that its table has no row for.
        """
        self._check(batch.sparse)
        if not torch.is_grad_enabled() or self._storage.holders or (self._storage.fused and self._world.size == 1):
            return self._unpadded(self._storage.lookup(batch.sparse))

        def learn(gradient: Tensor) -> None:
            ids, gradients = self._gathered(batch.sparse, gradient, shard_size)
            self._storage.learn(keyed_ids(self.names, ids), nn.functional.pad(gradients, (0, self._padding)))

        with torch.no_grad():
            pooled = self._unpadded(self._storage.lookup(batch.sparse))
        attached: Tensor = _Learning.apply(self._anchor, pooled, learn)  # type: ignore[no-untyped-call]
        return attached

    def set_learning_rate(self, learning_rate: float) -> None:
        """Of the updates from lookups made from now on: a fused kernel takes its rate in `forward`, and setting it
        between forward and backward comes too late. It is 0 until it is set."""
        self._storage.set_learning_rate(learning_rate)

    def gradient_square_norm(self, batch: ClickBatch, gradient: Tensor, shard_size: int = 0) -> float:
        """The squared L2 norm of the tables' gradient that a gradient [N, F, embedding_dim] of `forward` implies.

        Samples of all ranks count, and what an id gets from several of them adds up before it is squared. With it,
        scaling the gradient before `backward` is torch's clip_grad_norm_ over networks and tables, which cannot see by
        itself what fused tables learn from. All ranks call this; shard_size as in `forward`.
        """
        ids, gradients = self._gathered(batch.sparse, gradient, shard_size)
        return gradient_square_norm(ids, gradients, self._rows)

    def state(self) -> dict[str, Tensor]:
        """Whole tables as copies on the CPU, on every rank, whatever the sharding; all ranks call this.

        "<field>.weight" [rows, embedding_dim], and "<field>.accumulator", of the same shape or, with rowwise_adagrad,
        [rows].
        """
        return self._whole(("weight", "accumulator"))

    def weights(self) -> dict[str, Tensor]:
        """The weights of `state` alone: what a search or a served model needs."""
        return self._whole(("weight",))

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Puts back what `state` or `weights` gave, on any number of ranks and with any sharding.

        Without accumulators, they start again from 0. All ranks load the same state. Raises ValueError where it is of
        other tables, before anything is changed.
        """
        shapes = self._state_shapes()
        if not any(name.endswith(".accumulator") for name in state):
            shapes = {name: shape for name, shape in shapes.items() if name.endswith(".weight")}
        if odd := sorted(shapes.keys() ^ state.keys()):
            raise ValueError(f"the state is of other tables: {odd[0]!r} is in one of the two only")
        for name, shape in shapes.items():
            if tuple(state[name].shape) != shape:
                raise ValueError(
                    f"{name!r} is {list(state[name].shape)} in the state and {list(shape)} here; use the data, "
                    "max_rows, embedding_dim and optimizer that the state was made with"
                )
        for name, tensors in self._storage.tensors().items():
            self._unpadded(tensors.weight).copy_(state[f"{name}.weight"])
            accumulator = state.get(f"{name}.accumulator", torch.zeros(()))
            self._accumulator(tensors).copy_(accumulator)

    def initialise(self, seed: int) -> None:
        """Weights as `initial_weight` gives them, accumulators 0."""
        sizes = dict(zip(self.names, self._rows.tolist(), strict=True))
        for name, tensors in self._storage.tensors().items():
            self._unpadded(tensors.weight).copy_(initial_weight(name, sizes[name], self.config, seed))
            tensors.accumulator.zero_()

    def _check(self, sparse: KeyedJaggedTensor) -> None:
        if sparse.keys() != self.names:
            raise ValueError(
                f"the batch has the categorical fields {sparse.keys()} and the tables {self.names}; take both from "
                "one prepared folder"
            )
        ids = _ids(sparse)
        if ids.is_cuda:
            return  # the kernel stops at such an id; looking here would make the host wait for the GPU
        wrong = (ids < 0) | (ids >= self._rows[:, None])
        if wrong.any():
            field, place = wrong.nonzero()[0].tolist()
            raise ValueError(
                f"field {self.names[field]} has the id {int(ids[field, place])} and its table only {self._rows[field]} "
                "rows; load the data with the same max_rows and from the folder that the cardinalities are from"
            )

    def _gathered(self, sparse: KeyedJaggedTensor, gradient: Tensor, shard_size: int) -> tuple[Tensor, Tensor]:
        """All ranks' ids [F, N] and gradients [N, F, embedding_dim], in the order of virtual shards."""
        ids = _ids(sparse)
        assert gradient.shape == (ids.shape[1], ids.shape[0], self.config.embedding_dim), "as forward returned it"
        if self._world.size == 1:
            return ids, gradient
        all_ids = in_shard_order(gather_rows(ids.t().contiguous(), self._world), shard_size)
        return all_ids.t(), in_shard_order(gather_rows(gradient.contiguous(), self._world), shard_size)

    def _unpadded(self, values: Tensor) -> Tensor:
        return values[..., : self.config.embedding_dim]

    def _accumulator(self, tensors: TableTensors) -> Tensor:
        return tensors.accumulator if tensors.accumulator.ndim == 1 else self._unpadded(tensors.accumulator)

    def _state_shapes(self) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {}
        for name, rows in zip(self.names, self._rows.tolist(), strict=True):
            shapes[f"{name}.weight"] = (rows, self.config.embedding_dim)
            one_a_row = self.config.optimizer == "rowwise_adagrad"
            shapes[f"{name}.accumulator"] = (rows,) if one_a_row else (rows, self.config.embedding_dim)
        return shapes

    def _whole(self, parts: Sequence[str]) -> dict[str, Tensor]:
        mine, shapes = self._storage.tensors(), self._state_shapes()
        whole = {}
        for name in self.names:
            for part in parts:
                key = f"{name}.{part}"
                value = torch.empty(shapes[key], device=self._world.device)
                if name in mine:
                    held = mine[name]
                    value.copy_(self._unpadded(held.weight) if part == "weight" else self._accumulator(held))
                if self._storage.holders:
                    broadcast(value, self._storage.holders[name], self._world)
                whole[key] = value.cpu()
        return whole


def build_tables(fields: Fields, config: TablesConfig, seed: int, world: World) -> Tables:
    """Tables of the fields' cardinalities (at most config.max_rows), initialised from the seed. All ranks call this.

    Raises ValueError on impossible fields, and with dmp where the ranks have no room for the tables.
    """
    shapes = table_shapes(fields, config)
    storage: Storage
    if config.optimizer == "adagrad_dense":
        storage = DenseStorage(shapes, config.eps, world.device)
    elif config.sharding == "dmp" and world.size > 1:
        storage = ShardedStorage(shapes, config.optimizer, config.eps, world)
    else:
        storage = FusedStorage(shapes, config.optimizer, config.eps, world.device)
    tables = Tables(fields, config, storage, world)
    tables.initialise(seed)
    return tables


def initial_weight(name: str, rows: int, config: TablesConfig, seed: int) -> Tensor:
    """Normal [rows, embedding_dim] from (seed, name, shape) alone; deviation sqrt(2 / (rows + columns)), or 0.01."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    weight = torch.empty(rows, config.embedding_dim)
    if config.initial == "small":
        return nn.init.normal_(weight, std=SMALL, generator=generator)
    return nn.init.xavier_normal_(weight, generator=generator)


def gradient_square_norm(ids: Tensor, gradient: Tensor, rows: Tensor) -> float:
    """The sum over fields and ids of the squared norm of an id's summed gradient, in float64.

    ids: [F, N]. gradient: [N, F, columns]. rows: [F], the number of ids of each field.
    """
    first = rows.cumsum(0) - rows
    _, place = torch.unique((ids + first[:, None]).flatten(), return_inverse=True)
    flat = gradient.transpose(0, 1).reshape(len(place), -1).double()
    return float(torch.zeros_like(flat).index_add_(0, place, flat).square().sum())


def in_shard_order(parts: Sequence[Tensor], shard_size: int) -> Tensor:
    """One tensor of all ranks' samples: shards 0, 1, 2, ..., of which rank r has r, r + ranks, ... one after another.

    With shard_size 0, or where a rank has none and so no other more than one, rank by rank.
    """
    if not shard_size or any(len(part) == 0 for part in parts):
        return torch.cat(list(parts))
    shards = [part.split(shard_size) for part in parts]
    rounds = max(map(len, shards))
    return torch.cat([mine[turn] for turn in range(rounds) for mine in shards if turn < len(mine)])


def _ids(sparse: KeyedJaggedTensor) -> Tensor:
    ids: Tensor = sparse.values()
    assert ids.numel() == len(sparse.keys()) * sparse.stride(), "one id a sample and field"
    return ids.view(len(sparse.keys()), sparse.stride())


class _Learning(torch.autograd.Function):
    """Hands out values whose gradient goes to a function. The anchor makes autograd come by."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, values: Tensor, learn: Callable[[Tensor], None]) -> Tensor:
        ctx.learn = learn
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, None]:
        with torch.enable_grad():
            ctx.learn(gradients[0])
        return None, None, None
