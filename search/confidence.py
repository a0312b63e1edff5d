"""How far down a ranking one must go to have the best, told from how well the score ranks.

Only orders matter, so score and truth of n networks are taken for n independent draws from a bivariate normal of
correlation rho, in which Kendall's tau is

    tau = (2 / pi) arcsin rho,   so   rho = sin(pi tau / 2)      (Greiner, 1909; Kruskal, 1958, JASA 53, section 5)

What is not known is tau. So for every tau of a bootstrap over the networks, sets of n are drawn, and the place of the
truly best in the order of the score is counted; k is the least with P(place <= k) >= confidence over all of them. A
perfect score has tau 1 and k = 1; at tau 0 the place is uniform, and k is 0.9 n for 90 %.

The place is not bootstrapped itself: in 63 % of the resamples the best is the best of the sample, at its own place, so
places that other networks would give are not seen, and k comes out too small (0.75 n for a score of no use).

Truth here is what was measured: the noise of training and test makes tau, and with it k, worse than for a truth known
exactly, which is what somebody needs who retrains under the same noise.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

SETS = 40_000
"""Simulated in all, about: k errs by chance where P(place <= k) is within 0.3 % of the confidence."""
BLOCK = 4_000
"""Sets in memory at a time."""
ROUNDING = 1e-9
"""What a tau of 1 may be above it."""


def places_of_best(taus: ArrayLike, n: int, rng: np.random.Generator, sets: int = SETS) -> NDArray[np.int64]:
    """Where the truly best of n networks stands in the order of the score, 1 for its favourite, in equally many
    simulated sets for every tau (float [m], -1 to 1). Raises ValueError where n is below 1 or there is no tau."""
    given = np.asarray(taus, dtype=np.float64)
    if n < 1 or given.ndim != 1 or len(given) == 0 or not (np.abs(given) <= 1.0 + ROUNDING).all():
        raise ValueError(f"places need one network or more and taus from -1 to 1; got {n} networks and {given}")
    rho = np.tile(np.sin(0.5 * np.pi * given.clip(-1.0, 1.0)), math.ceil(sets / len(given)))
    places = []
    for part in np.array_split(rho[:, None], math.ceil(len(rho) / BLOCK)):
        score = rng.standard_normal((len(part), n))
        truth = part * score + np.sqrt(1.0 - part**2) * rng.standard_normal((len(part), n))
        best = np.take_along_axis(score, truth.argmax(axis=1)[:, None], axis=1)
        places.append(1 + (score > best).sum(axis=1))
    return np.concatenate(places)


def how_many(taus: ArrayLike, n: int, rng: np.random.Generator, confidence: float = 0.9) -> int:
    """The least k, 1 to n, so that the best of n networks is among the k best by score with that confidence.

    taus: Kendall's tau of the score with the truth, one a bootstrap resample. Raises ValueError for a confidence that
    is not in (0, 1), and as `places_of_best` does.
    """
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"a confidence lies in (0, 1); got {confidence}")
    return int(np.quantile(places_of_best(taus, n, rng), confidence, method="inverted_cdf"))
