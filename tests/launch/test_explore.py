"""The parts of the search stage that can be checked against enumeration."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from subshot.launch.config import LimitsConfig
from subshot.launch.explore import exact_optimum, grouped_additive, same_cost_networks
from subshot.launch.presets import PRESETS
from subshot.launch.vision.domain import VisionNetworks
from subshot.search.objectives import Constraint, Limit
from subshot.supernet.nasbench_macro import nasbench_macro
from subshot.supernet.space import Additive

SPACE = nasbench_macro(32, 10, 0.25)
CANONICAL = sorted({SPACE.canonical(g) for g in itertools.product(range(3), repeat=8)})


def random_score(seed: int) -> Additive:
    rng = np.random.default_rng(seed)
    return Additive(0.5, tuple(tuple(rng.normal(size=3).tolist()) for _ in range(8)))


@pytest.mark.parametrize("seed", range(5))
def test_optimum_is_the_best_of_all_canonical_networks(seed: int) -> None:
    score = random_score(seed)
    constraint = Constraint(SPACE.costs["macs"], Limit("macs", maximum=3e6))
    genotype, best = exact_optimum(SPACE, score, (constraint,))
    legal = [g for g in CANONICAL if SPACE.cost(g).macs <= 3e6]
    assert best == pytest.approx(max(score(g) for g in legal))
    assert score(genotype) == pytest.approx(best)
    assert genotype == SPACE.canonical(genotype)


def test_grouping_leaves_the_sum_as_it_is() -> None:
    macs = SPACE.costs["macs"]
    grouped = grouped_additive(SPACE, macs)
    for choice in itertools.product(*(range(0, len(group), 2) for group in SPACE.groups)):
        genotype = tuple(g for group, c in zip(SPACE.groups, choice, strict=True) for g in group[c])
        assert grouped(choice) == macs(genotype)


def test_controls_cost_what_the_winner_costs() -> None:
    winner = CANONICAL[2000]
    networks = VisionNetworks(replace(PRESETS["digits"](), limits=LimitsConfig()), 10)
    assert networks.space == SPACE
    controls = same_cost_networks(networks, winner, seed=0, count=3)
    assert len(set(controls)) == 3
    assert winner not in controls
    for control in controls:
        assert SPACE.cost(control).macs == pytest.approx(SPACE.cost(winner).macs, rel=0.05)
