"""The search of a configuration: the same as the functions that it stands for, with whatever sampler a run has."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial

import pytest

from subshot.search import evolution
from subshot.search.evaluator import AdditiveEvaluator
from subshot.search.evolution import EvolutionConfig, State, init, random_search, run_to_end
from subshot.search.front import front_of
from subshot.search.methods import Method, described, method_of
from subshot.search.objectives import Constraint, Limit
from subshot.search.rejection import CostLimit, RejectionSampler
from subshot.search.sampling import LegalSampler
from subshot.supernet.space import mutate, sample

CONFIG = EvolutionConfig(budget=120, population=18, sample=4, children=6)
FRONT = replace(CONFIG, method="nsga2", costs=("params", "macs"))


@pytest.fixture()
def problem(chain, random_sum):
    """(space, costs by name, score)."""
    rng = random.Random(4)
    macs, params, score = (random_sum(rng, [4] * 5) for _ in range(3))
    return chain(macs), {"macs": macs, "params": params}, score


def run(method: Method, score) -> State:
    state = init(3)
    while proposals := method.ask(state):
        state = method.tell(state, proposals, AdditiveEvaluator(score).evaluate([p.genotype for p in proposals]))
    return state


def test_regularised_is_evolution_itself(problem) -> None:
    space, costs, score = problem
    sampler = LegalSampler(space)
    method = method_of(CONFIG, sampler, lambda g: {name: cost(g) for name, cost in costs.items()})
    assert run(method, score) == run_to_end(CONFIG, sampler, init(3), AdditiveEvaluator(score))
    assert described(CONFIG) == "evolution"


def test_the_control_of_nsga2_draws_at_random() -> None:
    control = random_search(FRONT)
    assert control.method == "regularised" and control.budget == FRONT.budget == control.population
    assert described(FRONT) == "NSGA-II (score up, params and macs down)"


@pytest.mark.parametrize("sums", [True, False])
def test_nsga2_goes_by_the_named_costs_under_any_sampler(problem, sums: bool) -> None:
    """LegalSampler, whose costs are sums, and RejectionSampler, whose costs are any function."""
    space, costs, score = problem
    limit = Limit("macs", 0.7 * costs["macs"].maximum())
    if sums:
        sampler = LegalSampler(space, [Constraint(costs["macs"], limit)])
    else:

        def mutated(genotype, rng, changes):
            return mutate(space, genotype, rng, changes / 5)

        sampler = RejectionSampler(space, partial(sample, space), mutated, [CostLimit(costs["macs"], limit)])
    asked: list[object] = []

    def costs_of(genotype):
        asked.append(genotype)
        return {"macs": costs["macs"](genotype), "params": costs["params"](genotype), "unread": float("nan")}

    state = run(method_of(FRONT, sampler, costs_of), score)
    assert len(state.history) == 120 == len({c.genotype for c in state.history}) == len(asked) == len(set(asked))
    assert all(sampler.is_legal(c.genotype) for c in state.history)
    assert len(state.population) == 20  # 18, rounded up to a multiple of four
    alive = [(c.score, costs["params"](c.genotype), costs["macs"](c.genotype)) for c in state.population]
    assert {c.genotype for c in state.best} == {state.population[i].genotype for i in front_of(alive)}


def test_costs_are_named_once_each() -> None:
    for costs in ((), ("macs", "macs")):
        with pytest.raises(ValueError, match="costs must name one cost or more, each once"):
            evolution.EvolutionConfig(costs=costs)
