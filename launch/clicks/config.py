"""The configuration of a CTR run: frozen records, one a concern, as launch/config.py has them for images."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tyro

from subshot.launch.options import at_least
from subshot.search.evolution import EvolutionConfig
from subshot.train.recipe import Recipe


def require_honoured(section: str, recipe: Recipe) -> None:
    """CTR networks are trained by Adagrad, as NASRec's are. Raises ValueError for what would be silently ignored."""
    wanted = {"optimizer": "adagrad", "weight_decay": 0.0, "label_smoothing": 0.0, "ema_decay": 0.0, "dropout": 0.0}
    for name, value in (wanted | {"precision": "float32"}).items():
        if getattr(recipe, name) != value:
            raise ValueError(
                f"{section}.recipe.{name} is {getattr(recipe, name)!r}; for clicks it can only be {value!r}"
            )


@dataclass(frozen=True)
class ClickSpaceConfig:
    """Which networks are searched. Fields and their number come from the data."""

    name: Literal["nasrec-small", "nasrec-full", "autoctr"] = "nasrec-small"
    """NASRec-Small, NASRec-Full, or AutoCTR's operators in NASRec's form."""
    blocks: int = 7
    """Choice blocks, one after the other."""
    max_dense_dim: int = 1024
    """Dense widths above this are left out of the space."""
    max_sparse_dim: int = 64
    """Numbers of tokens above this are left out of the space."""


@dataclass(frozen=True)
class ClickBatchesConfig:
    """How prepared rows become batches."""

    batch_size: int = 512
    """Global, over all processes."""
    num_shards: int = 1
    """Virtual shards of a global batch; a multiple of the number of processes."""
    eval_batch_size: int = 8192
    """Rows that are scored at a time."""

    def __post_init__(self) -> None:
        at_least("batches.", self, batch_size=1, num_shards=1, eval_batch_size=1)
        if self.batch_size % self.num_shards:
            raise ValueError(
                f"batches.batch_size {self.batch_size} must be a multiple of batches.num_shards {self.num_shards}"
            )


@dataclass(frozen=True)
class ClickTablesConfig:
    """The embedding tables, in the search and in retraining; 16 numbers a category, as the space has them."""

    optimizer: Literal["adagrad", "rowwise_adagrad"] = "adagrad"
    """Fused: tables learn in their own backward pass. rowwise_adagrad keeps one accumulator a row, not one a weight."""
    sharding: Literal["none", "dmp"] = "none"
    """With several processes: every one holds all tables, or torchrec's DistributedModelParallel deals them out."""
    max_rows: int = 500_000
    """Larger tables are folded to this many rows in the search (NASRec's cap); 0 for no cap."""


@dataclass(frozen=True)
class ClickWarmupConfig:
    """How the supernet is trained before it ranks subnets."""

    recipe: Recipe
    fraction: float = 1.0
    """Of the training rows, 0 to 1: a fixed seeded subset. 0 leaves the weights at their initialisation."""
    full_path_share: float = 0.2
    """The probability of the full path falls from 1 to 0 over this share of the steps, however many they are. NASRec:
    15,000 of 71,626 steps. The public 1 % run keeps the 15,000, so that it hardly leaves the full path."""
    connections: Literal["binomial", "uniform"] = "binomial"
    """How many inputs a sampled block reads: 1 + Binomial(min(n - 1, 3), 1/2), or uniform from 1 to min(n, 4)."""
    stuck_steps: int = 2000
    """Warm-up stops where the mean loss of so many steps is not below the base rate's entropy."""
    checkpoint_steps: int = 500
    """A checkpoint is written at least after so many steps."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.fraction <= 1.0:
            raise ValueError(f"warmup.fraction is {self.fraction}; it must be in [0, 1]")
        if not 0.0 <= self.full_path_share <= 1.0:
            raise ValueError(f"warmup.full_path_share is {self.full_path_share}; it must be in [0, 1]")
        at_least("warmup.", self, stuck_steps=1, checkpoint_steps=1)
        require_honoured("warmup", self.recipe)


@dataclass(frozen=True)
class ClickScoreConfig:
    """What ranks subnets. Higher is better, always."""

    kind: Literal["sigeo", "zico", "sigeo_reference", "one_shot"] = "sigeo"
    """sigeo: the three terms, standardised over a reference population, then weighted. zico: the first term alone.
    sigeo_reference: what the public code computes (last layer, single entries). one_shot: NASRec's, validation log loss
    of the inherited weights after the last layer was tuned."""
    batches: int = 4
    """Training batches that gradients are taken on; the same for every candidate."""
    zico_weight: float = 1.0
    """sigeo: of the standardised ZiCo term."""
    fisher_rao_weight: float = 1.0
    """sigeo: of the standardised logarithm of the Fisher-Rao norm."""
    loss_weight: float = 1.0
    """sigeo: of the standardised loss, which is subtracted."""
    population: int = 128
    """Random networks over which the terms are standardised."""
    tune_steps: int = 500
    """one_shot: Adagrad steps of the last layer."""
    tune_rate: float = 0.04
    """one_shot: their learning rate."""
    tune_batches: int = 50
    """one_shot: training batches that these steps go round."""
    validation_batches: int = 0
    """one_shot: batches of eval_batch_size of the validation split; 0 for all."""

    def __post_init__(self) -> None:
        at_least("score.", self, batches=2, population=2, tune_steps=0, tune_batches=1, validation_batches=0)


@dataclass(frozen=True)
class ClickLimitsConfig:
    """What a network may cost; 0 for no limit. Tables are not counted: they are the same for all."""

    max_macs: float = 0.0
    """Multiply-accumulates of one row."""
    min_macs: float = 0.0
    """At least so many multiply-accumulates of one row."""
    max_params: float = 0.0
    """At most so many parameters, tables apart."""


@dataclass(frozen=True)
class ClickRetrainConfig:
    """How winners, controls and baselines are trained from scratch."""

    recipe: Recipe
    batch_size: int = 256
    """Rows a step."""
    layer_norm: bool = False
    """Of searched and published networks; NASRec's final networks have none. With it, chains of products and
    factorisation machines do not overflow, which they may without it on little data; baselines have none."""
    top: int = 15
    """Networks from the best down, of which the validation split chooses one."""
    controls: int = 5
    """Random networks of the winner's cost, of which the validation split chooses one."""
    seeds: int = 3
    """Trainings of each that is tested."""
    learning_rates: tuple[float, ...] = (0.05, 0.1, 0.2)
    """What the chosen network, the chosen control and every baseline are tuned over, on the validation split."""
    baselines: tuple[str, ...] = ("logistic_regression", "fm", "deepfm", "dlrm", "dcn_v2", "nasrec")
    """Named networks beside them; nasrec: the published winner of the data set, where there is one."""
    max_rows: int = 0
    """Of a table; 0: full size."""

    def __post_init__(self) -> None:
        at_least("retrain.", self, batch_size=1, top=1, controls=0, seeds=1, max_rows=0)
        require_honoured("retrain", self.recipe)
        for rate in self.learning_rates:
            if not rate > 0.0:
                raise ValueError(f"retrain.learning_rates has {rate}; every one must be above 0")


@dataclass(frozen=True)
class ClickConfig:
    """Everything a run depends on, but for where it lies."""

    preset: tyro.conf.Suppress[str]
    space: ClickSpaceConfig
    warmup: ClickWarmupConfig
    retrain: ClickRetrainConfig
    batches: ClickBatchesConfig = field(default_factory=ClickBatchesConfig)
    tables: ClickTablesConfig = field(default_factory=ClickTablesConfig)
    score: ClickScoreConfig = field(default_factory=ClickScoreConfig)
    limits: ClickLimitsConfig = field(default_factory=ClickLimitsConfig)
    evolution: EvolutionConfig = field(default_factory=EvolutionConfig)
    seed: int = 0
    """Of initial weights, orders, paths and search; equal seeds give equal histories."""
    threads: int = 1
    """torch threads a process."""
    data: Path | None = None
    """A folder that launch/prepare.py wrote; None where the preset generates its own log."""
