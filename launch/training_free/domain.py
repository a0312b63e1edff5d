"""A training-free run as the stages see it: images, a benchmark space, proxies of fresh networks, retraining."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from subshot.launch.config import TrainingFreeConfig
from subshot.launch.domain import RetrainPlan, Scorer
from subshot.launch.manifest import Element, Manifest
from subshot.launch.options import at_least
from subshot.launch.run_log import RunLog
from subshot.launch.training_free.scoring import make_scorer, require_scorable
from subshot.launch.training_free.space import BenchmarkNetworks, benchmark_builder, initialised
from subshot.launch.vision.build import fingerprint_of, scan_images
from subshot.launch.vision.correlation import ImageTrainings
from subshot.launch.vision.retrain import Retraining, planned, retrain
from subshot.train.dist import World
from subshot.train.run_dir import RunDir


def require_honoured(config: TrainingFreeConfig) -> None:
    """Raises ValueError for settings of retraining that these networks would silently ignore."""
    at_least("", config, seed=0)
    if config.retrain.construction != "torch":
        raise ValueError(
            f"retrain.construction is {config.retrain.construction!r}; networks of {config.space.name} can only begin "
            "with 'torch', as their authors' do"
        )
    if config.retrain.recipe.dropout:
        raise ValueError(
            f"retrain.recipe.dropout is {config.retrain.recipe.dropout}; networks of {config.space.name} have none"
        )


class TrainingFreeDomain(BenchmarkNetworks):
    """See subshot.launch.domain.Domain. Raises DataError or ValueError where images, limits or score cannot be."""

    def __init__(self, config: TrainingFreeConfig, world: World) -> None:
        require_honoured(config)
        self.config = config
        self.world = world
        self.train, self.val = scan_images(config, world)
        require_scorable(config.score, self.train)
        super().__init__(config, len(self.train.classes))

    @property
    def summary(self) -> str:
        skipped = len(self.train.skipped) + len(self.val.skipped)
        left_out = f", {skipped} bad files left out" if skipped else ""
        return (
            f"images: {len(self.train)} to train on, {len(self.val)} untouched for the test; "
            f"{len(self.train.classes)} classes{left_out}"
        )

    def fingerprint(self) -> dict[str, Any]:
        return fingerprint_of(self.train, self.val)

    def warm(self, run: RunDir, log: RunLog) -> None:
        log.line("no warm-up: networks are scored at their initialisation")

    def scorer(self, supernet: Any, run: RunDir, log: RunLog) -> Scorer:
        return make_scorer(self.config, self, self.train, self.world, run, log)

    def manifest(self, plan: RetrainPlan, run: RunDir) -> Manifest:
        return planned(plan, self.config, self.fingerprint(), run)

    def retrain(self, plan: RetrainPlan, run: RunDir, log: RunLog) -> Path:
        return retrain(self.manifest(plan, run).elements, self.retraining, run, log)

    def retrain_element(self, element: Element, run: RunDir, log: RunLog) -> Path:
        return retrain([element], self.retraining, run, log)

    @property
    def retraining(self) -> Retraining:
        return Retraining(self.config, self.space, benchmark_builder(self.space), self.world)

    def trainings(self) -> ImageTrainings:
        fresh = partial(initialised, self.space, seed=self.config.seed)  # as the search measured it
        return ImageTrainings(self.retraining, fresh, self.config.score.batch_size, self.fingerprint())
