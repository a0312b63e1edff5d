"""Legal draws where hardly any draw is legal and costs are no sums: rejection first, then a walk to the legal part.

Under 1 M parameters one uniform draw of Zen-NAS's space in 200 is legal, and under 0.5 M, or within 5 % of a winner's
MACs, far fewer. Where `TRIES` draws were all rejected, a valid one descends: of its mutants those are taken that are
over the limits by no more than it is, until one is legal. Then it walks among legal mutants, `MOVES` for each decision,
and forgets where it came from: mutation is as likely there as back, so that a long walk is uniform over the legal part
it can reach, as rejection is over all of it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from functools import partial

import numpy as np

from subshot.search.objectives import ImpossibleLimit
from subshot.search.rejection import CostLimit, RejectionSampler
from subshot.supernet.space import Genotype, SearchSpace, mutate, sample

TRIES = 500
MOVES = 8
STARTS = 8
IN_VAIN = 50
"""Mutants for each decision that may fail to come nearer to the limits before a descent is given up."""
VALID_TRIES = 20_000
CHANGES = (1, 1, 2, 4)
"""How many decisions a step changes on average; one of these at random."""


class WalkSampler(RejectionSampler):
    """Draws canonical genotypes of `space` that meet every limit, nearly uniformly (see the module docstring).

    Each draw is independent of the others. A child has each of its decisions changed with the same probability.
    """

    def __init__(self, space: SearchSpace, limits: Sequence[CostLimit] = ()) -> None:
        super().__init__(space, partial(sample, space), partial(_mutant, space), limits)

    def draw(self, rng: np.random.Generator, n: int) -> list[Genotype]:
        """`n` canonical legal genotypes, repeats possible. Raises ImpossibleLimit, with how near the limits came,
        where none was reached from 8 starts."""
        source = random.Random(int(rng.integers(2**63)))
        return [self._one(source) for _ in range(n)]

    def _one(self, source: random.Random) -> Genotype:
        for _ in range(TRIES):
            genotype = self._draw_one(source)
            if self.is_legal(genotype):
                return genotype
        genotype = self._descended(source)
        for _ in range(MOVES * len(self.space.decisions)):
            other = self._mutate_one(genotype, source, source.choice(CHANGES))
            if self.is_legal(other):
                genotype = other
        return genotype

    def _descended(self, source: random.Random) -> Genotype:
        """A legal genotype, by steps that come no farther from the limits."""
        nearest: Genotype = ()
        least = math.inf
        for _ in range(STARTS):
            genotype = self._valid(source)
            excess, in_vain = self._excess(genotype), 0
            while excess > 0.0 and in_vain < IN_VAIN * len(self.space.decisions):
                other = self._mutate_one(genotype, source, source.choice(CHANGES))
                theirs = self._excess(other)
                in_vain = 0 if theirs < excess else in_vain + 1
                if theirs <= excess:
                    genotype, excess = other, theirs
            if excess == 0.0:
                return genotype
            if excess < least:
                nearest, least = genotype, excess
        raise ImpossibleLimit(
            f"{self.space.name}: no network was found that meets every limit; of the nearest one "
            f"{self.why_not(nearest)}; widen the limits"
        )

    def _valid(self, source: random.Random) -> Genotype:
        for _ in range(VALID_TRIES):
            genotype = self._draw_one(source)
            if self.space.why_invalid(genotype) is None:
                return genotype
        raise ImpossibleLimit(f"{self.space.name}: not one of {VALID_TRIES:,} draws is a valid genotype")

    def _excess(self, genotype: Genotype) -> float:
        """By what part the limits are broken, added up; 0 for a legal genotype, infinite for an invalid one."""
        if self.space.why_invalid(genotype) is not None:
            return math.inf
        total = 0.0
        for bound in self.limits:
            cost = bound.cost(genotype)
            if cost > bound.limit.high:
                total += cost / bound.limit.high - 1.0 if bound.limit.high > 0.0 else math.inf
            elif cost < bound.limit.low:
                total += 1.0 - cost / bound.limit.low
        return total


def _mutant(space: SearchSpace, genotype: Genotype, rng: random.Random, changes: int) -> Genotype:
    """Each open decision changes with the same probability, `changes` of them on average."""
    open_decisions = sum(len(decision.choices) > 1 for decision in space.decisions)
    return mutate(space, genotype, rng, min(1.0, changes / max(1, open_decisions)))
