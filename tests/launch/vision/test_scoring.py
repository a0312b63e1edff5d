"""Every kind of score, on real digits and a supernet as it is initialised."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from subshot.data.digits import write_digits
from subshot.launch.config import SupernetConfig, VisionConfig
from subshot.launch.domain import Scorer
from subshot.launch.presets import digits
from subshot.launch.run_log import RunLog
from subshot.launch.scoring import alone
from subshot.launch.vision.build import Images, make_space, make_supernet, open_images
from subshot.launch.vision.scoring import make_scorer
from subshot.supernet.base import extract
from subshot.supernet.network import ChainSupernet
from subshot.supernet.space import standardised
from subshot.train.dist import World
from subshot.train.evaluate import count_correct, recalibrate_batchnorm
from subshot.train.run_dir import RunDir, append_jsonl
from subshot.train.task import image_task

WORLD = World(0, 1, torch.device("cpu"))
GENOTYPES = [(1, 0, 2, 1, 0, 0, 2, 1), (2, 2, 1, 0, 0, 1, 0, 0), (0, 1, 1, 2, 1, 2, 2, 2)]


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> tuple[VisionConfig, ChainSupernet, Images, RunDir]:
    folder = tmp_path_factory.mktemp("scoring")
    preset = digits()
    config = replace(
        preset,
        data=write_digits(folder / "digits"),
        space=replace(preset.space, width=0.125),
        supernet=SupernetConfig(branch="projected"),
        score=replace(preset.score, validation_images=64, calibration_images=64),
    )
    images = open_images(config, WORLD)
    space = make_space(config.space, len(images.classes))
    run = RunDir(folder / "run")
    rng = np.random.default_rng(0)
    paths = rng.integers(0, 3, size=(90, 8)).tolist()
    append_jsonl(run.paths_jsonl, [{"path": path, "loss": 2.0 + 0.1 * path[3]} for path in paths])
    return config, make_supernet(config.supernet, space, 0, WORLD.device), images, run


def scorer_of(setting: tuple[VisionConfig, ChainSupernet, Images, RunDir], **score: str) -> Scorer:
    config, supernet, images, run = setting
    changed = replace(config, score=replace(config.score, **score))  # type: ignore[arg-type]
    return make_scorer(changed, supernet, images, WORLD, run, RunLog(run, is_main=False))


def test_path_loss_finds_the_choice_that_costs_loss(setting) -> None:  # type: ignore[no-untyped-def]
    scorer = scorer_of(setting, kind="path_loss")
    first, second = scorer.evaluator.evaluate([(0,) * 8, (0, 0, 0, 2, 0, 0, 0, 0)])
    assert first - second == pytest.approx(0.2, rel=0.02)


def test_the_default_adds_activations_on_the_same_scale(setting) -> None:  # type: ignore[no-untyped-def]
    _, supernet, _, _ = setting
    losses = standardised(scorer_of(setting, kind="path_loss").additive)  # of losses without noise: reliability 1
    activations = standardised(supernet.space.costs["activation_elements"])
    scores = scorer_of(setting).evaluator.evaluate(GENOTYPES)
    assert scores == pytest.approx([losses(g) + activations(g) for g in GENOTYPES], rel=1e-3)


def test_one_shot_is_the_accuracy_of_a_recalibrated_copy(setting) -> None:  # type: ignore[no-untyped-def]
    config, supernet, _, _ = setting
    before = {name: value.clone() for name, value in supernet.state_dict().items()}
    scorer = scorer_of(setting, kind="one_shot")
    scores = scorer.evaluator.evaluate(GENOTYPES)
    uncached = alone(scorer.evaluator)
    assert scores == uncached.evaluate(GENOTYPES) == uncached.evaluate(GENOTYPES)
    for name, value in supernet.state_dict().items():
        assert torch.equal(value, before[name])
    inner = uncached.function  # the OneShot
    assert sum(len(batch.labels) for batch in inner.validation) == config.score.validation_images
    subnet = extract(supernet, GENOTYPES[0])
    recalibrate_batchnorm(subnet, inner.calibration, image_task())
    right, seen = count_correct(subnet, inner.validation, image_task())
    assert scores[0] == right / seen


@pytest.mark.parametrize("rule", ["block_sum", "block_times_layer", "weighted_activations"])
def test_indicator_rules_are_additive_scores(setting, rule: str) -> None:  # type: ignore[no-untyped-def]
    scorer = scorer_of(setting, kind="indicator", rule=rule)
    assert scorer.additive is not None
    assert scorer.evaluator.evaluate(GENOTYPES) == [scorer.additive(g) for g in GENOTYPES]


def test_an_unknown_rule_names_the_known_ones(setting) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=r"unknown indicator rule 'block'; known: block_sum, .*"):
        scorer_of(setting, kind="indicator", rule="block")


def test_a_layer_rule_needs_branches(setting) -> None:  # type: ignore[no-untyped-def]
    config, _, images, run = setting
    plain = make_supernet(SupernetConfig(), make_space(config.space, 10), 0, WORLD.device)
    with pytest.raises(ValueError, match="build the supernet with a branch"):
        scorer_of((config, plain, images, run), kind="indicator", rule="block_over_layer")


def test_noise_is_called_noise(setting, tmp_path) -> None:  # type: ignore[no-untyped-def]
    config, supernet, images, _ = setting
    run = RunDir(tmp_path)
    rng = np.random.default_rng(1)
    rows = [{"path": rng.integers(0, 3, size=8).tolist(), "loss": float(rng.normal())} for _ in range(90)]
    append_jsonl(run.paths_jsonl, rows)
    caution = scorer_of((config, supernet, images, run)).caution
    assert caution is not None and "mostly noise" in caution
    assert scorer_of(setting).caution is None
