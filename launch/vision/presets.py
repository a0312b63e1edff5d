"""Presets of searches for image classifiers with a supernet. The docstrings are what `--help` shows."""

from __future__ import annotations

from subshot.launch.config import (
    ImagesConfig,
    LimitsConfig,
    RetrainConfig,
    ScoreConfig,
    SpaceConfig,
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
    """The demo: handwritten digits of scikit-learn, in a narrow NAS-Bench-Macro space.

    Command: torchrun --nproc-per-node 2 launch/search.py digits --run-dir runs/digits
    Hardware: 2 CPU cores, no GPU.
    Time: measured 2.5 to 3.2 minutes on 2 cores that other work shared; retraining 0.7 to 1.7 minutes.
    Result: measured: the exact optimum of the score, of 3.48 M MACs; 0.952 of 355 test images (0.925 to 0.970), where
    three random networks of its cost have 0.952, 0.961 and 0.983. The demo shows the way, not a gain.
    """
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
    """NAS-Bench-Macro's space, on photographs of 32 pixels, such as CIFAR-10.

    Command: torchrun --nproc-per-node 2 launch/search.py macro-cifar10 --data CIFAR10 --run-dir runs/macro
    Hardware: a GPU is meant; CPU cores do for a few thousand images.
    Time: not measured; --dry-run times some steps and says.
    Result: not measured. The benchmark's own networks are in docs/log.md, by another warm-up.
    """
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
    """Photographs at 64 pixels on a small machine, in a narrow MobileNetV2 space.

    Command: torchrun --nproc-per-node 2 launch/search.py mobilenetv2-imagenette --data IMAGENETTE --run-dir runs/mine
    Hardware: CPU cores or a GPU.
    Time: not measured; --dry-run times some steps and says.
    Result: measured on 1,500 training images of 10 classes, retrained for 12 epochs: 0.410 (0.368 to 0.454) with 15 M
    MACs, a random network of its cost 0.380. So few images leave the score mostly noise (reliability 0.09).
    """
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
    """The same in ShuffleNetV2's space.

    Command: torchrun --nproc-per-node 2 launch/search.py shufflenetv2-imagenette --data IMAGENETTE --run-dir runs/mine
    Hardware: CPU cores or a GPU.
    Time: not measured; --dry-run times some steps and says.
    Result: measured on 1,500 training images of 10 classes, retrained for 12 epochs: 0.230 (0.195 to 0.269), below two
    random networks of its cost (0.366 and 0.298): with so few images the score is noise (reliability 0.06).
    """
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
    """ImageNet as BNNAS searches it: fixed depth, 224 pixels, at most 475 M MACs.

    Command: torchrun --nproc-per-node 8 launch/search.py mobilenetv2-imagenet --data IMAGENET --run-dir runs/imagenet
    Hardware: 8 GPUs; batch 512 in warm-up, 1024 in retraining.
    Time: not measured. 10 epochs of warm-up, 240 of retraining.
    Result: not measured.
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
    """ImageNet as SPOS searches it: ShuffleNetV2's space, 224 pixels, at most 330 M MACs.

    Command: torchrun --nproc-per-node 8 launch/search.py shufflenetv2-imagenet --data IMAGENET --run-dir runs/imagenet
    Hardware: 8 GPUs; batch 1024 in warm-up and retraining.
    Time: not measured. 20 epochs of warm-up, 240 of retraining.
    Result: not measured.
    """
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
