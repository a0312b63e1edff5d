"""Presets of searches without a supernet, by proxies of untrained networks. The docstrings are what `--help` shows."""

from __future__ import annotations

from dataclasses import replace

from subshot.launch.config import (
    BenchmarkSpaceConfig,
    NetworkLimitsConfig,
    ReadImagesConfig,
    RetrainConfig,
    TrainingFreeConfig,
)
from subshot.search.evolution import EvolutionConfig
from subshot.train.recipe import Recipe

SMALL_IMAGES = ReadImagesConfig(crop_ratio=1.0)
BENCHMARK_RECIPE = Recipe(
    epochs=200, learning_rate=0.1, schedule="cosine", weight_decay=5e-4, label_smoothing=0.0, clip_norm=5.0
)


def _training_free(preset: str, space: BenchmarkSpaceConfig, recipe: Recipe, batch_size: int) -> TrainingFreeConfig:
    """AZ-NAS's four scores; 500 candidates for evolution, as many for the random control, 100 for reference."""
    return TrainingFreeConfig(
        preset=preset,
        space=space,
        images=SMALL_IMAGES,
        evolution=EvolutionConfig(budget=500, population=50, sample=10, children=10),
        retrain=RetrainConfig(
            recipe, augmentation="small_photo", batch_size=batch_size, num_shards=4, construction="torch"
        ),
    )


def zennas_cifar() -> TrainingFreeConfig:
    """Zen-NAS's blocks, at most 1 M parameters.

    Command: torchrun --nproc-per-node 2 launch/search.py zennas-cifar --data CIFAR10 --run-dir runs/zen
    Hardware: CPU cores for the search, a GPU for the 300 epochs of retraining.
    Time: measured 1 to 5 s a network and CPU core, so most of an hour for the 1,100 of a run on 2 cores.
    Result: not measured. Zen-NAS trains longer, with more augmentation: expect less than its 96.2 % on CIFAR-10.
    """
    recipe = replace(BENCHMARK_RECIPE, epochs=300, warmup_epochs=5.0)
    config = _training_free("zennas-cifar", BenchmarkSpaceConfig("zennas-cifar"), recipe, 256)
    return replace(config, limits=NetworkLimitsConfig(max_params=1e6))


def nasbench201_cifar10() -> TrainingFreeConfig:
    """NAS-Bench-201's cells.

    Command: torchrun --nproc-per-node 2 launch/search.py nasbench201-cifar10 --data CIFAR10 --run-dir runs/nasbench201
    Hardware: CPU cores for the search, a GPU for the benchmark's 200 epochs of retraining.
    Time: measured 0.2 to 0.5 s a network and CPU core: minutes in all.
    Result: not measured by this preset. In the benchmark's table evolution on MACs finds 93.75 % (docs/log.md).
    """
    recipe = replace(BENCHMARK_RECIPE, clip_norm=0.0)
    return _training_free("nasbench201-cifar10", BenchmarkSpaceConfig("nasbench201"), recipe, 256)


def nasbench101_cifar10() -> TrainingFreeConfig:
    """NAS-Bench-101's cells.

    Command: torchrun --nproc-per-node 2 launch/search.py nasbench101-cifar10 --data CIFAR10 --run-dir runs/nasbench101
    Hardware: CPU cores for the search, a GPU for 108 epochs of retraining, by SGD where the benchmark took RMSProp.
    Time: measured 1 to 4 s a network and CPU core, so half an hour or more for 1,100 on 2 cores.
    Result: not measured.
    """
    recipe = replace(BENCHMARK_RECIPE, epochs=108, weight_decay=1e-4)
    return _training_free("nasbench101-cifar10", BenchmarkSpaceConfig("nasbench101"), recipe, 256)


def darts_cifar10() -> TrainingFreeConfig:
    """DARTS's cells, 20 of them in a network.

    Command: torchrun --nproc-per-node 2 launch/search.py darts-cifar10 --data CIFAR10 --run-dir runs/darts
    Hardware: a GPU. Retraining is 600 epochs of batch 96, without DARTS's auxiliary head, path dropout and cutout.
    Time: measured 12 s a network and CPU core, so two hours for 1,100 on 2 cores.
    Result: not measured. Expect less than DARTS's 97 %.
    """
    recipe = replace(BENCHMARK_RECIPE, epochs=600, learning_rate=0.025, weight_decay=3e-4)
    return _training_free("darts-cifar10", BenchmarkSpaceConfig("darts"), recipe, 96)
