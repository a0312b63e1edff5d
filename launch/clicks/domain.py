"""A CTR run as the stages see it: prepared clicks, a NASRec space, its supernet and tables, scores, retraining."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from subshot.data.click_formats import Dataset
from subshot.data.clicks import ClickLoader
from subshot.launch.clicks.config import ClickConfig
from subshot.launch.clicks.contenders import baselines
from subshot.launch.clicks.correlation import ClickTrainings
from subshot.launch.clicks.data import SPLITS, ClickData, open_click_data
from subshot.launch.clicks.retrain import planned, retrain, retrain_element
from subshot.launch.clicks.scoring import make_scorer, require_batches
from subshot.launch.clicks.space import make_click_space
from subshot.launch.clicks.warmup import load, save, warm_up
from subshot.launch.domain import RetrainPlan, Scorer
from subshot.launch.manifest import Element, Manifest
from subshot.launch.options import at_least
from subshot.launch.run_log import RunLog
from subshot.search.objectives import Limit
from subshot.search.rejection import CostLimit, RejectionSampler
from subshot.supernet.nasrec_supernet import NasrecSupernet
from subshot.supernet.space import Genotype
from subshot.train.dist import World, of_main
from subshot.train.run_dir import RunDir
from subshot.train.tables import Tables, TablesConfig, build_tables, tables_mib


class ClickNetworks:
    """See subshot.launch.domain.Networks. MACs and parameters are those of the network that is trained in the end,
    without tables."""

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
        cost = self.space.cost(genotype, self.config.retrain.layer_norm)
        modules = self.space.num_modules(genotype)
        return {
            "macs": cost.macs,
            "params": cost.params,
            "activation_elements": cost.activation_elements,
            "num_modules": modules,
        }


def require_usable(config: ClickConfig, data: ClickData) -> None:
    """Raises ValueError for clicks that the settings do not fit, in the search or in the retraining after it."""
    wanted, dataset = config.preset.rsplit("-", 1)[-1], data.prepared.dataset
    if wanted in get_args(Dataset) and wanted != dataset:
        raise ValueError(f"the preset {config.preset} is for {wanted}, and {data.prepared.root} holds {dataset}")
    at_least("", config, seed=0)
    for name in SPLITS:
        split = data.split(name)
        if not 0.0 < split.base_rate < 1.0:
            raise ValueError(f"all {split.rows} {name} rows have the same label; a model needs clicks and others")
    if config.retrain.batch_size > len(data.split("train")):
        raise ValueError(
            f"retrain.batch_size is {config.retrain.batch_size}, and there are {len(data.split('train'))} training rows"
        )


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
            optimizer=config.tables.optimizer,
            eps=config.warmup.recipe.eps,
            max_rows=config.tables.max_rows,
            sharding=config.tables.sharding,
        )
        if config.batches.num_shards % world.size:
            shards = config.batches.num_shards
            raise ValueError(f"batches.num_shards is {shards}; it must be a multiple of the {world.size} processes")
        require_usable(config, self.data)
        self.sampler().draw(np.random.default_rng(config.seed), 1)
        baselines(config.retrain.baselines, self.space, self.data.prepared.dataset)
        self.loader = None if config.warmup.fraction == 0.0 else self._warmup_loader()
        require_batches(config, self.data)

    def _warmup_loader(self) -> ClickLoader:
        config, world = self.config, self.world
        return ClickLoader(
            self.data.split("train"),
            batch_size=config.batches.batch_size,
            num_shards=config.batches.num_shards,
            seed=config.seed,
            rank=world.rank,
            world=world.size,
            fraction=config.warmup.fraction,
            max_rows_per_table=config.tables.max_rows,
        )

    @property
    def summary(self) -> str:
        search = tables_mib(self.data.fields, self.tables_config)
        final = tables_mib(self.data.fields, replace(self.tables_config, max_rows=self.config.retrain.max_rows))
        return (
            f"{self.data.summary}; tables with their optimiser's state: {search:,.0f} MiB in the search, "
            f"{final:,.0f} MiB a process in retraining"
        )

    def fingerprint(self) -> dict[str, Any]:
        return self.data.fingerprint()

    def warm(self, run: RunDir, log: RunLog) -> WarmSupernet:
        config, world = self.config, self.world
        supernet = NasrecSupernet(self.space, torch.Generator().manual_seed(config.seed)).to(world.device)
        tables = build_tables(self.data.fields, self.tables_config, config.seed, world)
        warm = WarmSupernet(supernet, tables)
        if of_main(run.supernet.is_file(), world):
            load(supernet, tables, run)
            log.line("the supernet is warm already")
            return warm
        weights = sum(weight.numel() for weight in supernet.parameters())
        log.line(f"supernet: {weights / 1e6:.1f} M weights, {weights * 8 / 2**20:,.0f} MiB with Adagrad's state")
        if self.loader is None:
            log.line("warm-up: none, the weights stay as they were initialised")
            save(supernet, tables, world, run)
            return warm
        base_rate = self.data.split("train").base_rate
        shards = config.batches.num_shards
        warm_up(supernet, tables, self.loader, config.warmup, base_rate, config.seed, shards, world, run, log)
        return warm

    def scorer(self, supernet: Any, run: RunDir, log: RunLog) -> Scorer:
        warm: WarmSupernet = supernet
        return make_scorer(self.config, warm.network, warm.tables, self.data, self.sampler(), self.world, run, log)

    def manifest(self, plan: RetrainPlan, run: RunDir) -> Manifest:
        return planned(plan, self.config, self.space, self.data, run)

    def retrain_element(self, element: Element, run: RunDir, log: RunLog) -> Path:
        return retrain_element(element, self.config, self.space, self.data, self.world, run, log)

    def retrain(self, plan: RetrainPlan, run: RunDir, log: RunLog) -> Path:
        return retrain(plan, self.config, self.space, self.data, self.world, run, log)

    def trainings(self) -> ClickTrainings:
        return ClickTrainings(self.config, self.space, self.data, self.world)
