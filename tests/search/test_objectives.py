"""Limits: what is legal, and what is said when nothing can be."""

import math

import numpy as np
import pytest

from subshot.search.objectives import Constraint, ImpossibleLimit, Limit, Objective, constraints_of, why_illegal, within
from subshot.supernet.space import Additive

COST = Additive(100.0, ((0.0, 10.0), (5.0, 50.0, 500.0)))


def test_limits_are_closed_intervals() -> None:
    constraints = [Constraint(COST, Limit("macs", maximum=150.0, minimum=115.0))]
    genotypes = np.array([(a, b) for a in range(2) for b in range(3)])
    assert within(constraints, genotypes).tolist() == [False, True, False, True, False, False]
    assert why_illegal(constraints, (0, 1)) is None
    assert why_illegal(constraints, (1, 2)) == "macs is 610, above the maximum 150"
    assert why_illegal(constraints, (0, 0)) == "macs is 105, below the minimum 115"


def test_one_genotype_and_a_batch_agree_at_a_limit_that_floats_cannot_hold() -> None:
    cost = Additive(0.1, tuple((0.1 * i, 0.7) for i in range(12)))
    genotype = (1, 0) * 6
    total = float(cost.batch(np.array([genotype]))[0])
    for high in (total, math.nextafter(total, 0.0)):
        constraint = Constraint(cost, Limit("latency_ms", high))
        assert (why_illegal([constraint], genotype) is None) == within([constraint], np.array([genotype]))[0]


def test_an_impossible_limit_says_what_the_space_reaches() -> None:
    with pytest.raises(ImpossibleLimit, match=r"limit macs: .* at most 104; the minimum .* reaches is 105"):
        Constraint(COST, Limit("macs", 104.0)).require_possible()
    with pytest.raises(ImpossibleLimit, match=r"at least 1,000; the maximum .* reaches is 610"):
        Constraint(COST, Limit("macs", minimum=1000.0)).require_possible()
    Constraint(COST, Limit("macs", maximum=105.0)).require_possible()
    Constraint(COST, Limit("macs", minimum=610.0)).require_possible()


def test_contradictory_and_undefined_limits_are_refused() -> None:
    with pytest.raises(ImpossibleLimit, match="minimum 3 is above the maximum 2"):
        Limit("params", maximum=2.0, minimum=3.0)
    with pytest.raises(ValueError, match="finite"):
        Limit("params", maximum=math.nan)
    with pytest.raises(ValueError, match="cost table"):
        Constraint(Additive(0.0, ((1.0, math.inf),)), Limit("params", 3.0))


def test_constraints_are_made_of_the_objectives_that_have_a_limit() -> None:
    objectives = [Objective("score", maximize=True), Objective("macs", maximize=False, limit=Limit("macs", 150.0))]
    assert constraints_of(objectives, {"macs": COST}) == (Constraint(COST, Limit("macs", 150.0)),)
    with pytest.raises(ValueError, match="no cost named 'macs'.*allowed: params"):
        constraints_of(objectives, {"params": COST})
    with pytest.raises(ImpossibleLimit):
        constraints_of([Objective("macs", maximize=False, limit=Limit("macs", 1.0))], {"macs": COST})
