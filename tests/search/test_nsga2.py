"""NSGA-II: the promises of evolution, and the front against enumeration."""

import itertools
import json
import random
from dataclasses import replace

import numpy as np
import pytest

from subshot.search.evaluator import AdditiveEvaluator
from subshot.search.evolution import State, init
from subshot.search.history import Candidate
from subshot.search.nsga2 import FrontConfig, as_module_random, ask, tell
from subshot.search.objectives import Constraint, Limit
from subshot.search.sampling import LegalSampler

CONFIG = FrontConfig(budget=400, population=24)


@pytest.fixture()
def problem(chain, random_sum):
    rng = random.Random(4)
    cost, other, score = (random_sum(rng, [4] * 6) for _ in range(3))
    limit = Limit("macs", cost.minimum() + 0.6 * (cost.maximum() - cost.minimum()))
    return LegalSampler(chain(cost), [Constraint(cost, limit)]), [cost, other], score


def run(config, problem, state, stop_after=10**9):
    sampler, costs, score = problem
    while (proposals := ask(config, sampler, costs, state)) and state.generation < stop_after:
        state = tell(
            config, costs, state, proposals, AdditiveEvaluator(score).evaluate([p.genotype for p in proposals])
        )
    return state


def test_candidates_are_legal_and_new_and_the_front_is_one(problem) -> None:
    sampler, costs, score = problem
    state = run(CONFIG, problem, init(0))
    genotypes = [candidate.genotype for candidate in state.history]
    assert len(genotypes) == 400 == len(set(genotypes))
    assert all(sampler.is_legal(genotype) for genotype in genotypes)
    assert len(state.population) == 24
    values = np.array([(c.score, *(-cost(c.genotype) for cost in costs)) for c in state.population])
    dominated = [((values >= v).all(1) & (values > v).any(1)).any() for v in values]
    assert set(state.best) == {c for c, d in zip(state.population, dominated, strict=True) if not d}
    assert [c.score for c in state.best] == sorted((c.score for c in state.best), reverse=True)


def test_it_comes_close_to_the_true_front(problem) -> None:
    """One cost, a budget that is a fifth of the space: at least half of the true front is found."""
    sampler, (cost, _), score = problem
    state = run(replace(CONFIG, budget=800, population=40), (sampler, [cost], score), init(1))
    genotypes = np.array([g for g in itertools.product(range(4), repeat=6) if sampler.is_legal(g)])
    order = np.lexsort((-score.batch(genotypes), cost.batch(genotypes)))
    rising = score.batch(genotypes)[order]
    front = {tuple(g) for g in genotypes[order][rising > np.concatenate([[-1.0], np.maximum.accumulate(rising)[:-1]])]}
    assert len(front) > 6
    assert len(front & {c.genotype for c in state.best}) >= 0.5 * len(front)


def test_it_resumes_exactly_and_touches_no_global_random(problem) -> None:
    random.seed(1)
    before = random.getstate()
    whole = run(CONFIG, problem, init(2))
    assert random.getstate() == before
    stopped = run(CONFIG, problem, init(2), stop_after=7)
    lines = [json.dumps(candidate.to_json()) for candidate in whole.history]
    resumed = State.from_json(
        json.loads(json.dumps(stopped.to_json())), (Candidate.from_json(json.loads(line)) for line in lines)
    )
    random.seed(2)
    assert run(CONFIG, problem, resumed) == whole


def test_the_module_random_is_borrowed_and_given_back() -> None:
    ours, reference = random.Random(3), random.Random(3)
    random.seed(9)
    outside = random.getstate()
    with pytest.raises(RuntimeError), as_module_random(ours):
        assert random.random() == reference.random()
        raise RuntimeError
    assert random.getstate() == outside
    assert ours.random() == reference.random()


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of four"):
        FrontConfig(population=30)
    with pytest.raises(ValueError, match="budget and retries"):
        FrontConfig(budget=0)
