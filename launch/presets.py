"""Named configurations. Each is a function; its docstring says the command, where it runs and what to expect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from subshot.launch.click_config import (
    ClickBatchesConfig,
    ClickConfig,
    ClickRetrainConfig,
    ClickScoreConfig,
    ClickSpaceConfig,
    ClickWarmupConfig,
)
from subshot.launch.config import (
    BenchmarkSpaceConfig,
    ImagesConfig,
    LimitsConfig,
    NetworkLimitsConfig,
    ReadImagesConfig,
    RetrainConfig,
    ScoreConfig,
    SpaceConfig,
    TrainingFreeConfig,
    VisionConfig,
    WarmupConfig,
)
from subshot.search.evolution import EvolutionConfig
from subshot.train.recipe import Recipe

SPOS_RECIPE = Recipe(epochs=240, learning_rate=0.5, weight_decay=4e-5, label_smoothing=0.1, clip_norm=5.0, dropout=0.2)
"""BNNAS's and ABS's retraining: SGD, 0.5 linear to 0 over 240 epochs of batch 1024 (bychen515/BNNAS, retrain/)."""

BNNAS_EVOLUTION = EvolutionConfig(budget=1000, population=50, sample=10, children=25)
"""As many candidates as BNNAS and SPOS evaluate: population 50, 20 generations (search/ea.py)."""


def digits() -> VisionConfig:
    """torchrun --nproc-per-node 2 launch/search.py digits: the demo, on the handwritten digits of scikit-learn, 2
    CPU cores."""
    return VisionConfig(
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


def macro_cifar10() -> VisionConfig:
    """launch/search.py macro-cifar10 --data CIFAR10: the NAS-Bench-Macro space on 32-pixel photographs."""
    return VisionConfig(
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


def mobilenetv2_imagenette() -> VisionConfig:
    """launch/search.py mobilenetv2-imagenette --data IMAGENETTE: photographs at 64 pixels on a small machine."""
    return VisionConfig(
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


def shufflenetv2_imagenette() -> VisionConfig:
    """launch/search.py shufflenetv2-imagenette --data IMAGENETTE: the same, in the ShuffleNetV2 space."""
    base = mobilenetv2_imagenette()
    return VisionConfig(
        preset="shufflenetv2-imagenette",
        space=SpaceConfig("shufflenetv2", input_size=64, width=0.25, reduced_strides=1),
        images=base.images,
        warmup=base.warmup,
        score=base.score,
        limits=LimitsConfig(max_macs=8.5e6),
        evolution=base.evolution,
        retrain=base.retrain,
    )


def mobilenetv2_imagenet() -> VisionConfig:
    """torchrun --nproc-per-node 8 launch/search.py mobilenetv2-imagenet --data IMAGENET: BNNAS's setting, 475 M MACs.

    Warm-up is 10 epochs of batch 512; retraining is 240 epochs of batch 1024. Never run here at full size.
    """
    return VisionConfig(
        preset="mobilenetv2-imagenet",
        space=SpaceConfig("mobilenetv2-fixed-depth"),
        images=ImagesConfig(),
        warmup=WarmupConfig(Recipe(epochs=10, learning_rate=0.25, clip_norm=5.0), trainable="all"),
        score=ScoreConfig(calibration_images=20_000, validation_images=10_000),
        limits=LimitsConfig(max_macs=475e6),
        evolution=BNNAS_EVOLUTION,
        retrain=RetrainConfig(SPOS_RECIPE),
    )


def shufflenetv2_imagenet() -> VisionConfig:
    """torchrun --nproc-per-node 8 launch/search.py shufflenetv2-imagenet --data IMAGENET: SPOS's setting, 330 M
    MACs."""
    return VisionConfig(
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
    """torchrun --nproc-per-node 2 launch/search.py zennas-cifar --data CIFAR10: training-free, Zen-NAS's space, 1 M
    parameters.

    Nothing is trained before the winner is. Measured: 1 to 5 s a network and CPU core, so most of an hour for the 1,100
    of a run on 2 cores. Retraining is 300 epochs and wants a GPU. Zen-NAS trains longer, with more augmentation, so
    expect less than its 96.2 % on CIFAR-10. Never run here at full size.
    """
    recipe = replace(BENCHMARK_RECIPE, epochs=300, warmup_epochs=5.0)
    config = _training_free("zennas-cifar", BenchmarkSpaceConfig("zennas-cifar"), recipe, 256)
    return replace(config, limits=NetworkLimitsConfig(max_params=1e6))


def nasbench201_cifar10() -> TrainingFreeConfig:
    """torchrun --nproc-per-node 2 launch/search.py nasbench201-cifar10 --data CIFAR10: training-free, NAS-Bench-201.

    Measured: 0.2 to 0.5 s a network and CPU core, minutes in all. Retraining is the benchmark's 200 epochs of batch
    256, without Nesterov's momentum, for a GPU. Never run here at full size.
    """
    recipe = replace(BENCHMARK_RECIPE, clip_norm=0.0)
    return _training_free("nasbench201-cifar10", BenchmarkSpaceConfig("nasbench201"), recipe, 256)


def nasbench101_cifar10() -> TrainingFreeConfig:
    """torchrun --nproc-per-node 2 launch/search.py nasbench101-cifar10 --data CIFAR10: training-free, NAS-Bench-101.

    Measured: 1 to 4 s a network and CPU core. Retraining is 108 epochs as the benchmark's, by SGD where that took
    RMSProp, for a GPU. Never run here at full size.
    """
    recipe = replace(BENCHMARK_RECIPE, epochs=108, weight_decay=1e-4)
    return _training_free("nasbench101-cifar10", BenchmarkSpaceConfig("nasbench101"), recipe, 256)


def darts_cifar10() -> TrainingFreeConfig:
    """torchrun --nproc-per-node 2 launch/search.py darts-cifar10 --data CIFAR10: training-free, DARTS, 20 cells.

    Measured: 12 s a network and CPU core, so hours there; a GPU is meant. Retraining is 600 epochs of batch 96 as
    DARTS's, without its auxiliary head, path dropout and cutout, so expect less than its 97 %. Never run here at full
    size.
    """
    recipe = replace(BENCHMARK_RECIPE, epochs=600, learning_rate=0.025, weight_decay=3e-4)
    return _training_free("darts-cifar10", BenchmarkSpaceConfig("darts"), recipe, 96)


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
    """torchrun --nproc-per-node 2 launch/search.py clicks: the CTR demo, on a synthetic log with a known Bayes loss, 2
    CPU cores."""
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


def _nasrec(preset: str, space: Literal["nasrec-small", "nasrec-full"], batch_size: int) -> ClickConfig:
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


def nasrec_small_criteo() -> ClickConfig:
    """torchrun --nproc-per-node 2 launch/search.py nasrec-small-criteo --data PREPARED: NASRec-Small, 1 % warm-up."""
    return _nasrec("nasrec-small-criteo", "nasrec-small", 512)


def nasrec_full_criteo() -> ClickConfig:
    """torchrun --nproc-per-node 2 launch/search.py nasrec-full-criteo --data PREPARED: the same in NASRec-Full."""
    return _nasrec("nasrec-full-criteo", "nasrec-full", 512)


def nasrec_small_avazu() -> ClickConfig:
    """torchrun --nproc-per-node 2 launch/search.py nasrec-small-avazu --data PREPARED: NASRec-Small on Avazu."""
    return _nasrec("nasrec-small-avazu", "nasrec-small", 512)


def nasrec_full_avazu() -> ClickConfig:
    """torchrun --nproc-per-node 2 launch/search.py nasrec-full-avazu --data PREPARED: NASRec-Full on Avazu."""
    return _nasrec("nasrec-full-avazu", "nasrec-full", 512)


def nasrec_small_kdd12() -> ClickConfig:
    """torchrun --nproc-per-node 2 launch/search.py nasrec-small-kdd12 --data PREPARED: NASRec-Small on KDD Cup 2012."""
    return _nasrec("nasrec-small-kdd12", "nasrec-small", 1024)


def nasrec_full_kdd12() -> ClickConfig:
    """torchrun --nproc-per-node 2 launch/search.py nasrec-full-kdd12 --data PREPARED: NASRec-Full on KDD Cup 2012."""
    return _nasrec("nasrec-full-kdd12", "nasrec-full", 1024)


PRESETS: dict[str, Callable[[], VisionConfig | TrainingFreeConfig | ClickConfig]] = {
    "digits": digits,
    "macro-cifar10": macro_cifar10,
    "mobilenetv2-imagenette": mobilenetv2_imagenette,
    "shufflenetv2-imagenette": shufflenetv2_imagenette,
    "mobilenetv2-imagenet": mobilenetv2_imagenet,
    "shufflenetv2-imagenet": shufflenetv2_imagenet,
    "zennas-cifar": zennas_cifar,
    "nasbench201-cifar10": nasbench201_cifar10,
    "nasbench101-cifar10": nasbench101_cifar10,
    "darts-cifar10": darts_cifar10,
    "clicks": clicks,
    "nasrec-small-criteo": nasrec_small_criteo,
    "nasrec-full-criteo": nasrec_full_criteo,
    "nasrec-small-avazu": nasrec_small_avazu,
    "nasrec-full-avazu": nasrec_full_avazu,
    "nasrec-small-kdd12": nasrec_small_kdd12,
    "nasrec-full-kdd12": nasrec_full_kdd12,
}
