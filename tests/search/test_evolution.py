"""Regularised evolution: its promises, its exact resume, and its distance from the exact optimum."""

import itertools
import json
import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from subshot.search.evaluator import AdditiveEvaluator, FunctionEvaluator, Infeasible
from subshot.search.evolution import (
    EvolutionConfig,
    State,
    ask,
    init,
    random_search,
    run_to_end,
    statistics,
    strength,
    tell,
    why_finished,
)
from subshot.search.history import EMPTY_DIGEST, Candidate, chained
from subshot.search.knapsack import optimum
from subshot.search.objectives import Constraint, Limit
from subshot.search.sampling import LegalSampler
from subshot.supernet.space import Additive

SMALL = EvolutionConfig(budget=300, population=20, sample=5, children=7)


@pytest.fixture()
def problem(chain, random_sum):
    """A sampler over 8 decisions of 4 choices, about a tenth of it legal, and a random score."""
    rng = random.Random(1)
    cost, score = random_sum(rng, [4] * 8), random_sum(rng, [4] * 8)
    limit = Limit("macs", cost.minimum() + 0.38 * (cost.maximum() - cost.minimum()))
    return LegalSampler(chain(cost), [Constraint(cost, limit)]), score


def test_every_candidate_is_legal_new_and_well_born(problem) -> None:
    sampler, score = problem
    state = run_to_end(SMALL, sampler, init(0), AdditiveEvaluator(score))
    history = list(state.history)
    assert state.evaluated == 300 == len({candidate.genotype for candidate in history})
    assert [candidate.index for candidate in history] == list(range(300))
    assert all(sampler.is_legal(candidate.genotype) for candidate in history)
    assert all(c.score == pytest.approx(score(c.genotype), abs=1e-12) for c in history)
    assert all(not candidate.parents for candidate in history[:20])
    assert sum(len(candidate.parents) == 2 for candidate in history) > 50
    for candidate in history:
        for parent in candidate.parents:
            assert history[parent].generation < candidate.generation
            assert candidate.index - parent < 20 + 2 * 7, "a parent had died of age"
    assert state.digest == chained(EMPTY_DIGEST, history)
    assert "budget of 300" in why_finished(SMALL, sampler, state)


def test_the_oldest_die_and_the_best_is_kept(problem) -> None:
    sampler, score = problem
    state, previous = init(0), -math.inf
    while proposals := ask(SMALL, sampler, state):
        state = tell(SMALL, state, proposals, AdditiveEvaluator(score).evaluate([p.genotype for p in proposals]))
        assert state.population == tuple(state.history[-20:])
        assert state.best[0].score >= previous
        previous = state.best[0].score
        expected = sorted(state.history, key=lambda c: (-c.score, c.index))[:10]
        assert list(state.best) == expected
    summary = statistics(state)
    scores = [candidate.score for candidate in state.population]
    assert summary["mean"] == pytest.approx(np.mean(scores)) and summary["max"] == max(scores)
    assert statistics(init(0)) == {}


def test_the_parent_is_the_best_of_a_sample_without_replacement(problem) -> None:
    """With a sample of the whole population and no crossover, every parent is the best that lives."""
    sampler, score = problem
    config = replace(SMALL, sample=20, crossover=0.0)
    state = init(3)
    while proposals := ask(config, sampler, state):
        bred = [proposal for proposal in proposals if proposal.parents]
        if bred:
            best = max(state.population, key=lambda candidate: candidate.score)
            assert {proposal.parents for proposal in bred} == {(best.index,)}
        state = tell(config, state, proposals, AdditiveEvaluator(score).evaluate([p.genotype for p in proposals]))


def test_a_population_that_does_not_get_better_gives_way_to_a_fresh_one(problem) -> None:
    sampler, score = problem
    config = replace(SMALL, patience=40)
    state, restarts = init(0), 0
    while proposals := ask(config, sampler, state):
        before = state
        state = tell(config, state, proposals, AdditiveEvaluator(score).evaluate([p.genotype for p in proposals]))
        if not state.population:
            restarts += 1
            assert before.champion is not None and state.evaluated - before.champion.index > 40
            assert not any(proposal.parents for proposal in ask(config, sampler, state))
        assert state.best[0].score == max(candidate.score for candidate in state.history)
    assert restarts >= 2


def test_mutations_are_mostly_small_and_sometimes_large(problem) -> None:
    sampler, _ = problem
    rng = random.Random(0)
    strengths = [strength(sampler.space, rng) for _ in range(20_000)]
    for least in (1, 2, 3, 4):
        assert np.mean([value >= least for value in strengths]) == pytest.approx(1 / least, abs=0.02)
    assert max(strengths) == 4  # half of eight decisions


@pytest.mark.parametrize("patience", [1_000, 40])
def test_a_search_stopped_anywhere_continues_as_if_it_had_not_been(problem, patience) -> None:
    sampler, score = problem
    evaluator = AdditiveEvaluator(score)
    config = replace(SMALL, patience=patience)
    whole = run_to_end(config, sampler, init(5), evaluator)
    state, states = init(5), [init(5)]
    while proposals := ask(config, sampler, state):
        assert ask(config, sampler, state) == proposals
        state = tell(config, state, proposals, evaluator.evaluate([p.genotype for p in proposals]))
        states.append(state)
    lines = [json.dumps(candidate.to_json()) for candidate in whole.history]
    for stopped in states[:: len(states) // 6]:
        saved = json.dumps(stopped.to_json())
        resumed = State.from_json(json.loads(saved), (Candidate.from_json(json.loads(line)) for line in lines))
        assert resumed == stopped and list(resumed.history) == list(stopped.history)
        ended = run_to_end(config, sampler, resumed, evaluator)
        assert ended == whole and ended.digest == whole.digest
        assert [json.dumps(candidate.to_json()) for candidate in ended.history] == lines


def test_a_state_refuses_another_history(problem) -> None:
    sampler, score = problem
    state = run_to_end(replace(SMALL, budget=40), sampler, init(0), AdditiveEvaluator(score))
    other = run_to_end(replace(SMALL, budget=40), sampler, init(1), AdditiveEvaluator(score))
    with pytest.raises(ValueError, match="digest differs"):
        State.from_json(state.to_json(), other.history)
    with pytest.raises(ValueError, match="after 40 candidates, but the history holds 39"):
        State.from_json(state.to_json(), state.history[:39])


def test_nobody_elses_random_numbers_are_touched(problem) -> None:
    sampler, score = problem
    random.seed(1), np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002
    before = random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state()  # noqa: NPY002
    first = run_to_end(SMALL, sampler, init(0), AdditiveEvaluator(score))
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tobytes() == before[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])
    random.seed(2), np.random.seed(2)  # noqa: NPY002
    assert run_to_end(SMALL, sampler, init(0), AdditiveEvaluator(score)).digest == first.digest
    assert run_to_end(SMALL, sampler, init(1), AdditiveEvaluator(score)).digest != first.digest


def test_what_has_no_score_is_recorded_and_never_a_parent(problem) -> None:
    sampler, score = problem

    def moody(genotype):
        if genotype[0] == 1:
            return Infeasible("no gradient reaches the stem")
        return math.nan if genotype[1] == 2 else score(genotype)

    state = run_to_end(SMALL, sampler, init(0), FunctionEvaluator(moody))
    dead = {c.index: c for c in state.history if c.score is None}
    assert state.evaluated == 300 and len(dead) > 20
    assert {c.reason for c in dead.values()} == {"no gradient reaches the stem", "the score is nan"}
    assert all(parent not in dead for c in state.history for parent in c.parents)
    assert all(c.index not in dead for c in (*state.population, *state.best))
    hopeless = run_to_end(replace(SMALL, budget=30), sampler, init(0), FunctionEvaluator(lambda g: math.nan))
    assert hopeless.evaluated == 30 and hopeless.best == ()


def test_a_space_that_is_used_up_ends_the_search(chain, switched) -> None:
    cost = Additive(0.0, ((0.0, 1.0, 2.0),) * 4)
    sampler = LegalSampler(chain(cost), [Constraint(cost, Limit("macs", 5.0))])
    legal = {g for g in itertools.product(range(3), repeat=4) if sum(g) <= 5}
    for config in (SMALL, random_search(SMALL)):
        state = run_to_end(config, sampler, init(0), AdditiveEvaluator(cost))
        assert {candidate.genotype for candidate in state.history} == legal
        assert f"every legal network that could be found was scored, {len(legal)}" in why_finished(
            config, sampler, state
        )
    merged = LegalSampler(switched(Additive(0.0, ((0.0, 1.0), (1.0, 1.0), (0.0, 2.0), (0.0, 3.0)))))
    state = run_to_end(SMALL, merged, init(0), FunctionEvaluator(lambda genotype: float(sum(genotype))))
    assert state.evaluated == 9  # 16, less 4 merged, less a quarter forbidden


def test_random_search_draws_every_candidate_fresh(problem) -> None:
    sampler, score = problem
    state = run_to_end(random_search(SMALL), sampler, init(0), AdditiveEvaluator(score))
    assert state.evaluated == 300 == len({candidate.genotype for candidate in state.history})
    assert all(not candidate.parents for candidate in state.history)
    evolved = run_to_end(SMALL, sampler, init(0), AdditiveEvaluator(score))
    assert np.mean([c.score for c in evolved.history]) > np.mean([c.score for c in state.history])


def test_wrong_settings_and_wrong_scores_are_refused(problem) -> None:
    with pytest.raises(ValueError, match="sample of 30 cannot be drawn from a population of 20"):
        EvolutionConfig(population=20, sample=30)
    with pytest.raises(ValueError, match="children must be at least 1"):
        EvolutionConfig(children=0)
    with pytest.raises(ValueError, match="crossover is a probability"):
        EvolutionConfig(crossover=1.5)
    with pytest.raises(ValueError, match="mutations must not be negative"):
        EvolutionConfig(mutations=-1.0)
    sampler, _ = problem
    with pytest.raises(ValueError, match="7 proposals .* 1 scores"):
        tell(SMALL, init(0), ask(SMALL, sampler, init(0)), [0.0])


@pytest.mark.parametrize("trial", range(20))
def test_the_best_is_within_three_thousandths_of_the_optimum(chain, mobilenetv2_macs, random_sum, trial) -> None:
    """Default settings but for half of the budget."""
    constraints = [Constraint(mobilenetv2_macs, Limit("macs", 600e6))]
    score = random_sum(random.Random(trial), [6] * 21)
    state = run_to_end(
        EvolutionConfig(budget=5_000),
        LegalSampler(chain(mobilenetv2_macs), constraints),
        init(trial),
        AdditiveEvaluator(score),
    )
    best = optimum(score, constraints).score
    assert best * (1 - 0.003) <= state.best[0].score <= best + 1e-9


@pytest.mark.parametrize("trial", range(2))
def test_the_best_of_the_published_space_under_its_limit(chain, bnnas_macs, random_sum, trial) -> None:
    constraints = [Constraint(bnnas_macs, Limit("macs", 475e6))]
    score = random_sum(random.Random(trial), [len(row) for row in bnnas_macs.table])
    sampler = LegalSampler(chain(bnnas_macs), constraints)
    state = run_to_end(EvolutionConfig(), sampler, init(trial), AdditiveEvaluator(score))
    best = optimum(score, constraints).score
    assert best * (1 - 0.003) <= state.best[0].score <= best + 1e-9
