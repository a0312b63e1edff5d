"""Effects of choices: an exact sum gives its table back, and intervals of noise hold zero as often as they say."""

from __future__ import annotations

import numpy as np
import pytest

from subshot.search.marginal_effects import OFF, marginal_effects, unknowns
from subshot.search.sampling import LegalSampler
from subshot.supernet import SPACES
from subshot.supernet.space import Additive

SIZES = (3, 4, 2, 3)


def drawn(rng: np.random.Generator, networks: int) -> np.ndarray:
    return np.stack([rng.integers(size, size=networks) for size in SIZES], axis=1)


def table(rng: np.random.Generator) -> Additive:
    return Additive(0.7, tuple(tuple(rng.normal(size=size).tolist()) for size in SIZES))


def test_an_exact_sum_is_read_exactly_and_its_intervals_collapse() -> None:
    rng = np.random.default_rng(0)
    additive, levels = table(rng), drawn(rng, 60)
    references = (1, 0, 1, 2)
    fit = marginal_effects(levels, additive.batch(levels), references)
    assert fit.is_exact and fit.explained == 1.0 and fit.unknowns == 1 + sum(size - 1 for size in SIZES)
    assert len(fit.contrasts) == sum(size - 1 for size in SIZES)
    for contrast in fit.contrasts:
        row = additive.table[contrast.factor]
        assert contrast.value == pytest.approx(row[contrast.level] - row[references[contrast.factor]], abs=1e-10)
        assert contrast.low == contrast.high == contrast.value


def test_intervals_of_nothing_hold_zero_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    held = [
        contrast.low <= 0.0 <= contrast.high
        for _ in range(300)
        for contrast in marginal_effects(drawn(rng, 60), rng.normal(size=60), (0, 0, 0, 0)).contrasts
    ]
    assert len(held) == 300 * 8
    assert 0.93 < np.mean(held) < 0.975


def test_intervals_hold_the_truth_where_the_noise_differs_and_choices_hang_together() -> None:
    rng = np.random.default_rng(2)
    additive, held, explained = table(rng), [], []
    for _ in range(300):
        levels = drawn(rng, 200)
        levels = levels[levels.sum(axis=1) <= 5]  # as a limit has it
        noise = rng.normal(size=len(levels)) * np.where(levels[:, 0] == 2, 2.0, 0.3)
        fit = marginal_effects(levels, additive.batch(levels) + noise, (0, 0, 0, 0))
        explained.append(fit.explained)
        rows = additive.table
        held += [c.low <= rows[c.factor][c.level] - rows[c.factor][0] <= c.high for c in fit.contrasts]
    assert 0.93 < np.mean(held) < 0.975
    assert 0.2 < np.mean(explained) < 0.95


def test_noise_alone_explains_nothing() -> None:
    rng = np.random.default_rng(3)
    explained = [marginal_effects(drawn(rng, 40), rng.normal(size=40), (0, 0, 0, 0)).explained for _ in range(200)]
    assert abs(np.mean(explained)) < 0.03


def test_a_factor_that_is_switched_off_tells_only_of_networks_that_have_it() -> None:
    """The second factor counts only where the first is 1; off, it is no level of its own to be told."""
    rng = np.random.default_rng(4)
    levels = np.stack([rng.integers(2, size=80), rng.integers(3, size=80)], axis=1)
    levels[levels[:, 0] == 0, 1] = OFF
    values = np.where(levels[:, 0] == 0, 5.0, 1.0 + levels[:, 1])
    fit = marginal_effects(levels, values, (0, 0))
    found = {(c.factor, c.level): c.value for c in fit.contrasts}
    assert fit.is_exact and found.keys() == {(1, 1), (1, 2)}
    assert found[1, 1] == pytest.approx(1.0) and found[1, 2] == pytest.approx(2.0)


def test_what_the_sample_does_not_determine_is_left_out() -> None:
    rng = np.random.default_rng(5)
    one = rng.integers(2, size=50)
    levels = np.stack([one, one, rng.integers(2, size=50)], axis=1)  # the first two always go together
    fit = marginal_effects(levels, rng.normal(size=50), (0, 0, 0))
    assert [contrast.factor for contrast in fit.contrasts] == [2]
    assert fit.unknowns == unknowns(levels) == 3


def test_rare_levels_and_missing_references_are_left_out() -> None:
    levels = np.zeros((40, 2), dtype=np.int64)
    levels[:20, 0], levels[0, 1] = 1, 1
    fit = marginal_effects(levels, np.random.default_rng(6).normal(size=40), (0, 0))
    assert [(c.factor, c.level, c.networks) for c in fit.contrasts] == [(0, 1, 20)]
    assert marginal_effects(levels, np.arange(40.0), (7, 0)).contrasts == ()


def test_too_few_networks_are_refused() -> None:
    rng = np.random.default_rng(7)
    with pytest.raises(ValueError, match="cannot tell 9 unknowns; at least 19 are needed"):
        marginal_effects(drawn(rng, 18), rng.normal(size=18), (0, 0, 0, 0))


def test_layers_that_may_change_places_are_read_exactly_from_canonical_networks() -> None:
    """Identities stand at the end of their run there, so the layers of a run hang together; the sum is found all the
    same, on networks under a limit."""
    space = SPACES["nasbench-macro"](32, 10, 0.25, 0)
    assert space.interchangeable
    rng = np.random.default_rng(8)
    genotypes = np.asarray([space.canonical(g) for g in LegalSampler(space, ()).draw(rng, 200)], dtype=np.int64)
    costs = space.costs["macs"]
    fit = marginal_effects(genotypes, costs.batch(genotypes), [0] * genotypes.shape[1])
    assert fit.is_exact and len(fit.contrasts) == sum(len(row) - 1 for row in costs.table)
    for contrast in fit.contrasts:
        row = costs.table[contrast.factor]
        assert contrast.value == pytest.approx(row[contrast.level] - row[0], rel=1e-9)
