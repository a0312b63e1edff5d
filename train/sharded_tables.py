"""Tables dealt out over processes: torchrec's DistributedModelParallel, its planner, and whole tables on single ranks.

Only the tables are in it. Networks stay outside, so that no DistributedDataParallel with a static graph stands around
a supernet whose path changes at every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from torch import Tensor
from torchrec import EmbeddingBagCollection, KeyedJaggedTensor
from torchrec.distributed import DistributedModelParallel
from torchrec.distributed.comm import get_local_size
from torchrec.distributed.comm_ops import set_gradient_division
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.planner import EmbeddingShardingPlanner, ParameterConstraints
from torchrec.distributed.planner.storage_reservations import FixedPercentageStorageReservation
from torchrec.distributed.planner.types import KernelConfig, PlannerError, TopologyFactory, TrainerConfig

from subshot.train.dist import World, process_group
from subshot.train.table_storage import (
    PREFIX,
    TableOptimizer,
    TableShape,
    TableTensors,
    bag_configs,
    bounds_check,
    push_learning_rate,
)

RESERVED = 0.15
"""The share of a device's memory that the planner leaves to networks and batches: torchrec's default."""


class ShardedStorage:
    """Each table lies on one rank; a lookup sends ids to its holder and gets rows back, and backward() the gradients.

    Table-wise only: to split a table by rows needs a reduce-scatter, which gloo lacks; by columns, more of them.
    Every rank calls `lookup` and the backward pass of what it returned equally often, with any number of samples.
    """

    def __init__(self, shapes: Sequence[TableShape], optimizer: TableOptimizer, eps: float, world: World) -> None:
        """Raises ValueError where the planner finds no room."""
        kinds = {"adagrad": EmbOptimType.EXACT_ADAGRAD, "rowwise_adagrad": EmbOptimType.EXACT_ROWWISE_ADAGRAD}
        # Sharding writes into this dict, so it belongs to this storage alone.
        settings = {
            "optimizer": kinds[optimizer],
            "learning_rate": 0.0,
            "eps": eps,
            "bounds_check_mode": bounds_check(world.device),
        }
        sharder = EmbeddingBagCollectionSharder(fused_params=settings)
        bags = EmbeddingBagCollection(tables=bag_configs(shapes), device=torch.device("meta"))
        plan = _plan(bags, shapes, sharder, world)
        # Gradients add up over ranks, as they do over samples; torchrec would divide them by the number of ranks.
        set_gradient_division(False)
        self._names = [shape.name for shape in shapes]
        self._columns = shapes[0].columns
        self._model = DistributedModelParallel(
            bags, device=world.device, plan=plan, sharders=[sharder], init_data_parallel=False
        )
        ranks = {name.removeprefix(PREFIX): table.ranks[0] for name, table in plan.plan[""].items()}
        self.fused, self.holders = True, ranks

    def lookup(self, sparse: KeyedJaggedTensor) -> Tensor:
        pooled = self._model(sparse).wait()
        arrived = {name: place for place, name in enumerate(pooled.keys())}  # by rank, not in the order of the fields
        order = torch.tensor([arrived[name] for name in self._names], device=pooled.values().device)
        values: Tensor = pooled.values()
        return values.view(len(values), len(self._names), self._columns).index_select(1, order)

    def learn(self, sparse: KeyedJaggedTensor, gradient: Tensor) -> None:
        self.lookup(sparse).backward(gradient)

    def set_learning_rate(self, learning_rate: float) -> None:
        push_learning_rate(self._model.fused_optimizer, learning_rate)

    def tensors(self) -> dict[str, TableTensors]:
        weights = self._model.state_dict()
        states = self._model.fused_optimizer.state_dict()["state"]
        found = {}
        for name in self._names:
            key = f"embedding_bags.{PREFIX}{name}.weight"
            if weights[key].local_shards():
                (accumulator,) = states[key].values()
                found[name] = TableTensors(_local(weights[key]), _local(accumulator))
        return found


def _plan(bags: EmbeddingBagCollection, shapes: Sequence[TableShape], sharder: Any, world: World) -> Any:
    """The planner's choice of a rank for each table, made on rank 0 and sent to all."""
    memory = torch.cuda.get_device_properties(world.device).total_memory if world.device.type == "cuda" else None
    topology = TopologyFactory.create_topology(
        TrainerConfig(world_size=world.size, local_world_size=get_local_size(world.size), hbm_cap_bytes=memory),
        kernel_config=KernelConfig(compute_device=world.device.type),
    )
    whole = ParameterConstraints(sharding_types=["table_wise"], compute_kernels=["fused"])
    planner = EmbeddingShardingPlanner(
        topology=topology,
        storage_reservation=FixedPercentageStorageReservation(RESERVED),
        constraints={f"{PREFIX}{shape.name}": whole for shape in shapes},
    )
    try:
        return planner.collective_plan(bags, [sharder], process_group(world))
    except PlannerError as error:
        raise ValueError(
            f"the embedding tables do not fit on {world.size} ranks; use more ranks or a lower max_rows: {error}"
        ) from error


def _local(sharded: Any) -> Tensor:
    (shard,) = sharded.local_shards()
    tensor: Tensor = shard.tensor.detach()
    return tensor
