"""What a domain brings to a run. The stages (search, explore, retrain) know this and nothing of images or clicks; which
domain a run is of follows from the type of its configuration, here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, get_args

import numpy as np

from subshot.launch.clicks.config import ClickConfig
from subshot.launch.config import RunConfig, TrainingFreeConfig, VisionConfig, differences, from_json, to_json
from subshot.launch.correlation.trainings import Trainings
from subshot.launch.manifest import Element, Manifest
from subshot.launch.presets import PRESETS
from subshot.launch.run_log import RunLog
from subshot.search.evaluator import Evaluator
from subshot.search.evolution import Cost
from subshot.search.objectives import Limit
from subshot.search.sampling import Sampler
from subshot.supernet.space import Additive, Genotype, SearchSpace
from subshot.train.dist import World
from subshot.train.run_dir import RunDir, read_json

RUN_SCHEMA_VERSION = 2
"""Of what a run's files mean. One that was begun with another is not gone on with unless that is accepted."""


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


class Networks(Protocol):
    """The networks of a run: what a search needs to know of them."""

    @property
    def space(self) -> SearchSpace: ...

    def sampler(self, near: Limit | None = None) -> Sampler:
        """Genotypes under the run's limits, or, for the controls of a winner, under `near` alone, a limit on MACs."""
        ...

    def costs(self, genotype: Genotype) -> Mapping[str, float]:
        """MACs, parameters and whatever else the history keeps of a network; what NSGA-II may lower."""
        ...


class Domain(Networks, Protocol):
    """One run's networks, data and task. Opening it checks all that can be wrong before a run folder exists."""

    @property
    def summary(self) -> str:
        """One line on the data."""
        ...

    def fingerprint(self) -> dict[str, Any]:
        """What the data are, whatever their folder is called: JSON, equal for equal data."""
        ...

    def warm(self, run: RunDir, log: RunLog) -> Any:
        """The warm supernet: trained now, from a checkpoint on, or read from the run folder where it is there. None
        where networks are scored without one."""
        ...

    def scorer(self, supernet: Any, run: RunDir, log: RunLog) -> Scorer: ...

    def manifest(self, plan: RetrainPlan, run: RunDir) -> Manifest:
        """The trainings of a finished search that do not depend on one another."""
        ...

    def retrain(self, plan: RetrainPlan, run: RunDir, log: RunLog) -> Path:
        """Trains the best of a finished search from scratch; returns the winner's folder. What elements of an array
        have trained is kept."""
        ...

    def retrain_element(self, element: Element, run: RunDir, log: RunLog) -> Path:
        """One training of the manifest; returns what it left."""
        ...

    def trainings(self) -> Trainings:
        """How networks are trained from scratch to judge the score of the run by them."""
        ...


def _vision(config: Any, world: World) -> Domain:
    from subshot.launch.vision.domain import VisionDomain

    return VisionDomain(config, world)


def _clicks(config: Any, world: World) -> Domain:
    from subshot.launch.clicks.domain import ClickDomain

    return ClickDomain(config, world)


def _training_free(config: Any, world: World) -> Domain:
    from subshot.launch.training_free.domain import TrainingFreeDomain

    return TrainingFreeDomain(config, world)


DOMAINS: dict[type, Callable[[Any, World], Domain]] = {
    VisionConfig: _vision,
    ClickConfig: _clicks,
    TrainingFreeConfig: _training_free,
}
"""Imported when they are opened: a vision run loads no torchrec, a CTR run no DALI."""


def open_domain(config: RunConfig, world: World) -> Domain:
    domain = DOMAINS[type(config)](config, world)
    require_costs(config, domain)
    return domain


def require_costs(config: RunConfig, networks: Networks) -> None:
    """Raises ValueError where NSGA-II is to lower a cost that is not known of this run's networks."""
    if config.evolution.method != "nsga2":
        return
    (some,) = networks.sampler().draw(np.random.default_rng(config.seed), 1)
    known = [name for name in get_args(Cost) if name in networks.costs(some)]
    for name in config.evolution.costs:
        if name not in known:
            has_table = isinstance(config, VisionConfig) and name == "latency_ms"
            mend = "add --limits.latency-table FILE (launch/latency.py measures one), or " if has_table else ""
            allowed = f"{mend}choose from {', '.join(known)}"
            raise ValueError(f"evolution.costs has {name}, which is not known of these networks; {allowed}")


def retraining_minutes(config: RunConfig) -> float:
    """How long a process waits for another in retraining: those of a CTR run train whole networks by themselves, those
    of other runs meet at every step."""
    return 1440.0 if isinstance(config, ClickConfig) else 30.0


def saved_form(config: RunConfig) -> dict[str, Any]:
    """What config.json holds: the configuration, and the schema of the run folder that it was written with."""
    return {"schema_version": RUN_SCHEMA_VERSION, **to_json(config)}


def read_config(run: RunDir) -> RunConfig:
    """The configuration of a run. Raises ValueError where it does not fit this version of subshot."""
    record = read_json(run.config_json)
    preset = record.get("preset") if isinstance(record, dict) else None
    if preset not in PRESETS:
        raise ValueError(
            f"{run.config_json}: there is no preset {preset!r} in this version of subshot; start a new run"
        )
    record.pop("schema_version", None)
    return from_json(type(PRESETS[preset]()), record, str(run.config_json))


def changes_since_begun(
    run: RunDir, config: dict[str, Any] | None = None, data: dict[str, Any] | None = None
) -> list[str]:
    """A line for each setting, property of the data, or schema that is not what the run was begun with.

    config: the present `saved_form`; None where the run's own settings are taken, and only the schema can differ.
    """
    saved = read_json(run.config_json)
    if config is None:
        config = {**saved, "schema_version": RUN_SCHEMA_VERSION}
    changes = differences(saved, config)
    if data is not None:
        changes += differences(read_json(run.data_json) if run.data_json.is_file() else {}, data, "data")
    return changes


def require_accepted(run: RunDir, changes: list[str], accept: tuple[str, ...]) -> None:
    """Raises ValueError with all changes that are not accepted by name."""
    refused = [change for change in changes if change.split(":")[0] not in accept]
    if refused:
        names = " ".join(change.split(":")[0] for change in refused)
        raise ValueError(
            f"{run.root} was begun with other settings or data ({'; '.join(refused)}); go on with the same ones, or, "
            f"where the change is meant, add --accept {names}"
        )
