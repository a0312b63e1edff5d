"""The exact optimum against enumeration."""

import itertools
import math
import random

import numpy as np
import pytest

from subshot.search.knapsack import optimum
from subshot.search.objectives import Constraint, ImpossibleLimit, Limit, why_illegal, within
from subshot.supernet.space import Additive


def brute_force(score: Additive, constraints: list[Constraint]) -> float:
    genotypes = np.array(list(itertools.product(*(range(len(row)) for row in score.table))))
    legal = genotypes[within(constraints, genotypes)]
    return float(score.batch(legal).max()) if len(legal) else -math.inf


def random_limit(rng: random.Random, cost: Additive, name: str) -> Limit:
    span = cost.maximum() - cost.minimum()
    low, high = sorted(cost.minimum() + rng.random() * span for _ in range(2))
    side = rng.randrange(3)
    return Limit(name, maximum=None if side == 1 else high, minimum=None if side == 0 else low)


@pytest.mark.parametrize("limits", [0, 1, 2, 3])
@pytest.mark.parametrize("whole_costs", [True, False])
@pytest.mark.parametrize("whole_scores", [True, False])
def test_it_is_the_best_of_all(random_sum, limits, whole_costs, whole_scores) -> None:
    rng = random.Random(f"{limits} {whole_costs} {whole_scores}")
    found = 0
    for _ in range(24):
        sizes = [rng.randrange(1, 6) for _ in range(rng.randrange(1, 6))]
        score = random_sum(rng, sizes, whole=whole_scores)
        costs = [random_sum(rng, sizes, whole=whole_costs) for _ in range(limits)]
        constraints = [Constraint(cost, random_limit(rng, cost, f"cost{i}")) for i, cost in enumerate(costs)]
        best = brute_force(score, constraints)
        for method in ("auto", "pareto"):
            if best == -math.inf:
                with pytest.raises(ImpossibleLimit):
                    optimum(score, constraints, method)
                continue
            answer = optimum(score, constraints, method)
            assert answer.score == pytest.approx(best, abs=1e-12)
            assert answer.score == pytest.approx(score(answer.genotype), abs=1e-12)
            assert why_illegal(constraints, answer.genotype) is None
            assert answer.method == ("lattice" if method == "auto" and whole_costs and limits == 1 else "pareto")
            found += 1
    assert found > 12


def test_both_methods_agree_on_the_real_space(mobilenetv2_macs, random_sum) -> None:
    rng = random.Random(0)
    for limit in (Limit("macs", 500e6), Limit("macs", 700e6), Limit("macs", maximum=600e6, minimum=599.9e6)):
        score = random_sum(rng, [6] * 21)
        constraints = [Constraint(mobilenetv2_macs, limit)]
        lattice, pareto = (optimum(score, constraints, method) for method in ("lattice", "pareto"))
        assert lattice.genotype == pareto.genotype
        assert lattice.costs == {"macs": mobilenetv2_macs(lattice.genotype)}
        assert lattice.method == "lattice" and pareto.method == "pareto"


def test_a_score_that_follows_the_cost_is_solved_too(mobilenetv2_macs) -> None:
    """The hard case of knapsacks: what is better is what is dearer, so the limit is met almost exactly."""
    limit = 600e6
    answer = optimum(mobilenetv2_macs, [Constraint(mobilenetv2_macs, Limit("macs", limit))])
    assert answer.score == answer.costs["macs"]
    assert limit - 4704.0 < answer.score <= limit


def test_of_equal_scores_the_cheapest_wins(mobilenetv2_macs) -> None:
    constant = Additive(0.0, tuple((1.0,) * 6 for _ in range(21)))
    for method in ("lattice", "pareto"):
        answer = optimum(constant, [Constraint(mobilenetv2_macs, Limit("macs", 700e6))], method)
        assert answer.costs["macs"] == mobilenetv2_macs.minimum()
        assert answer.score == 21.0


def test_costs_far_beyond_a_lattice_are_still_exact(random_sum) -> None:
    rng = random.Random(2)
    for _ in range(5):
        sizes = [5] * 6
        score = random_sum(rng, sizes)
        cost = Additive(1e9, tuple(tuple(float(rng.randrange(10**10)) for _ in range(5)) for _ in sizes))
        constraints = [Constraint(cost, Limit("macs", 0.4 * cost.minimum() + 0.6 * cost.maximum()))]
        answer = optimum(score, constraints)
        assert answer.method == "pareto"
        assert answer.score == pytest.approx(brute_force(score, constraints), abs=1e-12)


def test_what_it_cannot_do_is_said(mobilenetv2_macs) -> None:
    score = Additive(0.0, tuple((0.0, 1.0, 2.0, 3.0, 4.0, 5.0) for _ in range(21)))
    with pytest.raises(ImpossibleLimit, match="the minimum that the space reaches is 462,635,960"):
        optimum(score, [Constraint(mobilenetv2_macs, Limit("macs", 400e6))])
    with pytest.raises(ImpossibleLimit, match="between"):
        optimum(score, [Constraint(mobilenetv2_macs, Limit("macs", maximum=500e6 + 200.0, minimum=500e6))])
    dearer = Additive(0.0, tuple((5.0, 4.0, 3.0, 2.0, 1.0, 0.0) for _ in range(21)))
    with pytest.raises(ImpossibleLimit, match="meets all limits together: score in .*, rest in"):
        optimum(score, [Constraint(score, Limit("score", 50.0)), Constraint(dearer, Limit("rest", 50.0))])
    with pytest.raises(ValueError, match="whole-number"):
        optimum(score, [], "lattice")
    with pytest.raises(ValueError, match="finite"):
        optimum(Additive(0.0, ((math.nan,),)), [])
    with pytest.raises(ValueError, match="decisions of the score"):
        optimum(Additive(0.0, ((1.0,),)), [Constraint(mobilenetv2_macs, Limit("macs", 500e6))])
