"""Draws under limits on costs that are no sums."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest

from subshot.search.evaluator import FunctionEvaluator, TermScore
from subshot.search.evolution import EvolutionConfig, changes, init, random_search, run_to_end
from subshot.search.objectives import ImpossibleLimit, Limit
from subshot.search.rejection import CostLimit, RejectionSampler
from subshot.supernet.nasbench_macro import nasbench_macro
from subshot.supernet.space import Genotype, mutate, sample

SPACE = nasbench_macro(32, 10, 0.25)


def product(genotype: Genotype) -> float:
    """No sum over decisions."""
    return float(np.prod([1 + gene for gene in genotype]))


def sampler(limit: Limit) -> RejectionSampler:
    def mutate_one(genotype: Genotype, rng: random.Random, count: int) -> Genotype:
        return mutate(SPACE, genotype, rng, count / len(SPACE.decisions))

    return RejectionSampler(SPACE, lambda rng: sample(SPACE, rng), mutate_one, [CostLimit(product, limit)])


def test_every_draw_is_legal_and_canonical() -> None:
    legal = sampler(Limit("product", maximum=40.0, minimum=4.0))
    drawn = legal.draw(np.random.default_rng(0), 300)
    assert all(4.0 <= product(genotype) <= 40.0 and SPACE.canonical(genotype) == genotype for genotype in drawn)
    assert len(set(drawn)) > 100
    assert drawn == legal.draw(np.random.default_rng(0), 300)
    assert legal.why_not((2,) * 8) == "product is 6,561, above the maximum 40"


def test_the_fraction_is_that_of_the_space() -> None:
    legal = sampler(Limit("product", maximum=40.0))
    counted = Counter(product(sample(SPACE, random.Random(seed))) <= 40.0 for seed in range(4000))
    assert legal.legal_fraction(np.random.default_rng(1), 4000) == pytest.approx(counted[True] / 4000, abs=0.05)


def test_an_impossible_limit_says_what_is_reached() -> None:
    with pytest.raises(ImpossibleLimit, match=r"product was \d to [\d,]+, wanted 7,000 to inf"):
        sampler(Limit("product", minimum=7000.0)).draw(np.random.default_rng(0), 1)


def test_evolution_runs_on_it_and_keeps_the_limit() -> None:
    legal = sampler(Limit("product", maximum=100.0))
    config = EvolutionConfig(budget=200, population=40, sample=20, children=8, mutations=6.0, schedule="falling")
    score = FunctionEvaluator(lambda genotype: TermScore(product(genotype), {"product": product(genotype)}))
    state = run_to_end(config, legal, init(0), score)
    assert state.evaluated == 200
    assert all(product(candidate.genotype) <= 100.0 for candidate in state.history)
    assert state.best[0].score == 96.0  # the largest product of 1, 2 and 3 up to 100
    assert run_to_end(random_search(config), legal, init(0), score).evaluated == 200


def test_nasrecs_schedule_of_mutations() -> None:
    config = EvolutionConfig(budget=2048, population=128, sample=64, children=8, mutations=6.0, schedule="falling")
    rng = random.Random(0)
    for generation in range(240):
        evaluated = 128 + 8 * generation
        assert changes(config, SPACE, evaluated, rng) == (240 - generation) // 48 + 1


def test_a_copied_score_keeps_its_terms() -> None:
    import copy

    score = TermScore(1.5, {"loss": 0.5})
    again = copy.copy(score)
    assert again == 1.5 and again.terms == {"loss": 0.5}
