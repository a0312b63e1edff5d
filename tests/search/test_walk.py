"""Draws under limits that hardly any uniform draw meets."""

import random
from functools import cache

import numpy as np
import pytest

from subshot.search.objectives import ImpossibleLimit, Limit
from subshot.search.rejection import CostLimit
from subshot.search.walk import WalkSampler
from subshot.supernet.nasbench_macro import nasbench_macro
from subshot.supernet.space import Genotype
from subshot.supernet.zennas import ZenSpace

SPACE = nasbench_macro(32, 10, 0.25)
ZEN = ZenSpace()


def total(genotype: Genotype) -> float:
    return float(sum(genotype))


@cache
def params(genotype: Genotype) -> float:
    return ZEN.cost(genotype).params


def test_a_legal_part_of_one_in_a_million_is_drawn_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subshot.search.walk.TRIES", 50)
    sampler = WalkSampler(ZEN, [CostLimit(params, Limit("params", maximum=20_000, minimum=10_000))])
    drawn = sampler.draw(np.random.default_rng(0), 6)
    assert all(10_000 <= params(genotype) <= 20_000 and ZEN.canonical(genotype) == genotype for genotype in drawn)
    assert all(ZEN.why_invalid(genotype) is None for genotype in drawn)
    assert len(set(drawn)) == 6
    assert drawn == sampler.draw(np.random.default_rng(0), 6)


def test_a_walk_from_one_place_reaches_the_whole_legal_part_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without rejection and without descent every walk begins at the same network."""
    sampler = WalkSampler(SPACE, [CostLimit(total, Limit("total", maximum=8.0))])
    monkeypatch.setattr("subshot.search.walk.TRIES", 0)
    monkeypatch.setattr(sampler, "_descended", lambda source: (0,) * 8)
    walked = np.array(sampler.draw(np.random.default_rng(0), 1500))
    monkeypatch.undo()
    rejected = np.array(sampler.draw(np.random.default_rng(1), 1500))
    assert walked.sum(axis=1).mean() == pytest.approx(rejected.sum(axis=1).mean(), abs=0.25)
    assert np.abs(walked.mean(axis=0) - rejected.mean(axis=0)).max() < 0.15


def test_what_nothing_meets_is_refused_with_how_near_it_came(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subshot.search.walk.IN_VAIN", 8)
    sampler = WalkSampler(ZEN, [CostLimit(params, Limit("params", maximum=1000))])
    with pytest.raises(ImpossibleLimit, match=r"of the nearest one params is [67],[0-9]{3}, above the maximum 1,000"):
        sampler.draw(np.random.default_rng(0), 1)


def test_limits_that_exclude_one_another_are_refused() -> None:
    limits = [CostLimit(total, Limit("total", minimum=14.0)), CostLimit(total, Limit("sum", maximum=3.0))]
    with pytest.raises(ImpossibleLimit, match="no network was found that meets every limit"):
        WalkSampler(SPACE, limits).draw(np.random.default_rng(0), 1)


def test_a_mutant_is_canonical_and_differs_in_about_as_many_decisions_as_asked_for() -> None:
    sampler, rng = WalkSampler(ZEN), random.Random(0)
    genotype = sampler.draw(np.random.default_rng(0), 1)[0]
    changed = []
    for _ in range(200):
        mutant = sampler.mutate(genotype, rng, 3.0)
        assert ZEN.canonical(mutant) == mutant
        changed.append(sum(a != b for a, b in zip(genotype, mutant, strict=True)))
    assert 2.0 < np.mean(changed) < 5.0
