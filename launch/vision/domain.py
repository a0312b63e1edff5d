"""A vision run as the stages see it: images, a chain space, its supernet, its scores, its retraining."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from subshot.launch.config import VisionConfig
from subshot.launch.domain import RetrainPlan, Scorer
from subshot.launch.manifest import Element, Manifest
from subshot.launch.own_space import space_fingerprint
from subshot.launch.run_log import RunLog
from subshot.launch.vision.build import (
    Images,
    chain_builder,
    fingerprint_of,
    latency_of,
    make_constraints,
    make_space,
    make_supernet,
    open_images,
    warmup_loader,
)
from subshot.launch.vision.correlation import ImageTrainings
from subshot.launch.vision.retrain import Retraining, planned, retrain
from subshot.launch.vision.scoring import make_scorer, require_scorable
from subshot.launch.vision.spectra import measure_spectra
from subshot.launch.vision.warmup import warm_up
from subshot.search.objectives import Constraint, Limit
from subshot.search.sampling import LegalSampler
from subshot.supernet.indicators import read_indicators
from subshot.supernet.network import ChainSupernet
from subshot.supernet.space import Genotype
from subshot.train.checkpoint import read_weights
from subshot.train.dist import World, barrier, of_main
from subshot.train.run_dir import RunDir, file_digest, read_json, write_json


class VisionNetworks:
    """See subshot.launch.domain.Networks. Raises ImpossibleLimit where no network meets a limit."""

    def __init__(self, config: VisionConfig, classes: int) -> None:
        self.space = make_space(config.space, classes)
        self.latency = latency_of(config.limits, self.space)
        self._sampler = LegalSampler(self.space, make_constraints(config.limits, self.space))

    def sampler(self, near: Limit | None = None) -> LegalSampler:
        if near is None:
            return self._sampler
        return LegalSampler(self.space, [Constraint(self.space.costs["macs"], near)])

    def costs(self, genotype: Genotype) -> dict[str, float]:
        """latency_ms among them where the run has a table of it."""
        cost = self.space.cost(genotype)
        latency = {} if self.latency is None else {"latency_ms": self.latency(genotype)}
        return {"macs": cost.macs, "params": cost.params, "activation_elements": cost.activation_elements, **latency}


class VisionDomain(VisionNetworks):
    """See subshot.launch.domain.Domain. Raises DataError or ValueError where images, limits or score cannot be."""

    def __init__(self, config: VisionConfig, world: World) -> None:
        self.config = config
        self.world = world
        self.images = open_images(config, world)
        super().__init__(config, len(self.images.classes))
        self.loader = warmup_loader(config, self.images.train, world)
        require_scorable(config, self.space, config.warmup.recipe.epochs * self.loader.steps_per_epoch)

    @property
    def summary(self) -> str:
        return summary_of(self.images)

    def fingerprint(self) -> dict[str, Any]:
        images = fingerprint_of(self.images.train, self.images.search, self.images.val)
        table = self.config.limits.latency_table
        latency = {} if table is None else {"latency_table": file_digest(table)}
        return images | space_fingerprint(self.config.space) | latency

    def warm(self, run: RunDir, log: RunLog) -> ChainSupernet:
        config, world = self.config, self.world
        supernet = make_supernet(config.supernet, self.space, config.seed, world.device)
        if of_main(run.supernet.is_file(), world):
            supernet.load_state_dict(read_weights(run.supernet, world.device))
            log.line("the supernet is warm already")
        else:
            if world.is_main:
                write_json(run.spectrum_json, {"initial": measure_spectra(supernet, config.seed)})
            barrier(world)
            shards = config.images.num_shards
            warm_up(supernet, self.loader, config.warmup, config.score, config.seed, shards, world, run, log)
        if world.is_main and not run.indicators_json.is_file():
            trained = measure_spectra(supernet, config.seed, recalibrate=True)
            write_json(run.spectrum_json, read_json(run.spectrum_json) | {"trained": trained})
            write_json(run.indicators_json, indicators_record(config, supernet))
        return supernet

    def scorer(self, supernet: Any, run: RunDir, log: RunLog) -> Scorer:
        return make_scorer(self.config, supernet, self.images, self.world, run, log)

    def manifest(self, plan: RetrainPlan, run: RunDir) -> Manifest:
        return planned(plan, self.config, self.fingerprint(), run)

    def retrain(self, plan: RetrainPlan, run: RunDir, log: RunLog) -> Path:
        return retrain(self.manifest(plan, run).elements, self.retraining, run, log)

    def retrain_element(self, element: Element, run: RunDir, log: RunLog) -> Path:
        return retrain([element], self.retraining, run, log)

    @property
    def retraining(self) -> Retraining:
        return Retraining(self.config, self.space, chain_builder(self.config.retrain, self.space), self.world)

    def trainings(self) -> ImageTrainings:
        config, retraining = self.config, self.retraining

        def fresh(genotype: Genotype) -> nn.Module:
            return retraining.build(genotype, config.seed)

        return ImageTrainings(retraining, fresh, config.images.batch_size, self.fingerprint())


def summary_of(images: Images) -> str:
    skipped = len(images.train.skipped) + len(images.val.skipped)
    left_out = f", {skipped} bad files left out" if skipped else ""
    return (
        f"images: {len(images.train)} to train on, {len(images.search)} held out of train for one-shot scores, "
        f"{len(images.val)} untouched for the test; {len(images.classes)} classes{left_out}"
    )


def indicators_record(config: VisionConfig, supernet: ChainSupernet) -> dict[str, Any]:
    indicators = read_indicators(supernet, config.score.statistic)
    return {
        "statistic": config.score.statistic,
        "decisions": {d.name: list(d.choices) for d in supernet.space.decisions},
        "block": [list(row) for row in indicators.block],
        "layer": list(indicators.layer),
    }
