"""How well scores rank what they should rank: correlations, what is found at the top, and intervals.

In every function `truth` is the quantity to be predicted and `scores` the prediction, both shape [n], both higher is
better, both finite; `UndefinedPolicy` says what becomes of an item without a score. Every statistic reads only the
order of `scores`. A correlation with a constant side is undefined and raises ValueError: it is no zero. Several scores
become one in search/aggregation.py.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Statistic = Callable[[NDArray[np.float64], NDArray[np.float64]], float]

NDCG_TOP = 1000
"""The P of VKDNW's Table 1."""

DETERMINED = 1e-9
"""A partial correlation is undefined where the given quantity leaves less than this part of a side's order open."""


@dataclass(frozen=True)
class Interval:
    """A value with its bootstrap percentile interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Settled:
    """Scores that the statistics can read.

    kept: bool [n], the items that count. scores: float64 [kept.sum()], ranks of the defined scores from 1 (worst),
    equal scores with equal ranks; 0 for an undefined one. undefined: how many of the n items had no score.
    """

    kept: NDArray[np.bool_]
    scores: NDArray[np.float64]
    undefined: int


@dataclass(frozen=True)
class UndefinedPolicy:
    """What becomes of items whose score is undefined (nan or infinite).

    last: they rank below every item with a score, tied with one another, as a search would treat them. left_out: the
    statistic is of the other items alone. Either way their number belongs beside the statistic.
    """

    treatment: Literal["last", "left_out"] = "last"

    def settle(self, scores: ArrayLike) -> Settled:
        """Of scores, float [n], higher is better. Raises ValueError where none is defined."""
        values = np.asarray(scores, dtype=np.float64)
        defined = np.isfinite(values)
        if not defined.any():
            raise ValueError(f"none of the {len(values)} scores is defined")
        ranks = np.zeros(len(values))
        ranks[defined] = stats.rankdata(values[defined], method="dense")
        kept = np.ones_like(defined) if self.treatment == "last" else defined
        return Settled(kept, ranks[kept], int(np.count_nonzero(~defined)))


def kendall(truth: ArrayLike, scores: ArrayLike) -> float:
    """Kendall's tau-b, -1 to 1: (concordant - discordant pairs) / sqrt(pairs untied in truth x in scores)."""
    truth, scores = _varied(truth, scores)
    return float(stats.kendalltau(truth, scores, variant="b").statistic)


def spearman(truth: ArrayLike, scores: ArrayLike) -> float:
    """Spearman's rho, -1 to 1: the Pearson correlation of the ranks, ties with their mean rank."""
    truth, scores = _varied(truth, scores)
    return float(stats.spearmanr(truth, scores).statistic)


def partial_kendall(truth: ArrayLike, scores: ArrayLike, given: ArrayLike) -> float:
    """Kendall's partial tau, -1 to 1: what scores know of truth beyond the quantity `given`, shape [n].

        (t_ts - t_tg t_sg) / sqrt((1 - t_tg^2) (1 - t_sg^2)),   each t a tau-b

    Source: Kendall (1942, Biometrika 32). Raises ValueError where `given` determines the order of either.
    """
    return _partial(kendall, truth, scores, given)


def partial_spearman(truth: ArrayLike, scores: ArrayLike, given: ArrayLike) -> float:
    """The same of Spearman's rho: the correlation of what a line in the ranks of `given` leaves of both ranks."""
    return _partial(spearman, truth, scores, given)


def _partial(correlation: Statistic, truth: ArrayLike, scores: ArrayLike, given: ArrayLike) -> float:
    (truth, scores), (_, given) = _pair(truth, scores), _pair(truth, given)
    with_truth, with_scores = correlation(truth, given), correlation(scores, given)
    rest = (1.0 - with_truth**2) * (1.0 - with_scores**2)
    if rest < DETERMINED:
        raise ValueError("a partial correlation is undefined where the given quantity determines the order of a side")
    return float((correlation(truth, scores) - with_truth * with_scores) / np.sqrt(rest))


def ndcg(truth: ArrayLike, scores: ArrayLike, k: int | None = NDCG_TOP) -> float:
    """Normalised discounted cumulative gain of the k best by score, 0 to 1; k is at most n, and None is n.

        (1/Z) sum over j <= k of (2^truth[j-th best by score] - 1) / log2(1 + j),   Z the same sum in the ideal order

    Source: Tybl and Neumann, VKDNW, 2025 (k = 1000). `truth` is an accuracy in per cent there: the scale is part of the
    definition, because one point doubles the gain. Z is of the k truly best of this pool, so values of pools of
    different sizes do not compare. Equal scores keep their order; sklearn's ndcg_score(ignore_ties=True), which VKDNW
    calls with 2^truth - 1, reverses it, and is the same where no scores are equal. Raises ValueError for negative
    truth.
    """
    truth, scores = _pair(truth, scores)
    k = _top(k, len(truth))
    if truth.min() < 0.0:
        raise ValueError("nDCG needs values that are not negative, such as an accuracy in per cent")
    gain = np.exp2(truth) - 1.0
    discount = 1.0 / np.log2(np.arange(2, k + 2))
    ideal = float(np.sort(gain)[::-1][:k] @ discount)
    if ideal == 0.0:
        raise ValueError("nDCG is undefined where every value is zero")
    return float(gain[_best(scores, k)] @ discount) / ideal


def top_k_recall(truth: ArrayLike, scores: ArrayLike, k: int) -> float:
    """The part of the k truly best that is among the k best by score, 0 to 1. Of equals, the earlier is better."""
    truth, scores = _pair(truth, scores)
    k = _top(k, len(truth))
    return len(np.intersect1d(_best(truth, k), _best(scores, k))) / k


def regret(truth: ArrayLike, scores: ArrayLike, k: int = 1) -> float:
    """Best truth of all minus the best truth among the k best by score, in the unit of `truth`; 0 is best."""
    truth, scores = _pair(truth, scores)
    return float(truth.max() - truth[_best(scores, _top(k, len(truth)))].max())


def bootstrap(
    statistic: Statistic,
    truth: ArrayLike,
    scores: ArrayLike,
    rng: np.random.Generator,
    resamples: int = 200,
    level: float = 0.95,
) -> Interval:
    """The statistic with its percentile interval over resampled pairs (Efron and Tibshirani, 1993, section 13.3).

    Sampling error over the networks alone; it says nothing about other seeds of training. A resample holds repeats, so
    for `regret` and `top_k_recall` at small k the interval describes a coarser set than the sample. Raises ValueError
    where a resample leaves the statistic undefined, as may happen with fewer than ten items.
    """
    require_level(level)
    draws = resampled(statistic, truth, scores, rng, resamples)
    if np.isnan(draws).any():
        raise ValueError(f"the statistic is undefined in a resample of the {len(draws)}")
    return percentiles(statistic(*_pair(truth, scores)), draws, level)


def resampled(
    statistic: Statistic, truth: ArrayLike, scores: ArrayLike, rng: np.random.Generator, resamples: int
) -> NDArray[np.float64]:
    """The statistic of resampled pairs, float64 [resamples]; nan where a resample leaves it undefined, as one with a
    constant side does. Equal random states draw equal items, so values of two scores pair up."""
    truth, scores = _pair(truth, scores)
    if resamples < 1:
        raise ValueError(f"a bootstrap needs at least one resample; got {resamples}")
    values = np.full(resamples, np.nan)
    for place in range(resamples):
        rows = rng.integers(len(truth), size=len(truth))
        with suppress(ValueError):
            values[place] = statistic(truth[rows], scores[rows])
    return values


def percentiles(value: float, draws: NDArray[np.float64], level: float = 0.95) -> Interval:
    """A value with the interval that holds the middle `level` of its defined draws. Raises ValueError where there is
    none."""
    require_level(level)
    if np.isnan(draws).all():
        raise ValueError("the statistic is undefined in every resample")
    low, high = np.nanquantile(draws, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return Interval(value, float(low), float(high))


def require_level(level: float) -> None:
    if not 0.0 < level < 1.0:
        raise ValueError(f"the level of an interval lies in (0, 1); got {level}")


def _pair(truth: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    truth, scores = np.asarray(truth, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if truth.ndim != 1 or truth.shape != scores.shape or len(truth) == 0:
        raise ValueError(f"truth and scores must be of one length; their shapes are {truth.shape} and {scores.shape}")
    if not (np.isfinite(truth).all() and np.isfinite(scores).all()):
        raise ValueError("truth and scores must be finite; leave out the networks whose score is undefined")
    return truth, scores


def _varied(truth: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    truth, scores = _pair(truth, scores)
    for name, side in (("truth", truth), ("scores", scores)):
        if side.min() == side.max():
            raise ValueError(f"a rank correlation is undefined where one side is constant; all {name} are {side[0]:g}")
    return truth, scores


def _top(k: int | None, n: int) -> int:
    if k is None:
        return n
    if k < 1:
        raise ValueError(f"k must be at least 1, it is {k}")
    return min(k, n)


def _best(values: NDArray[np.float64], k: int) -> NDArray[np.intp]:
    """Indices of the k greatest, best first, equal values in their order."""
    return np.argsort(-values, kind="stable")[:k]
