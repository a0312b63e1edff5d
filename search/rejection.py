"""Legal draws in spaces whose costs are no sum over decisions: draw, measure, keep or reject.

In the NASRec spaces the width of an operator's input depends on which blocks it reads, so MACs are no table over
decisions and `LegalSampler` cannot count them. Here the space brings its own way to draw and to mutate, and costs are
functions of a genotype.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from subshot.search.objectives import ImpossibleLimit, Limit
from subshot.supernet.space import Genotype, SearchSpace

_LEAST_TRIES = 20_000
_TRIES_PER_DRAW = 1_000


@dataclass(frozen=True)
class CostLimit:
    """A limit, and the cost of a genotype that it bounds, in the limit's unit."""

    cost: Callable[[Genotype], float]
    limit: Limit


class RejectionSampler:
    """Draws canonical genotypes of `space` that meet every limit, with the probabilities of `draw_one` given that.

    draw_one(rng): any genotype of the space. mutate_one(genotype, rng, changes): a genotype that differs from it in at
    most that many settings.
    """

    def __init__(
        self,
        space: SearchSpace,
        draw_one: Callable[[random.Random], Genotype],
        mutate_one: Callable[[Genotype, random.Random, int], Genotype],
        limits: Sequence[CostLimit] = (),
    ) -> None:
        self.space = space
        self.limits = tuple(limits)
        self._draw_one = draw_one
        self._mutate_one = mutate_one

    def is_legal(self, genotype: Genotype) -> bool:
        """Whether the genotype is of the space and meets every limit."""
        return self.why_not(genotype) is None

    def why_not(self, genotype: Genotype) -> str | None:
        """One sentence on why the genotype may not be proposed, or None where it may."""
        reason = self.space.why_invalid(genotype)
        for bound in self.limits:
            if reason is None:
                reason = bound.limit.why_violated(bound.cost(genotype))
        return reason

    def mutate(self, genotype: Genotype, rng: random.Random, changes: float) -> Genotype:
        """A canonical genotype with round(changes), at least one, of its settings drawn anew; it may be illegal."""
        return self._mutate_one(genotype, rng, max(1, round(changes)))

    def draw(self, rng: np.random.Generator, n: int) -> list[Genotype]:
        """`n` canonical legal genotypes, independent, repeats possible.

        Raises ImpossibleLimit, with the range that the draws reached, where max(20,000, 1,000 n) draws hold fewer.
        """
        source = random.Random(int(rng.integers(2**63)))
        found: list[Genotype] = []
        tries, allowed = 0, max(_LEAST_TRIES, _TRIES_PER_DRAW * n)
        while len(found) < n:
            if tries == allowed:
                raise ImpossibleLimit(self._none_found(source, tries, len(found), n))
            tries += 1
            genotype = self.space.canonical(self._draw_one(source))
            if self.is_legal(genotype):
                found.append(genotype)
        return found

    def legal_fraction(self, rng: np.random.Generator, draws: int = 1024) -> float:
        """The part of `draws` draws that is legal."""
        source = random.Random(int(rng.integers(2**63)))
        return sum(self.is_legal(self.space.canonical(self._draw_one(source))) for _ in range(draws)) / draws

    def _none_found(self, source: random.Random, tries: int, found: int, wanted: int) -> str:
        drawn = [self.space.canonical(self._draw_one(source)) for _ in range(1000)]
        valid = [genotype for genotype in drawn if self.space.why_invalid(genotype) is None]
        reached = [
            f"{bound.limit.name} was {min(map(bound.cost, valid)):,.10g} to {max(map(bound.cost, valid)):,.10g}, "
            f"wanted {bound.limit.low:,.10g} to {bound.limit.high:,.10g}"
            for bound in self.limits
            if valid
        ]
        return (
            f"{self.space.name}: only {found} of {tries:,} draws meet every limit, {wanted} are wanted; "
            f"among 1,000 draws {'; '.join(reached) or 'none is a valid genotype'}; widen the limits"
        )
