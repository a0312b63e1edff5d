"""How good predicted click probabilities are, with 95 % intervals, and whether two models really differ.

All from logits [n] and labels [n] (0 or 1) of a whole split. Sums are exact or in float64, over rows that are put in
one order first, so that neither batches nor ranks change a bit of any figure.

Intervals are for other rows of the same kind, which they take to be independent; they say nothing about another seed
of training (`over_seeds` does) and are too narrow where a user's clicks go together. Means and functions of means have
their normal limit, by the delta method; AUC has DeLong's; the ECE has a bootstrap. Bootstraps over rows agree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

LEVEL = 0.95
BINS = 15
BOOTSTRAP_DRAWS = 2000

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ClickMetrics:
    """Of `n` rows, `base_rate` of them clicks.

    log_loss: mean binary cross-entropy in nats; lower is better.
    auc: area under the ROC curve, ties counted as half; higher is better.
    normalised_entropy: log loss over that of always predicting these rows' base rate; 1 is no information, lower is
        better (He et al., 2014, Practical lessons from predicting clicks on ads at Facebook, equation 1).
    calibration_ratio: mean prediction over base rate; 1 is best (same source).
    ece: expected calibration error, the mean over rows of |clicks - predictions| of a row's bin of 15 bins of equal
        numbers of rows, equal predictions in one bin (equal widths would leave most bins empty where clicks are rare).
        It is never below 0, hence too large on finite data: `ece_if_calibrated` is what to expect of predictions that
        are perfectly right. The interval corrects for that (basic bootstrap), so it may lie below the value.
    """

    n: int
    base_rate: float
    log_loss: Estimate
    auc: Estimate
    normalised_entropy: Estimate
    calibration_ratio: Estimate
    ece: Estimate
    ece_if_calibrated: float


@dataclass(frozen=True)
class PairedDifference:
    """First model minus second on the same rows. Negative log loss and positive AUC: the first is better."""

    log_loss: Estimate
    auc: Estimate


@dataclass(frozen=True)
class SeedSummary:
    """Of `n` seeds: mean, standard deviation (divided by n - 1), and the 95 % interval of the mean by Student's t."""

    n: int
    mean: float
    sd: float
    low: float
    high: float


def entropy(rate: float) -> float:
    """The log loss of always predicting the base rate, in nats; 0 where there is one class only."""
    return -rate * math.log(rate) - (1.0 - rate) * math.log1p(-rate) if 0.0 < rate < 1.0 else 0.0


def log_loss(logits: Tensor, labels: Tensor) -> float:
    """Mean binary cross-entropy in nats, the exact mean of the rows' float64 losses; one class is enough."""
    scores, clicks = _rows(logits, labels)
    return _mean(_losses(scores, clicks))


def click_metrics(logits: Tensor, labels: Tensor, seed: int = 0) -> ClickMetrics:
    """Raises ValueError for a logit that is not finite, a label that is neither 0 nor 1, and where fewer than two rows
    of either class leave the AUC or its interval undefined. Takes about a second for a million rows."""
    scores, clicks = _rows(logits, labels)
    _require_both_classes(clicks)
    order = np.lexsort((clicks, scores))
    scores, clicks = scores[order], clicks[order]
    losses, predicted = _losses(scores, clicks), _sigmoid(scores)
    loss, rate, mean_prediction = _mean(losses), _mean(clicks), _mean(predicted)
    chance = entropy(rate)
    slope = math.log1p(-rate) - math.log(rate)  # of the entropy, by the rate
    ratio = mean_prediction / rate
    area, above, below = _placements(scores, clicks)
    ece, ece_if_calibrated = _calibration_error(scores, clicks, predicted, seed)
    return ClickMetrics(
        n=len(scores),
        base_rate=rate,
        log_loss=_normal(loss, _standard_error(losses)),
        auc=_normal(area, math.hypot(_standard_error(above), _standard_error(below)), 0.0, 1.0),
        normalised_entropy=_normal(
            loss / chance, _standard_error(losses / chance - loss * slope / chance**2 * clicks), 0.0
        ),
        calibration_ratio=_normal(ratio, _standard_error((predicted - ratio * clicks) / rate), 0.0),
        ece=ece,
        ece_if_calibrated=ece_if_calibrated,
    )


def paired_difference(first: Tensor, second: Tensor, labels: Tensor) -> PairedDifference:
    """Of two models' logits [n] on the same rows in the same order.

    The interval of the log loss is that of the mean of the rows' differences; that of the AUC is DeLong, DeLong and
    Clarke-Pearson's (1988) for correlated curves. Both are far narrower than the models' own intervals suggest, since
    rows that are hard for one model are hard for the other. Raises ValueError as `click_metrics` does.
    """
    scores, clicks = _rows(first, labels)
    others, _ = _rows(second, labels)
    _require_both_classes(clicks)
    order = np.lexsort((clicks, others, scores))
    scores, others, clicks = scores[order], others[order], clicks[order]
    differences = _losses(scores, clicks) - _losses(others, clicks)
    area, above, below = _placements(scores, clicks)
    other_area, other_above, other_below = _placements(others, clicks)
    error = math.hypot(_standard_error(above - other_above), _standard_error(below - other_below))
    return PairedDifference(
        log_loss=_normal(_mean(differences), _standard_error(differences)), auc=_normal(area - other_area, error)
    )


def paired_over_seeds(first: Sequence[Tensor], second: Sequence[Tensor], labels: Tensor) -> Estimate:
    """Mean log loss of one model's trainings minus that of another's, all logits [n] on the same rows.

    The interval is for other rows and other seeds: the variance of the rows' mean differences and those of either
    model's trainings add up, with Welch's degrees of freedom. A model that was trained once is taken to vary with rows
    alone. Below 0: the first is better.
    """
    losses = [np.stack([_losses(*_rows(logits, labels)) for logits in model]) for model in (first, second)]
    difference = losses[0].mean(axis=0) - losses[1].mean(axis=0)
    seeds = [model.mean(axis=1) for model in losses]
    parts = [(float(values.var(ddof=1)) / len(values), len(values) - 1) for values in seeds if len(values) > 1]
    variance = _standard_error(difference) ** 2 + sum(part for part, _ in parts)
    noise = sum(part**2 / freedom for part, freedom in parts)
    freedom = variance**2 / noise if noise > 0 else math.inf
    half = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * math.sqrt(variance)
    value = _mean(difference)
    return Estimate(value, value - half, value + half)


def over_seeds(values: Sequence[float]) -> SeedSummary:
    """Raises ValueError for fewer than two values, and where one is not finite."""
    if len(values) < 2 or not all(math.isfinite(value) for value in values):
        raise ValueError(f"a spread over seeds needs at least two finite values; got {list(values)}")
    mean, sd = math.fsum(values) / len(values), float(np.std(values, ddof=1))
    half = float(stats.t.ppf((1 + LEVEL) / 2, len(values) - 1)) * sd / math.sqrt(len(values))
    return SeedSummary(len(values), mean, sd, mean - half, mean + half)


def _rows(logits: Tensor, labels: Tensor) -> tuple[Floats, Floats]:
    if logits.ndim != 1 or logits.shape != labels.shape or len(logits) == 0:
        raise ValueError(
            f"metrics need one logit and one label a row, and at least one row; the shapes are {tuple(logits.shape)} "
            f"and {tuple(labels.shape)}"
        )
    scores, clicks = (values.detach().cpu().double().numpy() for values in (logits, labels))
    if not np.isfinite(scores).all():
        raise ValueError(f"logit {scores[~np.isfinite(scores)][0]} is not finite: the model has diverged")
    if not ((clicks == 0) | (clicks == 1)).all():
        raise ValueError(f"label {clicks[(clicks != 0) & (clicks != 1)][0]} is neither 0 nor 1")
    return scores, clicks


def _require_both_classes(clicks: Floats) -> None:
    positive = int(clicks.sum())
    if min(positive, len(clicks) - positive) < 2:
        raise ValueError(
            f"the AUC and its interval need at least two rows of either class; of {len(clicks)} rows {positive} are "
            "clicks: take a larger split"
        )


def _losses(scores: Floats, clicks: Floats) -> Floats:
    """log(1 + exp(score)) - score * click, without overflow; where a click is sure, its loss keeps its digits."""
    return np.logaddexp(0.0, np.where(clicks == 1, -scores, scores))


def _sigmoid(scores: Floats) -> Floats:
    small = np.exp(-np.abs(scores))
    return np.where(scores >= 0, 1.0, small) / (1.0 + small)


def _mean(values: Floats) -> float:
    return math.fsum(values) / len(values)


def _standard_error(values: Floats) -> float:
    return float(np.std(values, ddof=1)) / math.sqrt(len(values))


def _normal(value: float, error: float, lowest: float = -math.inf, highest: float = math.inf) -> Estimate:
    half = float(stats.norm.ppf((1 + LEVEL) / 2)) * error
    return Estimate(value, max(lowest, value - half), min(highest, value + half))


def _placements(scores: Floats, clicks: Floats) -> tuple[float, Floats, Floats]:
    """(AUC, for each click the share of other rows below it, for each other row the share of clicks above it).

    Ties count as half. Logits are compared, since probabilities near 1 are equal sooner. The AUC is exact: ranks are
    multiples of a half. The variances of the shares over their numbers add up to DeLong's (1988) variance of the AUC;
    by ranks, as Sun and Xu (2014) found, it takes one sort.
    """
    positive = clicks == 1
    hits, misses = int(positive.sum()), int((~positive).sum())
    ranks = stats.rankdata(scores)
    above = (ranks[positive] - stats.rankdata(scores[positive])) / misses
    below = 1.0 - (ranks[~positive] - stats.rankdata(scores[~positive])) / hits
    doubled = int((2 * ranks[positive]).astype(np.int64).sum())
    return (doubled - hits * (hits + 1)) / (2 * hits * misses), above, below


def _calibration_error(scores: Floats, clicks: Floats, predicted: Floats, seed: int) -> tuple[Estimate, float]:
    """The ECE, and its expectation were the predictions right.

    Bootstrap: the bins are kept, and a bin's sum of clicks - predictions is drawn from the normal distribution that a
    resample of its rows tends to, so that the cost does not depend on the number of rows.
    """
    n = len(scores)
    bins = np.minimum((stats.rankdata(scores) - 0.5) * BINS / n, BINS - 1).astype(np.int64)
    gaps = clicks - predicted
    counts = np.bincount(bins, minlength=BINS)
    sums = np.bincount(bins, weights=gaps, minlength=BINS)
    squares = np.bincount(bins, weights=gaps**2, minlength=BINS)
    value = float(np.abs(sums).sum()) / n
    spread = np.sqrt(np.maximum(squares - sums**2 / np.maximum(counts, 1), 0.0))
    noise = np.random.default_rng(seed).standard_normal((BOOTSTRAP_DRAWS, BINS))
    drawn = np.abs(sums + spread * noise).sum(axis=1) / n
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    chance = np.bincount(bins, weights=predicted * (1 - predicted), minlength=BINS)
    expected = float(np.sqrt(2 / math.pi * chance).sum()) / n
    return Estimate(value, max(0.0, 2 * value - float(high)), max(0.0, 2 * value - float(low))), expected
