"""Named configurations. Each is a function; its docstring is one line on what it searches, then the command, the
hardware, the time and the result that were measured, or that they were not; `launch/search.py --help` shows them.
"""

from __future__ import annotations

from collections.abc import Callable

from subshot.launch.clicks.config import ClickConfig
from subshot.launch.clicks.presets import (
    clicks,
    nasrec_full_avazu,
    nasrec_full_criteo,
    nasrec_full_kdd12,
    nasrec_small,
    nasrec_small_avazu,
    nasrec_small_criteo,
    nasrec_small_kdd12,
    nasrec_tiny,
)
from subshot.launch.config import TrainingFreeConfig, VisionConfig
from subshot.launch.training_free.presets import darts_cifar10, nasbench101_cifar10, nasbench201_cifar10, zennas_cifar
from subshot.launch.vision.presets import (
    digits,
    macro_cifar10,
    mobilenetv2_imagenet,
    mobilenetv2_imagenette,
    shufflenetv2_imagenet,
    shufflenetv2_imagenette,
)

Preset = Callable[[], VisionConfig | TrainingFreeConfig | ClickConfig]

PRESET_GROUPS: dict[str, dict[str, Preset]] = {
    "images, with a supernet": {
        "digits": digits,
        "macro-cifar10": macro_cifar10,
        "mobilenetv2-imagenette": mobilenetv2_imagenette,
        "shufflenetv2-imagenette": shufflenetv2_imagenette,
        "mobilenetv2-imagenet": mobilenetv2_imagenet,
        "shufflenetv2-imagenet": shufflenetv2_imagenet,
    },
    "images, without training": {
        "zennas-cifar": zennas_cifar,
        "nasbench201-cifar10": nasbench201_cifar10,
        "nasbench101-cifar10": nasbench101_cifar10,
        "darts-cifar10": darts_cifar10,
    },
    "clicks": {
        "clicks": clicks,
        "nasrec-tiny": nasrec_tiny,
        "nasrec-small": nasrec_small,
        "nasrec-small-criteo": nasrec_small_criteo,
        "nasrec-full-criteo": nasrec_full_criteo,
        "nasrec-small-avazu": nasrec_small_avazu,
        "nasrec-full-avazu": nasrec_full_avazu,
        "nasrec-small-kdd12": nasrec_small_kdd12,
        "nasrec-full-kdd12": nasrec_full_kdd12,
    },
}

PRESETS: dict[str, Preset] = {name: preset for group in PRESET_GROUPS.values() for name, preset in group.items()}
