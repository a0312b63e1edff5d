"""Uniform draws from the legal part of a space, also where that part is one in a million.

Rejection needs 1 / (legal fraction) draws for each genotype: 500 for the MobileNetV2 space under 475 M MACs. Instead
the tightest limit is counted exactly: with costs rounded down to steps on a line, P[d][s] is the probability that the
first d decisions of a uniform genotype cost s steps, and

    P[0][0] = 1,    P[d+1][s] = mean over choices c of P[d][s - steps[d][c]].

A step sum is drawn from the window of legal sums in proportion to P[D], and decisions are drawn backwards, choice c in
proportion to P[d][s - steps[d][c]]. Rounding down makes the window a superset of the legal set, so every legal genotype
is reached with the same probability; the few illegal ones, and those that break another limit, are rejected exactly.

The result is uniform over the legal genotypes as the decisions count them, before `canonical` merges equal networks: a
network with two genotypes is drawn twice as often. Counts are float64, so probabilities are right to about 1e-14.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from subshot.search.lattice import Lattice, exact_lattice, rounded_lattice
from subshot.search.objectives import Constraint, ImpossibleLimit, Limit, why_illegal, within
from subshot.supernet.space import Genotype, SearchSpace, mutate

_BINS = 1 << 14
_EXACT_BINS = 1 << 17
_LEAST_TRIES = 200_000
_TRIES_PER_DRAW = 1_000
_LARGEST_BATCH = 1 << 14


class Sampler(Protocol):
    """Where a search gets its genotypes from: `LegalSampler` here, `RejectionSampler` where costs are no sums."""

    @property
    def space(self) -> SearchSpace: ...

    def is_legal(self, genotype: Genotype) -> bool: ...

    def draw(self, rng: np.random.Generator, n: int) -> list[Genotype]:
        """`n` canonical legal genotypes. Raises ImpossibleLimit where there are none."""
        ...

    def mutate(self, genotype: Genotype, rng: random.Random, changes: float) -> Genotype:
        """A canonical genotype with about `changes` settings drawn anew; it may be illegal."""
        ...

    def legal_fraction(self, rng: np.random.Generator) -> float: ...


@dataclass(frozen=True)
class _Counts:
    """P of the module docstring for one limit, and the window of step sums that holds every legal genotype."""

    lattice: Lattice
    prefix: tuple[NDArray[np.float64], ...]  # D + 1 arrays [step sums up to the window's end]
    first: int
    last: int

    @property
    def fraction(self) -> float:
        """The part of all genotypes that falls into the window."""
        return float(self.prefix[-1][self.first : self.last + 1].sum())


class LegalSampler:
    """Draws genotypes of `space` that meet every constraint, uniformly (see the module docstring).

    Raises ImpossibleLimit at once where a limit cannot be met by any genotype. Limits that exclude one another only
    together are found out by `draw`.
    """

    def __init__(self, space: SearchSpace, constraints: Sequence[Constraint] = ()) -> None:
        self.space = space
        self.constraints = tuple(constraints)
        self._choices = np.array([len(decision.choices) for decision in space.decisions], dtype=np.intp)
        for constraint in self.constraints:
            if tuple(len(row) for row in constraint.cost.table) != tuple(self._choices):
                raise ValueError(f"limit {constraint.limit.name}: its cost table is not of the space {space.name}")
            constraint.require_possible()
        counts = [_count(constraint) for constraint in self.constraints]
        self._tightest = min(range(len(counts)), key=lambda i: counts[i].fraction, default=None)
        self._counts = None if self._tightest is None else counts[self._tightest]

    def is_legal(self, genotype: Genotype) -> bool:
        """Whether the genotype is of the space and meets every limit."""
        return self.why_not(genotype) is None

    def why_not(self, genotype: Genotype) -> str | None:
        """One sentence on why the genotype may not be proposed, or None where it may."""
        return self.space.why_invalid(genotype) or why_illegal(self.constraints, genotype)

    def draw(self, rng: np.random.Generator, n: int) -> list[Genotype]:
        """`n` canonical legal genotypes, independent, repeats possible.

        Raises ImpossibleLimit, saying how close the draws came, where not one legal genotype is found in
        max(200,000, 1,000 n) draws that meet the tightest limit (or fewer than n, when they are that rare).
        """
        found: list[Genotype] = []
        tries, allowed = 0, max(_LEAST_TRIES, _TRIES_PER_DRAW * n)
        while len(found) < n:
            if tries >= allowed:
                raise ImpossibleLimit(self._none_found(rng, tries, len(found), n))
            missing = n - len(found)
            hoped = missing + missing // 8 + 8 if tries == 0 else 8 * missing + 1024
            drawn = self._propose(rng, min(_LARGEST_BATCH, allowed - tries, hoped))
            tries += len(drawn)
            for row in drawn[within(self.constraints, drawn)].tolist():
                genotype = tuple(row)
                if len(found) < n and self.space.why_invalid(genotype) is None:
                    found.append(self.space.canonical(genotype))
        return found

    def mutate(self, genotype: Genotype, rng: random.Random, changes: float) -> Genotype:
        """A canonical genotype, each of its open decisions changed with the same probability: `changes` on average."""
        open_decisions = int((self._choices > 1).sum())
        return mutate(self.space, genotype, rng, min(1.0, changes / max(1, open_decisions)))

    def legal_fraction(self, rng: np.random.Generator, draws: int = 4096) -> float:
        """The part of all genotypes that is legal: counted for the tightest limit, the rest estimated from `draws`.

        Without limits, and for a single limit on whole-number costs, the counted part is everything and exact up to
        genotypes that the space itself calls invalid.
        """
        counted = 1.0 if self._counts is None else self._counts.fraction
        drawn = self._propose(rng, draws)
        kept = drawn[within(self.constraints, drawn)].tolist()
        return counted * sum(self.space.why_invalid(tuple(row)) is None for row in kept) / draws

    def _propose(self, rng: np.random.Generator, n: int) -> NDArray[np.intp]:
        """Genotypes [n, decisions], uniform over the window of the tightest limit."""
        uniform = rng.random((len(self._choices) + 1, n))
        if self._counts is None:
            return np.asarray(uniform[1:].T * self._choices, dtype=np.intp)
        counts = self._counts
        window = np.cumsum(counts.prefix[-1][counts.first : counts.last + 1])
        at = counts.first + np.minimum(
            np.searchsorted(window, uniform[0] * window[-1], side="right"),
            int(np.searchsorted(window, window[-1], side="left")),
        )
        genotypes = np.empty((n, len(self._choices)), dtype=np.intp)
        for d in reversed(range(len(self._choices))):
            before = at[:, None] - counts.lattice.steps[d]
            weight = np.where(before >= 0, counts.prefix[d][np.maximum(before, 0)], 0.0)
            genotypes[:, d] = _pick(weight, uniform[d + 1])
            at = before[np.arange(n), genotypes[:, d]]
        return genotypes

    def _none_found(self, rng: np.random.Generator, tries: int, found: int, wanted: int) -> str:
        if self._tightest is None:
            return (
                f"{self.space.name}: only {found} of {tries:,} uniform draws are valid genotypes, {wanted} are wanted"
            )
        drawn = self._propose(rng, 4096)
        tightest = self.constraints[self._tightest].limit
        misses = []
        for i, constraint in enumerate(self.constraints):
            if i != self._tightest:
                cost = constraint.cost.batch(drawn)
                misses.append(
                    f"{constraint.limit.name} was {cost.min():,.10g} to {cost.max():,.10g} ({_text(constraint.limit)})"
                )
        return (
            f"{self.space.name}: of {tries:,} draws at the tightest limit, {tightest.name} {_text(tightest)}, "
            f"only {found} meet every limit, {wanted} are wanted; "
            f"among draws like these {'; '.join(misses) or 'few are valid'}"
        )


def _count(constraint: Constraint) -> _Counts:
    limit = constraint.limit
    lattice = exact_lattice(constraint.cost)
    if lattice is None or lattice.window(limit.low, limit.high)[1] >= _EXACT_BINS:
        lattice = rounded_lattice(constraint.cost, _BINS)
    first, last = lattice.window(limit.low, limit.high)
    if first > last:
        raise ImpossibleLimit(
            f"limit {limit.name}: no network of this space has {_text(limit)}; "
            f"its costs are {lattice.origin:,.10g} and whole multiples of {lattice.unit:,.10g} above that"
        )
    prefix = [np.zeros(last + 1)]
    prefix[0][0] = 1.0
    for steps in lattice.steps:
        reached = np.zeros(last + 1)
        for step in steps.tolist():
            if step <= last:
                reached[step:] += prefix[-1][: last + 1 - step]
        prefix.append(reached / len(steps))
    counts = _Counts(lattice, tuple(prefix), first, last)
    if counts.fraction <= 0.0:
        raise ImpossibleLimit(f"limit {limit.name}: no network of this space has {_text(limit)}")
    return counts


def _pick(weight: NDArray[np.float64], uniform: NDArray[np.float64]) -> NDArray[np.intp]:
    """A column per row of `weight`, shape [n, choices], in proportion to its weight; never one of weight zero."""
    cumulative = np.cumsum(weight, axis=1)
    chosen = (uniform[:, None] * cumulative[:, -1:] >= cumulative).sum(axis=1)
    last_possible = weight.shape[1] - 1 - np.argmax(weight[:, ::-1] > 0.0, axis=1)
    return np.minimum(chosen, last_possible)


def _text(limit: Limit) -> str:
    parts = [f">= {limit.minimum:,.10g}"] if limit.minimum is not None else []
    return " and ".join(parts + ([f"<= {limit.maximum:,.10g}"] if limit.maximum is not None else []))
