"""Scoring genotypes: one protocol, and wrappers that never score twice and that share the work among ranks.

An evaluator takes genotypes and returns, in the same order, a score (higher is better) or an `Infeasible` with the
reason. It holds whatever it needs (tables, a supernet, data); the search sees only this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol

import numpy as np

from subshot.supernet.space import Additive, Genotype


@dataclass(frozen=True)
class Infeasible:
    """No score, and why: it is recorded and never becomes a parent."""

    reason: str


class TermScore(float):
    """A score with the terms it was made of, by name, for the record; searches see a plain number."""

    terms: dict[str, float]

    def __new__(cls, value: float, terms: dict[str, float]) -> TermScore:
        score = super().__new__(cls, value)
        score.terms = terms
        return score

    def __getnewargs__(self) -> tuple[float, dict[str, float]]:  # type: ignore[override]
        return float(self), self.terms


Score = float | Infeasible


class Evaluator(Protocol):
    """Anything that scores genotypes."""

    def evaluate(self, genotypes: Sequence[Genotype]) -> list[Score]:
        """One score a genotype, in order. The same genotype always has the same score."""
        ...


@dataclass(frozen=True)
class AdditiveEvaluator:
    """Scores that are sums over decisions, such as the block indicators: one table look-up per decision."""

    score: Additive

    def evaluate(self, genotypes: Sequence[Genotype]) -> list[Score]:
        decisions = len(self.score.table)
        flat = np.fromiter(chain.from_iterable(genotypes), dtype=np.intp)
        if flat.size != decisions * len(genotypes):
            raise ValueError(f"the score is over {decisions} decisions; a genotype given to it has another length")
        values: list[Any] = self.score.batch(flat.reshape(-1, decisions)).tolist()
        return values


@dataclass(frozen=True)
class FunctionEvaluator:
    """Scores genotypes one at a time with a function."""

    function: Callable[[Genotype], Score]

    def evaluate(self, genotypes: Sequence[Genotype]) -> list[Score]:
        return [self.function(genotype) for genotype in genotypes]


class Cached:
    """Scores every genotype once, also when it is asked for twice in one call.

    `known` starts the cache, for instance with the history of a run that is resumed. Wrap it around `Sharded`, not the
    other way round: then all ranks hold the same cache.
    """

    def __init__(self, evaluator: Evaluator, known: Mapping[Genotype, Score] | None = None) -> None:
        self.evaluator = evaluator
        self.known: dict[Genotype, Score] = dict(known or {})

    def evaluate(self, genotypes: Sequence[Genotype]) -> list[Score]:
        new = [genotype for genotype in dict.fromkeys(genotypes) if genotype not in self.known]
        if new:
            self.known.update(zip(new, checked(self.evaluator, new), strict=True))
        return [self.known[genotype] for genotype in genotypes]


@dataclass(frozen=True)
class _Failure:
    """What a rank sends in the place of its scores when its evaluator raised."""

    rank: int
    message: str
    stopped: bool
    expected: bool
    """Whether it was a ValueError or an OSError: what a user or a disk can be the cause of."""


@dataclass(frozen=True)
class Sharded:
    """Shares the genotypes among `world` ranks; all return all scores in order, whoever gave them.

    Every rank must call `evaluate` with the same genotypes. `gather` is the one collective: it takes this rank's list
    and returns the lists of all ranks in rank order. With `cost` the dearest are dealt first, back and forth over the
    ranks, so that the shares cost about the same. `turns` deals at the time instead: given a number of genotypes it
    yields the places that this rank is to take next in the order of their cost, each place to one rank.

    Where the evaluator raises on one rank, all ranks raise, and none is left waiting: the error itself there; on the
    others RuntimeError, or ValueError where it was that or an OSError; and `stopped` on all of them where it was that,
    the exception of a rank that was asked to stop.
    """

    evaluator: Evaluator
    rank: int
    world: int
    gather: Callable[[list[Any]], list[list[Any]]]
    cost: Callable[[Genotype], float] | None = None
    stopped: type[Exception] | None = None
    turns: Callable[[int], Iterator[int]] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world:
            raise ValueError(f"rank {self.rank} is not one of {self.world} ranks (0 to {self.world - 1})")

    def evaluate(self, genotypes: Sequence[Genotype]) -> list[Score]:
        mine: list[Any]
        failure: Exception | None = None
        try:
            mine = self._own(genotypes)
        except Exception as error:  # told to the other ranks, which wait in the collective, and raised again below
            failure = error
            stopped = self.stopped is not None and isinstance(error, self.stopped)
            message = str(error) if stopped else f"{type(error).__name__}: {error}"
            mine = [_Failure(self.rank, message, stopped, isinstance(error, ValueError | OSError))]
        gathered = self.gather(mine)
        if failure is not None:
            raise failure
        scores: dict[int, Score] = {}
        for theirs in gathered:
            if theirs and isinstance(theirs[0], _Failure):
                if theirs[0].stopped and self.stopped is not None:
                    raise self.stopped(theirs[0].message)
                kind = ValueError if theirs[0].expected else RuntimeError
                raise kind(f"the evaluator failed on rank {theirs[0].rank}: {theirs[0].message}")
            scores.update(theirs)
        return [scores[i] for i in range(len(genotypes))]

    def _own(self, genotypes: Sequence[Genotype]) -> list[tuple[int, Score]]:
        """(Index, score) of what this rank takes."""
        if self.turns is None:
            share = deal(genotypes, self.world, self.cost)[self.rank]
            return list(zip(share, checked(self.evaluator, [genotypes[i] for i in share]), strict=True))
        order = by_cost(genotypes, self.cost)
        taken = (order[place] for place in self.turns(len(order)))
        return [(index, checked(self.evaluator, [genotypes[index]])[0]) for index in taken]


def by_cost(genotypes: Sequence[Genotype], cost: Callable[[Genotype], float] | None) -> list[int]:
    """Indices, the dearest first. Ties keep the order of the genotypes, so that every rank has the same."""
    if cost is None:
        return list(range(len(genotypes)))
    costs = [cost(genotype) for genotype in genotypes]
    return sorted(range(len(genotypes)), key=lambda i: (-costs[i], i))


def deal(genotypes: Sequence[Genotype], world: int, cost: Callable[[Genotype], float] | None = None) -> list[list[int]]:
    """The indices that each rank scores: every index once, shares equal in number to within one."""
    shares: list[list[int]] = [[] for _ in range(world)]
    for turn, index in enumerate(by_cost(genotypes, cost)):
        lap, seat = divmod(turn, world)
        shares[seat if lap % 2 == 0 else world - 1 - seat].append(index)
    return shares


def checked(evaluator: Evaluator, genotypes: Sequence[Genotype]) -> list[Score]:
    """The evaluator's scores. Raises ValueError where their number is not that of the genotypes."""
    scores = evaluator.evaluate(genotypes) if genotypes else []
    if len(scores) != len(genotypes):
        raise ValueError(f"{type(evaluator).__name__} returned {len(scores)} scores for {len(genotypes)} genotypes")
    return scores
