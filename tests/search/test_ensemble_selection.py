"""Chosen ensembles against loops over pairs of networks and over every subset, on thirty made-up networks."""

import itertools
import math

import numpy as np
import pytest

from subshot.search.aggregation import AGGREGATIONS, RANK_COMBINERS, Ensemble
from subshot.search.ensemble_selection import (
    Pool,
    best_ensembles,
    forward_selection,
    mean_kendall,
    mean_spearman,
    shortlist,
    subsets,
    without_twins,
)
from subshot.search.ranking import spearman

NAMES = ("signal", "other", "noise", "coarse", "constant")


def slow_tau(truth, scores) -> float:
    both, left, right = 0, 0, 0
    for a, b in itertools.combinations(range(len(truth)), 2):
        x = (truth[a] > truth[b]) - (truth[a] < truth[b])
        y = (scores[a] > scores[b]) - (scores[a] < scores[b])
        both, left, right = both + x * y, left + x * x, right + y * y
    return both / math.sqrt(left * right) if left and right else -1.0


@pytest.fixture
def table():
    """Two columns that know different parts of the truth, one that knows nothing, one with ties and gaps."""
    rng = np.random.default_rng(3)
    first, second = rng.normal(size=30), rng.normal(size=30)
    made = {
        "signal": first + 0.2 * rng.normal(size=30),
        "other": second + 0.2 * rng.normal(size=30),
        "noise": rng.normal(size=30),
        "coarse": np.round(first + second),
        "constant": np.ones(30),
    }
    made["coarse"][[4, 9]] = np.nan
    made["other"][7] = -np.inf
    truths = [first + second + 0.3 * rng.normal(size=30) for _ in range(2)]
    return made, truths


def slow_choices(table, truths, aggregation, largest) -> dict[frozenset[str], float]:
    found = {}
    for size in range(1, largest + 1):
        for names in itertools.combinations(table, size):
            scores = Ensemble(names, aggregation).scores(table).tolist()
            found[frozenset(names)] = sum(slow_tau(truth.tolist(), scores) for truth in truths) / len(truths)
    return found


@pytest.mark.parametrize("aggregation", RANK_COMBINERS)
def test_every_subset_is_judged_and_the_best_stands_first(table, aggregation) -> None:
    made, truths = table
    expected = slow_choices(made, truths, aggregation, 3)
    found = best_ensembles(made, truths, aggregation, 3, screened=None)
    assert {frozenset(c.ensemble.members) for c in found} == set(expected) and len(found) == len(expected)
    for choice in found:
        assert choice.ensemble.aggregation == aggregation
        assert choice.criterion == pytest.approx(expected[frozenset(choice.ensemble.members)], abs=1e-9)
    assert [c.criterion for c in found] == sorted((c.criterion for c in found), reverse=True)
    assert "noise" not in found[0].ensemble.members


@pytest.mark.parametrize("aggregation", RANK_COMBINERS)
def test_mean_rho_of_many_subsets_is_that_of_each(table, aggregation) -> None:
    made, truths = table
    pool = Pool.of(made)
    assert pool.names == NAMES
    chosen = [subset for subset in subsets(5, 4) if subset != (4,)]
    found = mean_spearman(pool, chosen, aggregation, truths)
    for subset, rho in zip(chosen, found, strict=True):
        scores = AGGREGATIONS[aggregation](np.stack([made[NAMES[place]] for place in subset], axis=1))
        assert pool.scores(subset, aggregation) == pytest.approx(scores, abs=1e-12)
        assert rho == pytest.approx(np.mean([spearman(truth, scores) for truth in truths]), abs=1e-9)
    assert mean_spearman(pool, [(4,)], aggregation, truths).tolist() == [-1.0]


def test_screening_keeps_the_best(table) -> None:
    made, truths = table
    every = best_ensembles(made, truths, "log_rank_sum", 3, screened=None)
    few = best_ensembles(made, truths, "log_rank_sum", 3, screened=8)
    assert len(few) == 8 and few[0] == every[0]


def test_forward_selection_adds_the_best_at_each_step(table) -> None:
    made, truths = table
    path = forward_selection(made, truths, "log_rank_sum", 9)
    value = slow_choices(made, truths, "log_rank_sum", 5)
    members: tuple[str, ...] = ()
    assert len(path) == 5
    for choice in path:
        best = max(value[frozenset((*members, name))] for name in made if name not in members)
        assert choice.criterion == pytest.approx(best, abs=1e-9)
        assert set(members) < set(choice.ensemble.members)
        members = choice.ensemble.members
        assert members == tuple(name for name in made if name in members)


def test_twins_and_constants_leave_and_the_first_stays(table) -> None:
    made, _ = table
    doubled = {**made, "same": np.exp(made["signal"]), "turned": -made["signal"]}
    assert list(without_twins(doubled)) == ["signal", "other", "noise", "coarse", "turned"]
    assert list(without_twins({"same": doubled["same"], **made})) == ["same", "other", "noise", "coarse"]


def test_a_column_is_short_listed_for_the_sets_it_completes(table) -> None:
    made, truths = table
    short = shortlist({name: made[name] for name in ("noise", "other", "signal")}, truths, 2)
    assert list(short) == ["other", "signal"]
    assert list(shortlist(made, truths, 5)) == list(made)


def test_what_cannot_be_ranked() -> None:
    assert mean_kendall([[1.0, 2.0]], [3.0, 3.0]) == -1.0
    with pytest.raises(ValueError, match="no score to choose from"):
        Pool.of({})


def test_subsets_come_smallest_first() -> None:
    assert subsets(3, 2) == [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)]
