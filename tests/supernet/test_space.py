"""Additive tables and the genetics of a toy space, against loops."""

import itertools
import random
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest

from subshot.supernet.space import (
    Additive,
    Decision,
    added,
    cardinality,
    crossover,
    describe,
    enumerate_genotypes,
    from_named_choices,
    mutate,
    named_choices,
    sample,
    standardised,
    why_not_of,
)


@dataclass(frozen=True)
class Toy:
    """The second decision is switched off by the first one's choice 0, and then reads 0."""

    name: str = "toy"
    decisions: tuple[Decision, ...] = (
        Decision("use", ("no", "yes")),
        Decision("kernel", ("3", "5", "7")),
        Decision("fixed", ("only",)),
    )

    def canonical(self, genotype):
        return (genotype[0], genotype[1] if genotype[0] else 0, genotype[2])

    def why_invalid(self, genotype):
        return why_not_of(self, genotype)

    def decode(self, genotype):
        return genotype


TOY = Toy()


def test_additive_is_a_sum_over_decisions() -> None:
    score = Additive(0.5, ((0.0, 1.0), (0.25, -0.5, 0.75), (2.0,)))
    genotypes = list(enumerate_genotypes(TOY))
    by_hand = [0.5 + (0.0, 1.0)[a] + (0.25, -0.5, 0.75)[b] + 2.0 for a, b, _ in genotypes]
    assert [score(genotype) for genotype in genotypes] == by_hand
    assert score.batch(np.array(genotypes)).tolist() == by_hand
    assert (score.minimum(), score.maximum()) == (min(by_hand), max(by_hand))
    with pytest.raises(ValueError):
        score((0, 0))


def test_enumeration_is_complete_and_in_order() -> None:
    genotypes = list(enumerate_genotypes(TOY))
    assert genotypes == sorted(itertools.product(range(2), range(3), range(1)))
    assert cardinality(TOY) == len(genotypes) == 6


def test_variation_stays_canonical_and_keeps_its_rates() -> None:
    rng = random.Random(0)
    draws = 4000
    counts = Counter(sample(TOY, rng) for _ in range(draws))
    assert set(counts) == {(0, 0, 0), (1, 0, 0), (1, 1, 0), (1, 2, 0)}
    assert abs(counts[0, 0, 0] - draws / 2) < 200
    mutants = Counter(mutate(TOY, (1, 1, 0), rng, 0.25) for _ in range(draws))
    assert abs(mutants[1, 1, 0] / draws - 0.75**2) < 0.04
    assert abs(mutants[0, 0, 0] / draws - 0.25) < 0.04
    assert abs(mutants[1, 0, 0] - mutants[1, 2, 0]) < 150
    children = Counter(crossover(TOY, (0, 0, 0), (1, 2, 0), rng) for _ in range(draws))
    assert set(children) == {(0, 0, 0), (1, 0, 0), (1, 2, 0)}
    assert abs(children[1, 2, 0] / draws - 0.25) < 0.04


def test_named_choices_and_their_mistakes() -> None:
    assert named_choices(TOY, (1, 2, 0)) == {"use": "yes", "kernel": "7", "fixed": "only"}
    assert describe(TOY, (1, 2, 0)) == "yes 7 only"
    for genotype in enumerate_genotypes(TOY):
        assert from_named_choices(TOY, named_choices(TOY, genotype)) == TOY.canonical(genotype)
    with pytest.raises(ValueError, match="kernel cannot be '9'; allowed: 3, 5, 7"):
        from_named_choices(TOY, {"use": "yes", "kernel": "9", "fixed": "only"})
    with pytest.raises(ValueError, match=r"lack \['fixed'\] and have unknown \['size'\]"):
        from_named_choices(TOY, {"use": "yes", "kernel": "3", "size": "1"})


def test_standardised_has_mean_0_and_variance_1_over_all_genotypes() -> None:
    additive = Additive(7.0, ((1.0, 5.0), (0.0, 2.0, 10.0), (3.0,)))
    values = [standardised(additive)(g) for g in itertools.product(range(2), range(3), range(1))]
    assert np.mean(values) == pytest.approx(0.0, abs=1e-12)
    assert np.var(values) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="no scale"):
        standardised(Additive(1.0, ((2.0, 2.0),)))


def test_added_adds() -> None:
    first, second = Additive(1.0, ((1.0, 2.0), (3.0, 4.0))), Additive(0.5, ((10.0, 20.0), (30.0, 40.0)))
    for genotype in itertools.product(range(2), range(2)):
        assert added(first, second)(genotype) == first(genotype) + second(genotype)
