"""Main effects against planted ones."""

from __future__ import annotations

import numpy as np
import pytest

from subshot.search.main_effects import main_effects, negated, path_loss_and_activations, reliability
from subshot.supernet.nasbench_macro import nasbench_macro

SPACE = nasbench_macro(32, 10, 0.25)


def planted(steps: int, noise: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    effects = rng.normal(size=(8, 3))
    effects -= effects.mean(axis=1, keepdims=True)
    paths = rng.integers(0, 3, size=(steps, 8))
    trend = 2.0 * np.exp(-np.linspace(0, 2, steps))
    values = trend + effects[np.arange(8), paths].sum(axis=1) + rng.normal(scale=noise, size=steps)
    return effects, paths, values


def test_planted_effects_are_found() -> None:
    effects, paths, values = planted(3000, noise=0.1)
    found = main_effects(SPACE, [tuple(path) for path in paths.tolist()], values)
    assert np.abs(np.array(found.table) - effects).max() < 0.03
    assert found.base == pytest.approx(2.0 * np.exp(-2), abs=0.05)


def test_effects_of_a_decision_sum_to_zero() -> None:
    _, paths, values = planted(300, noise=1.0)
    found = main_effects(SPACE, [tuple(path) for path in paths.tolist()], values)
    assert np.abs(np.array(found.table).sum(axis=1)).max() < 1e-9


def test_negated_turns_the_order_round() -> None:
    _, paths, values = planted(300, noise=1.0)
    found = main_effects(SPACE, [tuple(path) for path in paths.tolist()], values)
    genotype = (0, 1, 2, 0, 1, 2, 0, 1)
    assert negated(found)(genotype) == pytest.approx(-found(genotype))


def test_too_few_steps_are_refused() -> None:
    _, paths, values = planted(20, noise=1.0)
    with pytest.raises(ValueError, match="train the supernet for longer"):
        main_effects(SPACE, [tuple(path) for path in paths.tolist()], values)


def test_reliability_is_the_share_of_signal() -> None:
    """Near 1 without noise, near 0 for noise alone, close to the true squared correlation in between."""
    for noise, low, high in ((0.01, 0.99, 1.0), (1e4, 0.0, 0.5)):
        _, paths, values = planted(600, noise)
        assert low <= reliability(SPACE, [tuple(path) for path in paths.tolist()], values) <= high
    effects, paths, values = planted(600, noise=3.0)
    genotypes = [tuple(path) for path in paths.tolist()]
    found = main_effects(SPACE, genotypes, values)
    true = np.corrcoef(np.array(found.table).ravel(), effects.ravel())[0, 1] ** 2
    assert reliability(SPACE, genotypes, values) == pytest.approx(true, abs=0.15)


def test_an_unreliable_path_loss_counts_nothing() -> None:
    effects, paths, values = planted(600, noise=0.1)
    found = main_effects(SPACE, [tuple(path) for path in paths.tolist()], values)
    activations = SPACE.costs["activation_elements"]
    order = np.argsort(activations.batch(paths), kind="stable")
    scores = path_loss_and_activations(found, 0.0, activations).batch(paths)
    assert (np.diff(scores[order]) >= -1e-9).all()
    assert effects.shape == (8, 3)
