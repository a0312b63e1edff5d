"""How well scores rank the networks of a sample that were trained from scratch: what RUN/ranking.json holds.

Every statistic has a 95 % bootstrap interval over networks (search/ranking.py); what other seeds of training would
give shows in seed_kendall alone, one seed's order against another's. A training that diverged counts as a model that
knows nothing, or as the worst training, where that is worse. A network without a score is last in that score's order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import combinations
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from subshot.launch.correlation.scores import Column
from subshot.launch.correlation.trainings import Trainings
from subshot.search.confidence import how_many
from subshot.search.ranking import (
    Statistic,
    UndefinedPolicy,
    kendall,
    ndcg,
    percentiles,
    regret,
    resampled,
    spearman,
    top_k_recall,
)
from subshot.supernet.space import Genotype

SCHEMA_VERSION = 2
DROVE = "score"
"""The row of the score that drove the search."""
COUNTS = {"params": "parameters", "macs": "MACs", "num_modules": "modules"}
"""What a score must beat: costs by their key, and in words."""
CONFIDENCE = 0.9
RECALL_PART = 4
"""Recall is of the best quarter."""

Kind = Literal["score", "count", "term", "proxy", "kind"]
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Trained:
    """A network of the sample. reached: the metric of each seed, None where the training diverged."""

    network: str
    genotype: Genotype
    score: float
    reached: tuple[float | None, ...]
    costs: Mapping[str, float]


def turned(sample: Sequence[Trained], others: Mapping[str, Column]) -> dict[str, tuple[Kind, Values]]:
    """Each score of the sample by name, higher is better, nan where undefined."""
    found: dict[str, tuple[Kind, Values]] = {DROVE: ("score", np.array([network.score for network in sample]))}
    for key in COUNTS:
        if key in sample[0].costs:
            found[key] = ("count", np.array([float(network.costs[key]) for network in sample]))
    for name, column in others.items():
        values = np.array(column.values, dtype=np.float64)
        found[name] = (column.source, values if column.maximize else -values)
    return found


def reached(sample: Sequence[Trained], trainings: Trainings) -> Values:
    """The metric of every training, float64 [networks, seeds]. Raises ValueError where all diverged."""
    values = np.array([network.reached for network in sample], dtype=np.float64)
    if np.isnan(values).all():
        raise ValueError("every training of the sample diverged, so there is nothing to rank")
    worst = min(trainings.guess, np.nanmin(values)) if trainings.maximize else max(trainings.guess, np.nanmax(values))
    return np.where(np.isnan(values), worst, values)


def judged(
    sample: Sequence[Trained], others: Mapping[str, Column], trainings: Trainings, seed: int, resamples: int
) -> dict[str, Any]:
    """The content of ranking.json. Of networks that a score ties, the statistics of the top take those first that a
    seeded shuffle puts first. others: what is judged beside the score and the counts, in the order of the sample."""
    order = np.random.default_rng(seed).permutation(len(sample))
    values = reached(sample, trainings)[order]
    means = values.mean(axis=1)
    truth = means if trainings.maximize else -means
    gains = np.array([trainings.in_per_cent(float(mean)) for mean in means])
    n = len(sample)
    top = max(1, round(n / RECALL_PART))
    statistics: dict[str, tuple[Values, Statistic]] = {
        "kendall": (truth, kendall),
        "spearman": (truth, spearman),
        "ndcg": (gains, partial(ndcg, k=None)),
        "top_k_recall": (truth, partial(top_k_recall, k=top)),
        "regret": (truth, regret),
    }
    scores: dict[str, dict[str, Any]] = {}
    taus: dict[str, Values] = {}
    for name, (kind, column) in turned(sample, others).items():
        scores[name] = {"kind": kind, "undefined": int(np.count_nonzero(~np.isfinite(column)))}
        if scores[name]["undefined"] == n:
            scores[name] |= dict.fromkeys(statistics)
            continue
        ranks = UndefinedPolicy("last").settle(column[order]).scores
        for statistic, (against, function) in statistics.items():
            draws = resampled(function, against, ranks, np.random.default_rng([seed, 1]), resamples)
            scores[name][statistic] = estimate(function, against, ranks, draws)
            if statistic == "kendall":
                taus[name] = draws
    drove = np.array([network.score for network in sample])[order]
    lost = resampled(regret, truth, drove, np.random.default_rng([seed, 1]), resamples)
    return {
        "schema_version": SCHEMA_VERSION,
        "networks": n,
        "seeds": values.shape[1],
        "diverged": sum(value is None for network in sample for value in network.reached),
        "metric": trainings.metric,
        "looked_at": trainings.looked_at,
        "seed_kendall": seed_kendall(values),
        "recall_of": top,
        "scores": scores,
        "beside_counts": beside_counts(taus),
        "confidence": confidence_of(truth, drove, taus.get(DROVE), seed),
        "regret_of_first": scores[DROVE]["regret"] and scores[DROVE]["regret"] | {"expected": float(lost.mean())},
        "sample": [row_of(network, place, others, trainings) for place, network in enumerate(sample)],
    }


def estimate(function: Statistic, truth: Values, ranks: Values, draws: Values) -> dict[str, float] | None:
    """A value with its interval; None where it is undefined, as a correlation with a constant side is."""
    try:
        return asdict(percentiles(function(truth, ranks), draws))
    except ValueError:
        return None


def seed_kendall(values: Values) -> float | None:
    """Kendall's tau of one seed's order with another's, the mean over pairs of seeds: how much of an order is no noise
    of training. None of one seed."""
    found = []
    for first, second in combinations(values.T, 2):
        try:
            found.append(kendall(first, second))
        except ValueError:
            return None
    return float(np.mean(found)) if found else None


def beside_counts(taus: Mapping[str, Values]) -> dict[str, dict[str, float]]:
    """Tau of the score minus that of each count, on the same resamples: above 0 the score ranks better. low, high: the
    middle 95 % of the differences."""
    found = {}
    for key in COUNTS:
        if key in taus and DROVE in taus:
            differences = taus[DROVE] - taus[key]
            if not np.isnan(differences).all():
                low, high = np.nanquantile(differences, (0.025, 0.975))
                found[key] = {"low": float(low), "high": float(high)}
    return found


def confidence_of(truth: Values, scores: Values, taus: Values | None, seed: int) -> dict[str, Any]:
    """retrain: see subshot.search.confidence.how_many; None where tau is undefined. place: where the best network of
    the sample stands in the order of the score, 1 for the first."""
    place = 1 + int(np.count_nonzero(scores > scores[truth.argmax()]))
    known = taus[~np.isnan(taus)] if taus is not None else np.empty(0)
    k = how_many(known, len(truth), np.random.default_rng([seed, 2]), CONFIDENCE) if len(known) else None
    return {"level": CONFIDENCE, "retrain": k, "of": len(truth), "place_of_best": place}


def row_of(network: Trained, place: int, others: Mapping[str, Column], trainings: Trainings) -> dict[str, Any]:
    return {
        "network": network.network,
        "genotype": list(network.genotype),
        "score": network.score,
        trainings.metric: list(network.reached),
        "costs": dict(network.costs),
        "others": {name: column.values[place] for name, column in others.items()},
    }
