"""The configuration of a run, and those of runs on images: frozen records, one a concern, each field with its meaning
beside it.

A preset (launch/presets.py) fills them; the command line overrides single fields (`--warmup.epochs 3`); the result
is written to the run folder as config.json before anything else happens.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import tyro

from subshot.search.evolution import EvolutionConfig
from subshot.supernet.isometry import Construction
from subshot.supernet.network import Branch
from subshot.train.paths import Sampling
from subshot.train.recipe import Recipe
from subshot.train.trainable import Trainable


@dataclass(frozen=True)
class SpaceConfig:
    """Which networks are searched."""

    name: str
    """mobilenetv2, mobilenetv2-fixed-depth, mobilenetv2-mobile, shufflenetv2, nasbench-macro, or FILE.py:FUNCTION, a
    space of your own (docs/own_space.md)."""
    input_size: int = 224
    """Pixels of a side."""
    width: float = 1.0
    """Multiplies every number of channels."""
    reduced_strides: int = 0
    """That many strides of 2 become 1, from the input on: for small images."""


@dataclass(frozen=True)
class SupernetConfig:
    """How the supernet is built and initialised."""

    construction: Construction = "blend"
    """Of the initial weights; see supernet/isometry.py."""
    activation: Literal["relu", "relu6", "tanh", "scaled_tanh"] | None = None
    """None: the space's own."""
    branch: Branch = "none"
    """Where layers have the layer indicator's parallel connection."""
    branch_gamma: float = 1.0
    """Initial BatchNorm scale of that connection."""
    identity_bn: bool = False
    """Whether an identity candidate has a BatchNorm in the supernet."""


@dataclass(frozen=True)
class ReadImagesConfig:
    """How images are read, and shown where nothing is trained."""

    crop_ratio: float = 0.875
    """Central part of the image that evaluation shows."""
    eval_batch_size: int = 256
    """Images that are shown at a time."""
    on_bad_image: Literal["error", "skip"] = "error"
    """Stop at the first file that is no image, or leave such files out and count them."""
    num_threads: int = 2
    """DALI's, a process."""


@dataclass(frozen=True)
class ImagesConfig(ReadImagesConfig):
    """How images are read and shown, and how they train a supernet."""

    augmentation: Literal["imagenet", "small_photo", "digits", "none"] = "imagenet"
    """How training images are cropped, flipped and coloured; AUGMENTATIONS in launch/vision/build.py."""
    batch_size: int = 512
    """Global, over all processes."""
    num_shards: int = 8
    """Virtual shards of a global batch: BatchNorm normalises within one, and the number of processes cannot exceed
    it."""
    search_fraction: float = 0.04
    """Of the training images, held out for scoring subnets. The val split is not seen before retraining is over."""


@dataclass(frozen=True)
class WarmupConfig:
    """How the supernet is trained before it ranks subnets."""

    recipe: Recipe
    trainable: Trainable = "bn_classifier"
    """Which weights train; see train/trainable.py."""
    sampling: Sampling = "fair"
    """Which path each step takes: every layer draws by itself, or (FairNAS) all choices take turns."""


@dataclass(frozen=True)
class ScoreConfig:
    """What ranks subnets. Higher is better, always."""

    kind: Literal["path_loss_activations", "path_loss", "one_shot", "indicator"] = "path_loss_activations"
    """path_loss: what every choice did to the losses of the warm-up's own steps; costs nothing more.
    path_loss_activations: that and the activations of the network, both standardised, added up. one_shot: accuracy with
    inherited weights. indicator: BatchNorm scales, under `rule`."""
    rule: Literal[
        "block_sum",
        "block_times_layer",
        "block_over_layer",
        "block_centred",
        "identity_as_layer",
        "weighted_activations",
    ] = "block_sum"
    """See RULES in supernet/indicators.py."""
    statistic: Literal["mean_abs", "mean", "root_mean_square", "std"] = "mean_abs"
    """See STATISTICS in supernet/indicators.py."""
    calibration_images: int = 1024
    """Training images whose statistics recalibrate a subnet's BatchNorms; the same for every candidate."""
    validation_images: int = 0
    """Held-out training images that score a subnet; 0: all of them."""
    share: Literal["candidates", "images"] = "candidates"
    """one_shot, over several processes: each evaluates other subnets, or all of them one subnet on parts of the images,
    for subnets that take long or fill a GPU."""


@dataclass(frozen=True)
class LimitsConfig:
    """What a network may cost; 0 for no limit. MACs are multiply-accumulates of one image."""

    max_macs: float = 0.0
    """At most so many multiply-accumulates."""
    min_macs: float = 0.0
    """At least so many multiply-accumulates."""
    max_params: float = 0.0
    """At most so many parameters, the classifier's among them."""
    max_activation_mib: float = 0.0
    """float32 outputs of convolutions and classifier, one image."""
    max_latency_ms: float = 0.0
    """By `latency_table`."""
    latency_table: Path | None = None
    """JSON of milliseconds by decision and choice, as launch/latency.py measures it: launch/latency_tables/table.py."""


@dataclass(frozen=True)
class RetrainConfig:
    """How winners are trained from scratch."""

    recipe: Recipe
    augmentation: Literal["imagenet", "small_photo", "digits", "none"] = "imagenet"
    """How training images are cropped, flipped and coloured; AUGMENTATIONS in launch/vision/build.py."""
    random_operations: int = 0
    """RandAugment operations an image; 0 for none."""
    random_magnitude: int = 9
    """Of RandAugment, 0 to 30."""
    batch_size: int = 1024
    """Global, over all processes."""
    num_shards: int = 8
    """Virtual shards of a global batch, as `images.num_shards`."""
    construction: Literal[Construction, "torch"] = "kaiming"
    """Of the initial weights; torch: as its layers begin by themselves."""


class RunConfig(Protocol):
    """What every configuration has, whatever its domain; the stages read no more of it."""

    @property
    def preset(self) -> str: ...

    @property
    def evolution(self) -> EvolutionConfig: ...

    @property
    def seed(self) -> int: ...

    @property
    def threads(self) -> int: ...


@dataclass(frozen=True)
class VisionConfig:
    """Everything a run depends on, but for where it lies."""

    preset: tyro.conf.Suppress[str]
    space: SpaceConfig
    warmup: WarmupConfig
    retrain: RetrainConfig
    supernet: SupernetConfig = field(default_factory=SupernetConfig)
    images: ImagesConfig = field(default_factory=ImagesConfig)
    score: ScoreConfig = field(default_factory=ScoreConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    evolution: EvolutionConfig = field(default_factory=EvolutionConfig)
    seed: int = 0
    """Of initial weights, orders, augmentation, paths and search; equal seeds give equal histories."""
    threads: int = 1
    """torch threads a process. One makes results independent of the number of processes, bit for bit."""
    data: Path | None = None
    """Folder with train/<class>/ and val/<class>/; None where the preset makes its own images."""


@dataclass(frozen=True)
class BenchmarkSpaceConfig:
    """Which networks are searched: a space of a published benchmark, of its published size."""

    name: Literal["nasbench101", "darts", "nasbench201", "zennas-cifar"]
    """The benchmark's name for it."""
    input_size: int = 32
    """Pixels of a side."""


@dataclass(frozen=True)
class ProxyScoreConfig:
    """What ranks networks: proxies of freshly initialised ones. Higher is better, always."""

    proxies: tuple[str, ...] = ("az_expressivity", "az_progressivity", "az_trainability", "macs")
    """One or more of PROXIES in proxies/__init__.py. One is the score; several are ranked. The default is AZ-NAS."""
    aggregation: str = "log_rank_sum"
    """What joins the ranks of several; see AGGREGATIONS in search/aggregation.py."""
    population: int = 100
    """Random networks under the limits, measured once, among which a candidate has its ranks."""
    batch_size: int = 32
    """Training images that a proxy reads at a time; the same ones for every network."""


@dataclass(frozen=True)
class NetworkLimitsConfig:
    """What a network may cost; 0 for no limit. MACs are multiply-accumulates of one image."""

    max_macs: float = 0.0
    """At most so many multiply-accumulates."""
    min_macs: float = 0.0
    """At least so many multiply-accumulates."""
    max_params: float = 0.0
    """At most so many parameters, the classifier's among them."""
    max_activation_mib: float = 0.0
    """float32 outputs of convolutions and classifier, one image."""


@dataclass(frozen=True)
class TrainingFreeConfig:
    """Everything a search without a supernet depends on, but for where it lies."""

    preset: tyro.conf.Suppress[str]
    space: BenchmarkSpaceConfig
    retrain: RetrainConfig
    images: ReadImagesConfig = field(default_factory=ReadImagesConfig)
    score: ProxyScoreConfig = field(default_factory=ProxyScoreConfig)
    limits: NetworkLimitsConfig = field(default_factory=NetworkLimitsConfig)
    evolution: EvolutionConfig = field(default_factory=EvolutionConfig)
    seed: int = 0
    """Of initial weights, orders, augmentation, paths and search; equal seeds give equal histories."""
    threads: int = 1
    """torch threads a process. One makes results independent of the number of processes, bit for bit."""
    data: Path | None = None
    """Folder with train/<class>/ and val/<class>/."""


ImageRunConfig = VisionConfig | TrainingFreeConfig
"""What reading images, retraining and handing over have in common."""


def to_json(config: Any) -> Any:
    """Nested dicts of plain values."""
    if dataclasses.is_dataclass(config):
        return {f.name: to_json(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, tuple):
        return [to_json(part) for part in config]
    return str(config) if isinstance(config, Path) else config


T = TypeVar("T")


def from_json(kind: type[T], value: dict[str, Any], where: str = "config") -> T:
    """The inverse of `to_json`. Raises ValueError naming the field that is missing, unknown or of the wrong kind."""
    hints = typing.get_type_hints(kind)
    names = {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if not isinstance(value, dict) or set(value) != names:
        got = sorted(set(value) ^ names) if isinstance(value, dict) else value
        raise ValueError(f"{where} does not fit this version of subshot: {got}; start a new run")
    parsed = {name: _parse(hints[name], value[name], f"{where}.{name}") for name in names}
    return kind(**parsed)


def _parse(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_json(typing.cast(type[Any], hint), value, where)
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        (hint,) = (part for part in typing.get_args(hint) if part is not type(None))
        return _parse(hint, value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise ValueError(f"{where} is {value!r}; it must be a list")
        return tuple(_parse(typing.get_args(hint)[0], part, f"{where}[{n}]") for n, part in enumerate(value))
    if origin is Literal:
        if value not in typing.get_args(hint):
            raise ValueError(f"{where} is {value!r}; allowed: {', '.join(map(str, typing.get_args(hint)))}")
        return value
    if hint is Path:
        return Path(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint):
        raise ValueError(f"{where} is {value!r}; it must be of type {hint.__name__}")
    return value


def differences(first: Any, second: Any, where: str = "") -> list[str]:
    """One line for each field in which two JSON configurations differ."""
    if isinstance(first, dict) and isinstance(second, dict):
        lines = []
        for name in sorted(set(first) | set(second)):
            lines += differences(first.get(name), second.get(name), f"{where}.{name}".lstrip("."))
        return lines
    return [] if first == second else [f"{where}: {first!r} in the run, {second!r} now"]
