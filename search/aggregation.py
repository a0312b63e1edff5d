"""Several scores as one: aggregations of ranks within a pool of networks.

Every aggregation is `fn(columns, pool=None) -> scores`: columns [n, k] holds k scores of n networks, higher is better,
pool [m, k] those of the networks to be ranked among (None: the columns themselves), and what comes out, [n], is higher
for the better. Ranks ascend: 1 is the worst, equal scores share their mean rank. Without a pool, a network's score
changes with its company; a search that compares networks of different generations gives one fixed pool. Networks
above the best of the pool in a score tie in it, so the pool should reach as high as the search does.

An undefined score (nan or infinite) ranks below every defined one, tied with the others; VKDNW_agg has its own rule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Array = NDArray[np.float64]
Aggregation = Callable[..., Array]

VKDNW_COLUMNS = ("parameter tensors", "Fisher entropy", "Jacobian covariance", "expressivity", "trainability", "MACs")


def rank_among(values: ArrayLike, pool: ArrayLike, ties: Literal["average", "dense"] = "average") -> Array:
    """Ranks [n] of values [n] among pool [m]: those below + (those equal + 1) / 2, from 1/2 to m + 1/2.

    For a member of the pool this is its rank there, 1 the worst; a value between two members ranks between them.
    dense: among the distinct values of the pool. Undefined values of either rank last.
    """
    wanted, known = np.asarray(values, dtype=np.float64), np.asarray(pool, dtype=np.float64)
    if wanted.ndim != 1 or known.ndim != 1 or len(known) == 0:
        raise ValueError(f"ranks need values [n] and a pool [m >= 1]; their shapes are {wanted.shape}, {known.shape}")
    wanted, known = (np.where(np.isfinite(side), side, -np.inf) for side in (wanted, known))
    ordered = np.unique(known) if ties == "dense" else np.sort(known)
    below, upto = np.searchsorted(ordered, wanted, "left"), np.searchsorted(ordered, wanted, "right")
    return np.asarray(below + (upto - below + 1) / 2.0, dtype=np.float64)


def column_ranks(columns: ArrayLike, pool: ArrayLike | None = None) -> tuple[Array, int]:
    """(Ranks [n, k] of every column [n, k] among the same column of the pool [m, k]; m)."""
    wanted, known = _matrices(columns, pool)
    ranks = [rank_among(wanted[:, column], known[:, column]) for column in range(wanted.shape[1])]
    return np.stack(ranks, axis=1), len(known)


def linear_rank_sum(columns: ArrayLike, pool: ArrayLike | None = None) -> Array:
    """The sum of the ranks (Borda's count)."""
    return _sum_of_ranks(*column_ranks(columns, pool))


def log_rank_sum(columns: ArrayLike, pool: ArrayLike | None = None) -> Array:
    """AZ-NAS's: the sum of log(rank / m), at most 0; one bad rank costs more than several good ones bring.

    Source: Lee and Ham (2024, AZ-NAS), "non-linear ranking aggregation"; cvlab-yonsei/AZ-NAS @5e6683a.
    """
    return _sum_of_logs(*column_ranks(columns, pool))


def min_rank(columns: ArrayLike, pool: ArrayLike | None = None) -> Array:
    """The worst of the ranks; equal ones by the next worst, and so on, at less than one step of rank in all."""
    return _worst_first(*column_ranks(columns, pool))


def quantile_product(columns: ArrayLike, pool: ArrayLike | None = None) -> Array:
    """The product of the mid-quantiles (rank - 1/2) / m, 0 to 1; below a whole pool it is 0."""
    return _product_of_quantiles(*column_ranks(columns, pool))


def normal_score_sum(columns: ArrayLike, pool: ArrayLike | None = None) -> Array:
    """The sum of van der Waerden's scores, the normal quantiles of rank / (m + 1): both ends count more."""
    return _sum_of_normal_scores(*column_ranks(columns, pool))


def _sum_of_ranks(ranks: Array, size: int) -> Array:
    return np.asarray(ranks.sum(axis=-1))


def _sum_of_logs(ranks: Array, size: int) -> Array:
    return np.asarray(np.log(ranks / size).sum(axis=-1))


def _worst_first(ranks: Array, size: int) -> Array:
    ordered = np.sort(ranks, axis=-1)
    total = np.zeros(ranks.shape[:-1])
    for place in reversed(range(ranks.shape[-1])):  # from the best rank to the worst, which counts most
        total = ordered[..., place] + total / (2.0 * size + 2.0)
    return total


def _product_of_quantiles(ranks: Array, size: int) -> Array:
    return np.asarray(np.prod((ranks - 0.5) / size, axis=-1))


def _sum_of_normal_scores(ranks: Array, size: int) -> Array:
    return np.asarray(special.ndtri(ranks / (size + 1.0)).sum(axis=-1))


RANK_COMBINERS: dict[str, Callable[[Array, int], Array]] = {
    "log_rank_sum": _sum_of_logs,
    "linear_rank_sum": _sum_of_ranks,
    "min_rank": _worst_first,
    "quantile_product": _product_of_quantiles,
    "normal_score_sum": _sum_of_normal_scores,
}
"""The aggregations that read ranks alone, as functions of ranks [..., k] among a pool of `size`, [...] out: for many
ensembles of the same columns, ranked once."""


def lexicographic_rank(first: ArrayLike, second: ArrayLike, pool: tuple[ArrayLike, ArrayLike] | None = None) -> Array:
    """The dense rank [n] of pairs by `first`, equal ones by `second`: VKDNW_single of (parameter tensors, entropy)."""
    pairs = np.stack([np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)], axis=1)
    known = pairs if pool is None else np.stack([np.asarray(side, dtype=np.float64) for side in pool], axis=1)
    _, order = np.unique(np.concatenate([pairs, known]), axis=0, return_inverse=True)
    return rank_among(order[: len(pairs)], order[len(pairs) :], "dense")


def vkdnw_agg(columns: ArrayLike, pool: ArrayLike | None = None) -> Array:
    """VKDNW_agg of the six columns VKDNW_COLUMNS: the sum of log(rank).

        log(dense rank of the pair (parameter tensors, entropy)) + sum over the other four of log(mean rank)

    Before ranking, nan and -inf become the least finite value of the pool's column, +inf the greatest. Source: Tybl and
    Neumann, VKDNW, 2025; ondratybl/VKDNW, NB201/tss_utils.py in the history (see `vkdnw_comb_rank`).
    """
    wanted, known = _matrices(columns, pool)
    if wanted.shape[1] != len(VKDNW_COLUMNS):
        raise ValueError(f"VKDNW_agg is of {', '.join(VKDNW_COLUMNS)}; it was given {wanted.shape[1]} columns")
    for column, name in enumerate(VKDNW_COLUMNS):
        finite = known[np.isfinite(known[:, column]), column]
        if len(finite) == 0:
            raise ValueError(f"VKDNW_agg needs a finite value of {name} in the pool")
        for side in (wanted, known):
            values = side[:, column]
            side[:, column] = np.nan_to_num(values, nan=finite.min(), neginf=finite.min(), posinf=finite.max())
    total = np.log(lexicographic_rank(wanted[:, 0], wanted[:, 1], (known[:, 0], known[:, 1])))
    for column in range(2, len(VKDNW_COLUMNS)):
        total += np.log(rank_among(wanted[:, column], known[:, column]))
    return np.asarray(total)


AGGREGATIONS: dict[str, Aggregation] = {
    "log_rank_sum": log_rank_sum,
    "linear_rank_sum": linear_rank_sum,
    "min_rank": min_rank,
    "quantile_product": quantile_product,
    "normal_score_sum": normal_score_sum,
    "vkdnw_agg": vkdnw_agg,
}


@dataclass(frozen=True)
class Ensemble:
    """Named scores and the aggregation that makes one of them.

    members: keys of the tables, whose columns are turned so that higher is better. Raises ValueError for an aggregation
    that is not in AGGREGATIONS.
    """

    members: tuple[str, ...]
    aggregation: str

    def __post_init__(self) -> None:
        if self.aggregation not in AGGREGATIONS:
            raise ValueError(f"there is no aggregation {self.aggregation!r}; there are {', '.join(AGGREGATIONS)}")
        if not self.members:
            raise ValueError("an ensemble needs at least one member")

    def scores(self, table: Mapping[str, ArrayLike], pool: Mapping[str, ArrayLike] | None = None) -> Array:
        """Scores [n] of a table of columns [n], among the networks of `pool`, columns [m]; None: among themselves.

        With the same pool a network has the same score in any table.
        """
        reference = None if pool is None else self._columns(pool)
        return AGGREGATIONS[self.aggregation](self._columns(table), reference)

    def against(self, pool: Mapping[str, ArrayLike]) -> Callable[[Mapping[str, float]], float]:
        """The score of one network (scores by name, nan for undefined) against a copy of the pool as it is now."""
        fixed = {name: np.array(column) for name, column in zip(self.members, self._columns(pool).T, strict=True)}

        def score(network: Mapping[str, float]) -> float:
            return float(self.scores({name: [value] for name, value in network.items()}, fixed)[0])

        return score

    def _columns(self, table: Mapping[str, ArrayLike]) -> Array:
        missing = [name for name in self.members if name not in table]
        if missing:
            raise ValueError(f"the ensemble's members {', '.join(missing)} have no column")
        return np.stack([np.asarray(table[name], dtype=np.float64) for name in self.members], axis=1)


ENSEMBLES: dict[str, Ensemble] = {
    "az_nas": Ensemble(("az_expressivity", "az_progressivity", "az_trainability_nasbench201", "macs"), "log_rank_sum"),
    "te_nas": Ensemble(("ntk_condition", "linear_regions"), "linear_rank_sum"),
    "vkdnw_agg": Ensemble(
        ("num_layers", "vkdnw_code", "jacob_cov", "az_expressivity", "az_trainability_nasbench201", "macs"), "vkdnw_agg"
    ),
}
"""Published ensembles, over names of subshot.proxies.PROXIES and costs."""


def _matrices(columns: ArrayLike, pool: ArrayLike | None) -> tuple[Array, Array]:
    """Copies of both as float64 [n, k] and [m, k]."""
    wanted = np.array(columns, dtype=np.float64)
    known = wanted.copy() if pool is None else np.array(pool, dtype=np.float64)
    if wanted.ndim != 2 or known.ndim != 2 or wanted.shape[1] != known.shape[1] or len(known) == 0:
        raise ValueError(
            f"an aggregation needs columns [n, k] and a pool [m >= 1, k]; shapes are {wanted.shape}, {known.shape}"
        )
    return wanted, known
