"""Presets of searches for click-through-rate models. The docstrings are what `--help` shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from subshot.launch.clicks.config import (
    ClickBatchesConfig,
    ClickConfig,
    ClickRetrainConfig,
    ClickScoreConfig,
    ClickSpaceConfig,
    ClickWarmupConfig,
)
from subshot.search.evolution import EvolutionConfig
from subshot.train.recipe import Recipe

NasrecName = Literal["nasrec-small", "nasrec-full"]

NASREC_EVOLUTION = EvolutionConfig(
    budget=2048,
    population=128,
    sample=64,
    children=8,
    mutations=6.0,
    schedule="falling",
    crossover=0.0,
    best=15,
    controls=5,
    patience=2048,
)
"""NASRec's: 128 random networks, then 240 generations of 8 children of the best of 64 (nasrec/searcher)."""

NASREC_WARMUP = Recipe(
    epochs=1,
    learning_rate=0.12,
    optimizer="adagrad",
    schedule="cosine",
    warmup_epochs=0.1,
    weight_decay=0.0,
    label_smoothing=0.0,
    clip_norm=5.0,
)
"""NASRec's training of supernets, and with another rate of final networks."""


def clicks() -> ClickConfig:
    """The demo: a synthetic log of known least loss, in NASRec-Small of 4 narrow blocks.

    Command: torchrun --nproc-per-node 2 launch/search.py clicks --run-dir runs/clicks
    Hardware: 2 CPU cores, no GPU.
    Time: measured 4 minutes, retraining included, on 2 cores that other work shared.
    Result: measured: test log loss 0.3276 with 0.05 M weights; DLRM 0.3278 with 0.48 M, a random network of its cost
    0.3331, logistic regression 0.4594; the least possible is 0.3129.
    """
    return ClickConfig(
        preset="clicks",
        space=ClickSpaceConfig("nasrec-small", blocks=4, max_dense_dim=128, max_sparse_dim=32),
        warmup=ClickWarmupConfig(replace(NASREC_WARMUP, learning_rate=0.1), fraction=0.25),
        retrain=ClickRetrainConfig(
            replace(NASREC_WARMUP, learning_rate=0.1),
            batch_size=256,
            top=3,
            controls=3,
            seeds=2,
            learning_rates=(0.1, 0.3),
            baselines=("logistic_regression", "fm", "dlrm"),
        ),
        batches=ClickBatchesConfig(batch_size=256, num_shards=2),
        score=ClickScoreConfig(population=64),
        evolution=replace(NASREC_EVOLUTION, budget=256, population=64, sample=32, patience=256, best=3, controls=3),
    )


def _nasrec(preset: str, space: NasrecName, batch_size: int) -> ClickConfig:
    rate = {"nasrec-small": 0.10, "nasrec-full": 0.16}[space]
    if preset == "nasrec-full-avazu":
        rate = 0.20
    return ClickConfig(
        preset=preset,
        space=ClickSpaceConfig(space),
        warmup=ClickWarmupConfig(NASREC_WARMUP, fraction=0.01),
        retrain=ClickRetrainConfig(replace(NASREC_WARMUP, learning_rate=rate), batch_size=batch_size // 2),
        batches=ClickBatchesConfig(batch_size=batch_size, num_shards=2),
        evolution=NASREC_EVOLUTION,
    )


def nasrec_small() -> ClickConfig:
    """NASRec-Small on any prepared log of a million rows or more, such as your own.

    Command: torchrun --nproc-per-node 2 launch/search.py nasrec-small --data PREPARED --run-dir runs/mine
    Hardware: 2 CPU cores or a GPU; --dry-run says what memory the tables take.
    Time: not measured; --dry-run times some steps and says.
    Result: not measured; it depends on the log. The report sets the winner beside tuned baselines.
    """
    return _nasrec("nasrec-small", "nasrec-small", 512)


def nasrec_tiny() -> ClickConfig:
    """NASRec-Small of 4 narrow blocks, on a prepared log of thousands of rows.

    Command: launch/search.py nasrec-tiny --data PREPARED --run-dir runs/mine
    Hardware: 1 or 2 CPU cores.
    Time: measured 0.5 minutes on 16,000 training rows and 1 core that other work shared; retraining 4 minutes.
    Result: measured on that synthetic log: test log loss 0.498; logistic regression 0.525, FM 0.514, DLRM 0.497, and
    random networks of its cost, from which it is not told apart, 0.498.
    """
    base = clicks()
    return replace(
        base,
        preset="nasrec-tiny",
        warmup=ClickWarmupConfig(replace(NASREC_WARMUP, learning_rate=0.05, epochs=2)),
        retrain=replace(
            base.retrain,
            recipe=replace(NASREC_WARMUP, learning_rate=0.05, epochs=2),
            batch_size=64,
            layer_norm=True,
            learning_rates=(0.02, 0.05, 0.1),
        ),
        batches=ClickBatchesConfig(batch_size=64, num_shards=2),
    )


PUBLISHED_LOGS = {"criteo": ("Criteo Kaggle", 512), "avazu": ("Avazu", 512), "kdd12": ("KDD Cup 2012 track 2", 1024)}
"""The name of each, and the rows of a step."""


def _published(space: NasrecName, log: str, sample: str = "", result: str = "") -> Callable[[], ClickConfig]:
    """The preset of a space on a published log. result: what was measured on a sample of so many training rows."""
    preset, name = f"{space}-{log}", {"nasrec-small": "NASRec-Small", "nasrec-full": "NASRec-Full"}[space]
    title, batch_size = PUBLISHED_LOGS[log]

    def make() -> ClickConfig:
        return _nasrec(preset, space, batch_size)

    smaller = f"On a sample of {sample} training rows, with other settings, measured: {result} (docs/log.md)."
    make.__doc__ = f"""{name} on {title}, warm-up on 1 % of the rows.

    Command: torchrun --nproc-per-node 2 launch/search.py {preset} --data PREPARED --run-dir runs/{log}
    Hardware: a GPU; 2 CPU cores suffice for samples of the log alone. --dry-run says what memory the tables take.
    Time: not measured on the whole log; --dry-run times some steps and says.
    Result: {f"not measured on the whole log. {smaller}" if sample else "not measured."}
    """
    return make


nasrec_small_criteo = _published(
    "nasrec-small", "criteo", "6,400", "log loss 0.509 to 0.549, worse than logistic regression's 0.481"
)
nasrec_full_criteo = _published("nasrec-full", "criteo")
nasrec_small_avazu = _published(
    "nasrec-small", "avazu", "6,400", "log loss 0.424 to 0.431, at best level with logistic regression's 0.424"
)
nasrec_full_avazu = _published("nasrec-full", "avazu")
nasrec_small_kdd12 = _published(
    "nasrec-small", "kdd12", "25,568", "log loss 0.422 to 0.434, not told apart from logistic regression's 0.426"
)
nasrec_full_kdd12 = _published("nasrec-full", "kdd12")
