"""A CTR run as the stages see it: prepared clicks, a NASRec space, its supernet and tables, scores, retraining."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from subshot.data.clicks import ClickLoader
from subshot.launch.click_config import ClickConfig, ClickSpaceConfig
from subshot.launch.click_data import ClickData, open_click_data
from subshot.launch.click_retrain import retrain
from subshot.launch.click_scoring import make_scorer
from subshot.launch.click_warmup import load, save, warm_up
from subshot.launch.domain import RetrainPlan, Scorer
from subshot.launch.run_log import RunLog
from subshot.search.objectives import Limit
from subshot.search.rejection import CostLimit, RejectionSampler
from subshot.supernet.nasrec import NasrecSpace, autoctr_in_nasrec, nasrec_full, nasrec_small
from subshot.supernet.nasrec_supernet import NasrecSupernet
from subshot.supernet.space import Genotype
from subshot.train.dist import World
from subshot.train.run_dir import RunDir
from subshot.train.tables import Tables, TablesConfig, build_tables, tables_mib

SPACES = {"nasrec-small": nasrec_small, "nasrec-full": nasrec_full, "autoctr": autoctr_in_nasrec}


def make_click_space(config: ClickSpaceConfig, dense_features: int, sparse_fields: int) -> NasrecSpace:
    """Raises ValueError where the limits on the widths leave none."""
    space = SPACES[config.name](dense_features, sparse_fields, config.blocks)
    dense = tuple(dim for dim in space.dense_dims if dim <= config.max_dense_dim)
    sparse = tuple(dim for dim in space.sparse_dims if dim <= config.max_sparse_dim)
    if not dense or not sparse:
        raise ValueError(
            f"space.max_dense_dim {config.max_dense_dim} and max_sparse_dim {config.max_sparse_dim} leave no width; "
            f"the smallest are {min(space.dense_dims)} and {min(space.sparse_dims)}"
        )
    return replace(space, dense_dims=dense, sparse_dims=sparse)


class ClickNetworks:
    """See subshot.launch.domain.Networks. MACs and parameters are those of the network that is trained in the end,
    without layer normalisation and without tables."""

    def __init__(self, config: ClickConfig, dense_features: int, sparse_fields: int) -> None:
        self.config = config
        self.space = make_click_space(config.space, dense_features, sparse_fields)

    def sampler(self, near: Limit | None = None) -> RejectionSampler:
        limits = self.config.limits
        macs = Limit("macs", limits.max_macs or None, limits.min_macs or None) if near is None else near
        bounds = [CostLimit(lambda genotype: self.space.cost(genotype).macs, macs)]
        if near is None and limits.max_params:
            bounds.append(
                CostLimit(lambda genotype: self.space.cost(genotype).params, Limit("params", limits.max_params))
            )
        bounds = [bound for bound in bounds if math.isfinite(bound.limit.high) or math.isfinite(bound.limit.low)]
        draw = partial(self.space.draw, connections="uniform")
        return RejectionSampler(self.space, draw, self.space.mutate, bounds)

    def costs(self, genotype: Genotype) -> dict[str, int]:
        cost = self.space.cost(genotype)
        modules = self.space.num_modules(genotype)
        return {
            "macs": cost.macs,
            "params": cost.params,
            "activation_elements": cost.activation_elements,
            "num_modules": modules,
        }


@dataclass(frozen=True)
class WarmSupernet:
    """The supernet and the tables in front of it."""

    network: NasrecSupernet
    tables: Tables


class ClickDomain(ClickNetworks):
    """See subshot.launch.domain.Domain. Raises DataError or ValueError where data, limits or settings cannot be."""

    def __init__(self, config: ClickConfig, world: World) -> None:
        self.world = world
        self.data: ClickData = open_click_data(config, world)
        super().__init__(config, len(self.data.dense_fields), len(self.data.fields))
        self.tables_config = TablesConfig(
            optimizer=config.tables.optimizer, max_rows=config.tables.max_rows, sharding=config.tables.sharding
        )
        if config.batches.num_shards % world.size:
            shards = config.batches.num_shards
            raise ValueError(f"batches.num_shards is {shards}; it must be a multiple of the {world.size} processes")
        self.sampler()

    @property
    def summary(self) -> str:
        mib = tables_mib(self.data.fields, self.tables_config)
        return f"{self.data.summary}; tables of the search: {mib:,.0f} MiB with their optimiser's state"

    def warm(self, run: RunDir, log: RunLog) -> WarmSupernet:
        config, world = self.config, self.world
        supernet = NasrecSupernet(self.space, torch.Generator().manual_seed(config.seed))
        tables = build_tables(self.data.fields, self.tables_config, config.seed, world)
        warm = WarmSupernet(supernet, tables)
        if run.supernet.is_file():
            load(supernet, tables, run)
            log.line("the supernet is warm already")
            return warm
        weights = sum(weight.numel() for weight in supernet.parameters())
        log.line(f"supernet: {weights / 1e6:.1f} M weights, {weights * 8 / 2**20:,.0f} MiB with Adagrad's state")
        if config.warmup.fraction == 0.0:
            log.line("warm-up: none, the weights stay as they were initialised")
            save(supernet, tables, world, run)
            return warm
        loader = ClickLoader(
            self.data.split("train"),
            batch_size=config.batches.batch_size,
            num_shards=config.batches.num_shards,
            seed=config.seed,
            rank=world.rank,
            world=world.size,
            fraction=config.warmup.fraction,
            max_rows_per_table=config.tables.max_rows,
        )
        base_rate = self.data.split("train").base_rate
        shards = config.batches.num_shards
        warm_up(supernet, tables, loader, config.warmup, base_rate, config.seed, shards, world, run, log)
        return warm

    def scorer(self, supernet: Any, run: RunDir, log: RunLog) -> Scorer:
        warm: WarmSupernet = supernet
        return make_scorer(self.config, warm.network, warm.tables, self.data, self.sampler(), self.world, run, log)

    def retrain(self, plan: RetrainPlan, run: RunDir, log: RunLog) -> Path:
        return retrain(plan, self.config, self.space, self.data, self.world, run, log)
