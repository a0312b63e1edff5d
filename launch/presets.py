"""Named configurations. Each is a function; its docstring says the command, where it runs and what to expect."""

from __future__ import annotations

from collections.abc import Callable

from subshot.launch.config import (
    ImagesConfig,
    LimitsConfig,
    RetrainConfig,
    ScoreConfig,
    SearchConfig,
    SpaceConfig,
    WarmupConfig,
)
from subshot.search.evolution import EvolutionConfig
from subshot.train.recipe import Recipe

SPOS_RECIPE = Recipe(epochs=240, learning_rate=0.5, weight_decay=4e-5, label_smoothing=0.1, clip_norm=5.0, dropout=0.2)
"""BNNAS's and ABS's retraining: SGD, 0.5 linear to 0 over 240 epochs of batch 1024 (bychen515/BNNAS, retrain/)."""

BNNAS_EVOLUTION = EvolutionConfig(budget=1000, population=50, sample=10, children=25)
"""As many candidates as BNNAS and SPOS evaluate: population 50, 20 generations (search/ea.py)."""


def digits() -> SearchConfig:
    """torchrun --nproc-per-node 2 launch/search.py digits: the demo, on the handwritten digits of scikit-learn, 2
    CPU cores."""
    return SearchConfig(
        preset="digits",
        space=SpaceConfig("nasbench-macro", input_size=32, width=0.25),
        images=ImagesConfig(
            augmentation="digits", batch_size=64, num_shards=4, search_fraction=0.1, crop_ratio=1.0, num_threads=1
        ),
        warmup=WarmupConfig(Recipe(epochs=50, learning_rate=0.2, clip_norm=5.0), trainable="all"),
        score=ScoreConfig(calibration_images=256),
        limits=LimitsConfig(max_macs=3.5e6),
        evolution=EvolutionConfig(budget=500, population=30, sample=10, children=10, mutations=2.0),
        retrain=RetrainConfig(
            Recipe(epochs=6, learning_rate=0.1, clip_norm=5.0), augmentation="digits", batch_size=64, num_shards=4
        ),
    )


def macro_cifar10() -> SearchConfig:
    """launch/search.py macro-cifar10 --data CIFAR10: the NAS-Bench-Macro space on 32-pixel photographs."""
    return SearchConfig(
        preset="macro-cifar10",
        space=SpaceConfig("nasbench-macro", input_size=32),
        images=ImagesConfig(
            augmentation="small_photo", batch_size=128, num_shards=4, search_fraction=0.1, crop_ratio=1.0
        ),
        warmup=WarmupConfig(Recipe(epochs=15, learning_rate=0.1, clip_norm=5.0), trainable="all"),
        evolution=EvolutionConfig(budget=500, population=50, sample=10, children=10),
        retrain=RetrainConfig(
            Recipe(epochs=50, learning_rate=0.1, schedule="cosine", weight_decay=5e-4, label_smoothing=0.0),
            augmentation="small_photo",
            batch_size=256,
            num_shards=4,
        ),
    )


def mobilenetv2_imagenette() -> SearchConfig:
    """launch/search.py mobilenetv2-imagenette --data IMAGENETTE: photographs at 64 pixels on a small machine."""
    return SearchConfig(
        preset="mobilenetv2-imagenette",
        space=SpaceConfig("mobilenetv2", input_size=64, width=0.25, reduced_strides=1),
        images=ImagesConfig(
            augmentation="small_photo", batch_size=32, num_shards=2, search_fraction=0.1, crop_ratio=1.0, num_threads=1
        ),
        warmup=WarmupConfig(Recipe(epochs=30, learning_rate=0.1, clip_norm=5.0), trainable="all"),
        score=ScoreConfig(calibration_images=256),
        limits=LimitsConfig(max_macs=15e6),
        evolution=EvolutionConfig(budget=2000),
        retrain=RetrainConfig(
            Recipe(epochs=20, learning_rate=0.1, clip_norm=5.0, dropout=0.2),
            augmentation="small_photo",
            batch_size=32,
            num_shards=2,
        ),
    )


def shufflenetv2_imagenette() -> SearchConfig:
    """launch/search.py shufflenetv2-imagenette --data IMAGENETTE: the same, in the ShuffleNetV2 space."""
    base = mobilenetv2_imagenette()
    return SearchConfig(
        preset="shufflenetv2-imagenette",
        space=SpaceConfig("shufflenetv2", input_size=64, width=0.25, reduced_strides=1),
        images=base.images,
        warmup=base.warmup,
        score=base.score,
        limits=LimitsConfig(max_macs=8.5e6),
        evolution=base.evolution,
        retrain=base.retrain,
    )


def mobilenetv2_imagenet() -> SearchConfig:
    """torchrun --nproc-per-node 8 launch/search.py mobilenetv2-imagenet --data IMAGENET: BNNAS's setting, 475 M MACs.

    Warm-up is 10 epochs of batch 512; retraining is 240 epochs of batch 1024. Never run here at full size.
    """
    return SearchConfig(
        preset="mobilenetv2-imagenet",
        space=SpaceConfig("mobilenetv2-fixed-depth"),
        images=ImagesConfig(),
        warmup=WarmupConfig(Recipe(epochs=10, learning_rate=0.25, clip_norm=5.0), trainable="all"),
        score=ScoreConfig(calibration_images=20_000, validation_images=10_000),
        limits=LimitsConfig(max_macs=475e6),
        evolution=BNNAS_EVOLUTION,
        retrain=RetrainConfig(SPOS_RECIPE),
    )


def shufflenetv2_imagenet() -> SearchConfig:
    """torchrun --nproc-per-node 8 launch/search.py shufflenetv2-imagenet --data IMAGENET: SPOS's setting, 330 M
    MACs."""
    return SearchConfig(
        preset="shufflenetv2-imagenet",
        space=SpaceConfig("shufflenetv2"),
        images=ImagesConfig(batch_size=1024),
        warmup=WarmupConfig(Recipe(epochs=20, learning_rate=0.5), trainable="all"),
        score=ScoreConfig(calibration_images=20_000, validation_images=10_000),
        limits=LimitsConfig(max_macs=330e6),
        evolution=BNNAS_EVOLUTION,
        retrain=RetrainConfig(
            Recipe(epochs=240, learning_rate=0.5, weight_decay=4e-5, label_smoothing=0.1, dropout=0.1)
        ),
    )


PRESETS: dict[str, Callable[[], SearchConfig]] = {
    "digits": digits,
    "macro-cifar10": macro_cifar10,
    "mobilenetv2-imagenette": mobilenetv2_imagenette,
    "shufflenetv2-imagenette": shufflenetv2_imagenette,
    "mobilenetv2-imagenet": mobilenetv2_imagenet,
    "shufflenetv2-imagenet": shufflenetv2_imagenet,
}
