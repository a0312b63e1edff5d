"""Runs that are quick to make: real searches by scores that need no supernet, retraining's figures made up."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from subshot.launch.config import LimitsConfig, SpaceConfig, VisionConfig, to_json
from subshot.launch.domain import Scorer
from subshot.launch.explore import explore
from subshot.launch.presets import PRESETS
from subshot.launch.run_log import RunLog
from subshot.launch.vision_domain import VisionNetworks
from subshot.search.evaluator import AdditiveEvaluator, FunctionEvaluator
from subshot.search.evolution import EvolutionConfig
from subshot.supernet.space import Additive, Genotype
from subshot.train.dist import World
from subshot.train.run_dir import RunDir, write_json

MakeRun = Callable[..., RunDir]


def additive_score(networks: VisionNetworks) -> Additive:
    """A number for each choice of each layer, always the same ones."""
    rng = random.Random(7)
    return Additive(0.0, tuple(tuple(rng.random() for _ in d.choices) for d in networks.space.decisions))


@pytest.fixture(scope="session")
def make_run() -> MakeRun:
    """make_run(folder, seed=0, budget=60, noise=0.0): a finished search of images; with noise the score is no sum."""

    def make(folder: Path, seed: int = 0, budget: int = 60, noise: float = 0.0) -> RunDir:
        run = RunDir(folder)
        config: VisionConfig = replace(
            PRESETS["macro-cifar10"](),  # type: ignore[arg-type]
            space=SpaceConfig("nasbench-macro", input_size=8, width=0.125),
            limits=LimitsConfig(max_macs=1.3e5),
            evolution=EvolutionConfig(budget=budget, population=12, sample=4, children=6),
            seed=seed,
        )
        networks = VisionNetworks(config, 10)
        additive = additive_score(networks)

        def noisy(genotype: Genotype) -> float:
            return additive(genotype) + noise * random.Random(str(genotype)).gauss(0.0, 1.0)

        scorer = Scorer("a sum", AdditiveEvaluator(additive), additive)
        if noise:
            scorer = Scorer("a sum and noise", FunctionEvaluator(noisy), None)
        write_json(run.config_json, to_json(config))
        write_json(run.data_json, {"classes": 10, "images": {"val": 355}})
        write_json(run.environment_json, {"python": "3.11", "processes": 2, "device": "cpu", "threads_per_process": 1})
        with RunLog(run, True) as log:
            log.line("macro-cifar10: 2 process(es) on cpu; run folder runs/macro")
            log.line("images: 1082 to train on, 355 untouched for the test; 10 classes")
            explore(config, networks, scorer, World(0, 1, torch.device("cpu")), run, log)
        return run

    return make


@pytest.fixture(scope="session")
def exact_run(make_run: MakeRun, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """To be read, not changed: its score is exactly a sum over layers."""
    return make_run(tmp_path_factory.mktemp("exact") / "exact")


@pytest.fixture(scope="session")
def noisy_run(make_run: MakeRun, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """To be read, not changed: a sum and noise."""
    return make_run(tmp_path_factory.mktemp("noisy") / "noisy", seed=1, noise=0.2)
