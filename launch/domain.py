"""What a domain brings to a run. The stages (search, explore, retrain) know this and nothing of images or clicks; which
domain a run is of follows from the type of its configuration, here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from subshot.launch.click_config import ClickConfig
from subshot.launch.config import RunConfig, TrainingFreeConfig, VisionConfig, from_json
from subshot.launch.presets import PRESETS
from subshot.launch.run_log import RunLog
from subshot.search.evaluator import Evaluator
from subshot.search.objectives import Limit
from subshot.search.sampling import Sampler
from subshot.supernet.space import Additive, Genotype, SearchSpace
from subshot.train.dist import World
from subshot.train.run_dir import RunDir, read_json


@dataclass(frozen=True)
class Scorer:
    """name: what a score is. evaluator: scores, higher is better. additive: the score as a table, where it is one.
    caution: what the user must know before believing it."""

    name: str
    evaluator: Evaluator
    additive: Additive | None
    caution: str | None = None


@dataclass(frozen=True)
class RetrainPlan:
    """What the user asked launch/retrain.py for; None: the domain's own number."""

    top: int | None = None
    controls: int | None = None
    seeds: int | None = None
    index: int | None = None


class Networks(Protocol):
    """The networks of a run: what a search needs to know of them."""

    @property
    def space(self) -> SearchSpace: ...

    def sampler(self, near: Limit | None = None) -> Sampler:
        """Genotypes under the run's limits, or, for the controls of a winner, under `near` alone, a limit on MACs."""
        ...

    def costs(self, genotype: Genotype) -> dict[str, int]:
        """MACs, parameters and whatever else the history keeps of a network."""
        ...


class Domain(Networks, Protocol):
    """One run's networks, data and task. Opening it checks all that can be wrong before a run folder exists."""

    @property
    def summary(self) -> str:
        """One line on the data."""
        ...

    def warm(self, run: RunDir, log: RunLog) -> Any:
        """The warm supernet: trained now, from a checkpoint on, or read from the run folder where it is there. None
        where networks are scored without one."""
        ...

    def scorer(self, supernet: Any, run: RunDir, log: RunLog) -> Scorer: ...

    def retrain(self, plan: RetrainPlan, run: RunDir, log: RunLog) -> Path:
        """Trains the best of a finished search from scratch; returns the winner's folder."""
        ...


def _vision(config: Any, world: World) -> Domain:
    from subshot.launch.vision_domain import VisionDomain

    return VisionDomain(config, world)


def _clicks(config: Any, world: World) -> Domain:
    from subshot.launch.click_domain import ClickDomain

    return ClickDomain(config, world)


def _training_free(config: Any, world: World) -> Domain:
    from subshot.launch.training_free_domain import TrainingFreeDomain

    return TrainingFreeDomain(config, world)


DOMAINS: dict[type, Callable[[Any, World], Domain]] = {
    VisionConfig: _vision,
    ClickConfig: _clicks,
    TrainingFreeConfig: _training_free,
}
"""Imported when they are opened: a vision run loads no torchrec, a CTR run no DALI."""


def open_domain(config: RunConfig, world: World) -> Domain:
    return DOMAINS[type(config)](config, world)


def read_config(run: RunDir) -> RunConfig:
    """The configuration of a run. Raises ValueError where it does not fit this version of subshot."""
    record = read_json(run.config_json)
    preset = record.get("preset") if isinstance(record, dict) else None
    if preset not in PRESETS:
        raise ValueError(
            f"{run.config_json}: there is no preset {preset!r} in this version of subshot; start a new run"
        )
    return from_json(type(PRESETS[preset]()), record, str(run.config_json))
