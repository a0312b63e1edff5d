"""The legal sampler against enumeration: uniform, complete, and quick where legality is rare."""

import itertools
import random
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from subshot.search.lattice import exact_lattice, rounded_lattice
from subshot.search.objectives import Constraint, ImpossibleLimit, Limit, within
from subshot.search.sampling import LegalSampler
from subshot.supernet.space import Additive

SIZES = [3, 4, 2, 3]


def legal_set(cost: Additive, constraints: list[Constraint]) -> list[tuple[int, ...]]:
    genotypes = list(itertools.product(*(range(len(row)) for row in cost.table)))
    return [g for g, legal in zip(genotypes, within(constraints, np.array(genotypes)), strict=True) if legal]


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("low, high", [(None, 0.4), (0.45, 0.6), (0.7, None)])
def test_draws_are_uniform_over_the_legal_set(chain, random_sum, whole, low, high) -> None:
    cost = random_sum(random.Random(3), SIZES, whole=whole)

    def at(part: float | None) -> float | None:
        return None if part is None else cost.minimum() + part * (cost.maximum() - cost.minimum())

    constraints = [Constraint(cost, Limit("macs", maximum=at(high), minimum=at(low)))]
    legal = legal_set(cost, constraints)
    assert 3 < len(legal) < 60
    draws = LegalSampler(chain(cost), constraints).draw(np.random.default_rng(0), 200 * len(legal))
    counts = Counter(draws)
    assert set(counts) == set(legal)
    assert stats.chisquare([counts[g] for g in legal]).pvalue > 1e-3


def test_draws_are_uniform_under_several_limits_and_without_any(chain, random_sum) -> None:
    rng = random.Random(5)
    first, second = random_sum(rng, SIZES), random_sum(rng, SIZES, whole=True)
    both = [Constraint(first, Limit("macs", 0.5 * (first.minimum() + first.maximum()))),
            Constraint(second, Limit("params", 0.5 * (second.minimum() + second.maximum())))]  # fmt: skip
    for constraints in ([], both):
        legal = legal_set(first, constraints)
        counts = Counter(LegalSampler(chain(first), constraints).draw(np.random.default_rng(1), 200 * len(legal)))
        assert set(counts) == set(legal)
        assert stats.chisquare([counts[g] for g in legal]).pvalue > 1e-3


def test_draws_are_canonical_and_valid(switched) -> None:
    cost = Additive(0.0, ((0.0, 1.0), (1.0, 1.0), (0.0, 2.0), (0.0, 3.0)))
    sampler = LegalSampler(switched(cost), [Constraint(cost, Limit("macs", 5.0))])
    draws = Counter(sampler.draw(np.random.default_rng(0), 4000))
    assert all(sampler.is_legal(g) and sampler.space.canonical(g) == g for g in draws)
    assert "last two" in (sampler.why_not((1, 0, 0, 0)) or "")
    # (0, 1, ...) and (0, 0, ...) are two genotypes and one network, so that it is drawn twice as often
    assert draws[0, 0, 1, 0] == pytest.approx(2 * draws[1, 0, 1, 0], rel=0.2)


def test_the_legal_fraction_is_that_of_enumeration(chain, random_sum) -> None:
    cost = random_sum(random.Random(7), [4] * 5, whole=True)
    constraints = [Constraint(cost, Limit("macs", cost.minimum() + 12.0))]
    sampler = LegalSampler(chain(cost), constraints)
    exact = len(legal_set(cost, constraints)) / 4**5
    assert sampler.legal_fraction(np.random.default_rng(0)) == pytest.approx(exact, rel=1e-12)
    real = Additive(cost.base, tuple(tuple(value + 1e-3 / 3 for value in row) for row in cost.table))
    rounded = LegalSampler(chain(real), [Constraint(real, Limit("macs", real.minimum() + 12.0 + 1e-6))])
    assert rounded.legal_fraction(np.random.default_rng(0)) == pytest.approx(exact, rel=0.1)


def test_the_published_space_is_as_rare_as_published(chain, bnnas_macs) -> None:
    """research: 0.31 % of uniform samples are at most 475 M MACs, with identity on 15 layers."""
    constraints = [Constraint(bnnas_macs, Limit("macs", 475e6))]
    sampler = LegalSampler(chain(bnnas_macs), constraints)
    assert sampler.legal_fraction(np.random.default_rng(0)) == pytest.approx(0.0031, abs=2e-4)
    draws = np.array(sampler.draw(np.random.default_rng(0), 5000))
    assert within(constraints, draws).all()
    uniform = np.random.default_rng(1).integers(0, [len(row) for row in bnnas_macs.table], size=(1_000_000, 21))
    by_rejection = uniform[within(constraints, uniform)]
    ours, theirs = bnnas_macs.batch(draws), bnnas_macs.batch(by_rejection)
    assert stats.ks_2samp(ours, theirs).pvalue > 1e-3
    for layer in (0, 7, 20):  # the same choices at the same rates
        table = [
            np.bincount(drawn[:, layer], minlength=7)[: len(bnnas_macs.table[layer])] for drawn in (draws, by_rejection)
        ]
        assert stats.chi2_contingency(table).pvalue > 1e-4


def test_one_in_a_million_and_rarer_is_reached(chain, mobilenetv2_macs) -> None:
    limit = 1.03 * mobilenetv2_macs.minimum()
    sampler = LegalSampler(chain(mobilenetv2_macs), [Constraint(mobilenetv2_macs, Limit("macs", limit))])
    draws = sampler.draw(np.random.default_rng(0), 1000)
    assert sampler.legal_fraction(np.random.default_rng(0)) < 1e-8
    assert mobilenetv2_macs.batch(np.array(draws)).max() <= limit
    assert len(set(draws)) > 900


def test_the_same_generator_gives_the_same_draws(chain, mobilenetv2_macs) -> None:
    sampler = LegalSampler(chain(mobilenetv2_macs), [Constraint(mobilenetv2_macs, Limit("macs", 550e6))])
    assert sampler.draw(np.random.default_rng(4), 50) == sampler.draw(np.random.default_rng(4), 50)
    assert sampler.draw(np.random.default_rng(4), 50) != sampler.draw(np.random.default_rng(5), 50)
    assert sampler.draw(np.random.default_rng(4), 0) == []


def test_what_cannot_be_met_is_said(chain) -> None:
    cost = Additive(0.0, ((0.0, 10.0), (0.0, 20.0)))
    space = chain(cost)
    with pytest.raises(ImpossibleLimit, match="minimum that the space reaches is 0"):
        LegalSampler(space, [Constraint(cost, Limit("macs", -1.0))])
    with pytest.raises(ImpossibleLimit, match=r"no network .* has >= 11 and <= 19; .* whole multiples of 10"):
        LegalSampler(space, [Constraint(cost, Limit("macs", maximum=19.0, minimum=11.0))])
    with pytest.raises(ImpossibleLimit, match="no network of this space has >= 21 and <= 29"):
        odd = Additive(0.0, ((0.0, 10.0), (0.0, 21.0 - 0.5)))
        LegalSampler(space, [Constraint(odd, Limit("macs", maximum=29.0, minimum=21.0))])
    with pytest.raises(ValueError, match="not of the space"):
        LegalSampler(space, [Constraint(Additive(0.0, ((1.0,),)), Limit("macs", 3.0))])
    reverse = Additive(0.0, ((10.0, 0.0), (20.0, 0.0)))
    sampler = LegalSampler(space, [Constraint(cost, Limit("macs", 0.0)), Constraint(reverse, Limit("params", 10.0))])
    with pytest.raises(
        ImpossibleLimit, match=r"tightest limit, macs <= 0, only 0 meet .* params was 30 to 30 \(<= 10\)"
    ):
        sampler.draw(np.random.default_rng(0), 1)


def test_lattices_hold_every_legal_genotype(random_sum) -> None:
    rng = random.Random(11)
    for trial in range(40):
        cost = random_sum(rng, SIZES, whole=trial % 2 == 0)
        exact = exact_lattice(cost)
        assert (exact is not None) == (trial % 2 == 0)
        genotypes = np.array(list(itertools.product(*map(range, SIZES))))
        values = cost.batch(genotypes)
        for lattice in filter(None, (exact, rounded_lattice(cost, 50))):
            sums = sum(steps[genotypes[:, d]] for d, steps in enumerate(lattice.steps))
            low, high = sorted((float(rng.choice(list(values))), float(rng.choice(list(values)))))
            first, last = lattice.window(low, high)
            inside = (values >= low) & (values <= high)
            assert ((sums >= first) & (sums <= last))[inside].all()
            if lattice.exact:
                assert np.array_equal((sums >= first) & (sums <= last), inside)
