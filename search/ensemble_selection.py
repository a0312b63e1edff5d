"""Which scores to join, and how: ensembles chosen by how well they rank networks whose accuracies are known.

An ensemble is chosen by its criterion, the mean of Kendall's tau-b with each of `truths`; what it is worth has to be
judged on something else. Tables hold columns [n] by name, higher is better; undefined scores rank last. The columns are
ranked once, whatever the number of ensembles. Where the criterion ties, the smaller set comes first, then the one whose
members stand earlier in the table.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from subshot.search.aggregation import RANK_COMBINERS, Ensemble, column_ranks
from subshot.search.ranking import kendall

Array = NDArray[np.float64]
Subset = tuple[int, ...]

_BLOCK = 2_000_000
"""Ranks looked at at once, which bounds the memory."""


@dataclass(frozen=True)
class Choice:
    """An ensemble and the value of its criterion."""

    ensemble: Ensemble
    criterion: float


@dataclass(frozen=True)
class Pool:
    """The columns of a table, ranked. names: of its columns, k. ranks: float64 [n, k], ascending, 1 the worst."""

    names: tuple[str, ...]
    ranks: Array

    @classmethod
    def of(cls, table: Mapping[str, ArrayLike]) -> Pool:
        """Raises ValueError for a table without columns."""
        if not table:
            raise ValueError("there is no score to choose from")
        columns = np.stack([np.asarray(column, dtype=np.float64) for column in table.values()], axis=1)
        return cls(tuple(table), column_ranks(columns)[0])

    def ensemble(self, subset: Subset, aggregation: str) -> Ensemble:
        return Ensemble(tuple(self.names[place] for place in subset), aggregation)

    def scores(self, subset: Subset, aggregation: str) -> Array:
        """Those of `ensemble`, [n]."""
        return RANK_COMBINERS[aggregation](self.ranks[:, list(subset)], len(self.ranks))


def mean_kendall(truths: Sequence[ArrayLike], scores: ArrayLike) -> float:
    """The criterion: the mean tau-b of scores [n] with each of truths, [n]; -1 where all scores are equal."""
    values = np.asarray(scores)
    if values.min() == values.max():
        return -1.0
    return float(np.mean([kendall(truth, values) for truth in truths]))


def subsets(items: int, largest: int) -> list[Subset]:
    """Every set of 1 to `largest` of the numbers below `items`, the smaller sets first."""
    return [chosen for size in range(1, largest + 1) for chosen in itertools.combinations(range(items), size)]


def mean_spearman(pool: Pool, chosen: Sequence[Subset], aggregation: str, truths: Sequence[ArrayLike]) -> Array:
    """The mean of Spearman's rho with each of truths of every subset's ensemble, shape [len(chosen)]; about a
    thousandth of the work of as many taus. -1 where all scores are equal."""
    side = np.stack([stats.rankdata(truth) for truth in truths], axis=1)
    side -= side.mean(axis=0)
    side /= np.linalg.norm(side, axis=0)
    found = np.full(len(chosen), -1.0)
    for places, block in _blocks(chosen, len(pool.ranks)):
        ranks = pool.ranks.T[block].transpose(0, 2, 1)  # [subsets, n, members]
        ordered = stats.rankdata(RANK_COMBINERS[aggregation](ranks, len(pool.ranks)), axis=1)
        ordered -= ordered.mean(axis=1, keepdims=True)
        length = np.linalg.norm(ordered, axis=1)
        varied = length > 0.0
        found[places[varied]] = (ordered[varied] @ side).mean(axis=1) / length[varied]
    return found


def _blocks(chosen: Sequence[Subset], n: int) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """(Places in `chosen`, their subsets [block, size]), subsets of one size together."""
    sizes = np.array([len(subset) for subset in chosen], dtype=np.intp)
    for size in np.unique(sizes):
        places = np.flatnonzero(sizes == size)
        step = max(1, _BLOCK // (n * int(size)))
        for start in range(0, len(places), step):
            part = places[start : start + step]
            yield part, np.array([chosen[place] for place in part], dtype=np.intp)


def best_ensembles(
    table: Mapping[str, ArrayLike],
    truths: Sequence[ArrayLike],
    aggregation: str,
    largest: int = 5,
    screened: int | None = 1000,
) -> list[Choice]:
    """Every set of at most `largest` columns joined by the aggregation, best criterion first.

    screened: only so many, those with the greatest mean rho, are judged by tau; None judges all of them.
    """
    pool = Pool.of(table)
    chosen = subsets(len(pool.names), largest)
    if screened is not None and screened < len(chosen):
        rho = mean_spearman(pool, chosen, aggregation, truths)
        chosen = [chosen[place] for place in np.sort(np.argsort(-rho, kind="stable")[:screened])]
    judged = [
        Choice(pool.ensemble(subset, aggregation), mean_kendall(truths, pool.scores(subset, aggregation)))
        for subset in chosen
    ]
    return sorted(judged, key=lambda choice: -choice.criterion)


def forward_selection(
    table: Mapping[str, ArrayLike], truths: Sequence[ArrayLike], aggregation: str, largest: int = 5
) -> list[Choice]:
    """The path of greedy addition: the best single column, the best pair that holds it, and so on; one choice a size.

    It goes on where an addition lowers the criterion, so that this can be seen. Members stand in the table's order, in
    which alone equal sums of ranks are equal to the last bit.
    """
    pool = Pool.of(table)
    path: list[Choice] = []
    members: Subset = ()
    for _ in range(min(largest, len(pool.names))):
        rivals = [tuple(sorted((*members, place))) for place in range(len(pool.names)) if place not in members]
        values = [mean_kendall(truths, pool.scores(rival, aggregation)) for rival in rivals]
        best = int(np.argmax(values))
        members = rivals[best]
        path.append(Choice(pool.ensemble(members, aggregation), values[best]))
    return path


def without_twins(table: Mapping[str, ArrayLike], tau: float = 0.98) -> dict[str, ArrayLike]:
    """The columns whose tau-b with every earlier one that stays is below `tau`. It reads no accuracy."""
    kept: dict[str, ArrayLike] = {}
    ranks = Pool.of(table).ranks
    stays: list[int] = []
    for place, (name, column) in enumerate(table.items()):
        own = ranks[:, place]
        if own.min() < own.max() and all(kendall(ranks[:, other], own) < tau for other in stays):
            stays.append(place)
            kept[name] = column
    return kept


def shortlist(
    table: Mapping[str, ArrayLike],
    truths: Sequence[ArrayLike],
    most: int,
    aggregation: str = "log_rank_sum",
    size: int = 3,
) -> dict[str, ArrayLike]:
    """The `most` columns that are in the best sets of at most `size` by mean rho, in the order of the table.

    A column counts by the best set that holds it, so a weak one that completes others stays.
    """
    pool = Pool.of(table)
    if most >= len(pool.names):
        return dict(table)
    chosen = subsets(len(pool.names), min(size, len(pool.names)))
    rho = mean_spearman(pool, chosen, aggregation, truths)
    value = np.full(len(pool.names), -1.0)
    for subset, own in zip(chosen, rho, strict=True):
        places = list(subset)
        value[places] = np.maximum(value[places], own)
    kept = set(np.argsort(-value, kind="stable")[:most].tolist())
    return {name: column for place, (name, column) in enumerate(table.items()) if place in kept}
