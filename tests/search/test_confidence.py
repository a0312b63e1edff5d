"""How many of the best by score hold the truly best: limits that are known exactly, and data drawn as assumed."""

from __future__ import annotations

import numpy as np
import pytest

from subshot.search.confidence import how_many, places_of_best
from subshot.search.ranking import kendall, resampled


def test_a_perfect_score_needs_one() -> None:
    truth = np.arange(12.0)
    taus = resampled(kendall, truth, 3.0 * truth + 1.0, np.random.default_rng(0), 100)
    assert how_many(taus, 12, np.random.default_rng(0)) == 1


@pytest.mark.parametrize(("n", "wanted"), [(11, 10), (15, 14), (29, 27)])
def test_a_score_of_no_use_needs_nine_tenths(n: int, wanted: int) -> None:
    """The least k with k / n >= 0.9."""
    assert how_many([0.0], n, np.random.default_rng(1)) == wanted


def test_a_tau_may_be_rounded_up() -> None:
    assert how_many([1.0 + 1e-15], 12, np.random.default_rng(0)) == 1


def test_a_score_that_is_upside_down_needs_all() -> None:
    assert how_many([-1.0], 8, np.random.default_rng(0)) == 8


@pytest.mark.parametrize("tau", [-0.4, 0.0, 0.5, 0.8])
def test_of_two_the_better_is_first_as_often_as_pairs_agree(tau: float) -> None:
    """Exact, and another formula: P(a pair is concordant) = (1 + tau) / 2."""
    places = places_of_best([tau], 2, np.random.default_rng(2))
    assert np.mean(places == 1) == pytest.approx((1.0 + tau) / 2.0, abs=0.01)


def test_random_scores_need_about_nine_tenths() -> None:
    rng = np.random.default_rng(3)
    found = []
    for _ in range(30):
        taus = resampled(kendall, rng.normal(size=12), rng.normal(size=12), rng, 60)
        found.append(how_many(taus[~np.isnan(taus)], 12, rng) / 12)
    assert 0.8 < np.mean(found) < 0.97


def test_the_best_is_among_them_as_often_as_said() -> None:
    """Score and truth drawn apart from the normal: orders that a monotone change of either leaves as they are."""
    rng = np.random.default_rng(4)
    hits, ks = 0, []
    for _ in range(60):
        score, other = rng.normal(size=(2, 12)), rng.normal(size=(2, 12))
        truth = np.exp(0.8 * score + 0.6 * other)
        taus = resampled(kendall, truth[0], score[0], rng, 60)
        ks.append(how_many(taus, 12, rng))
        place = 1 + np.count_nonzero(score[1] > score[1][truth[1].argmax()])
        hits += place <= ks[-1]
    assert hits >= 48, "of 60, at 90 %"
    assert np.mean(ks) < 8, "and not by retraining nearly all"


@pytest.mark.parametrize(("taus", "n", "confidence"), [([], 5, 0.9), ([1.5], 5, 0.9), ([0.1], 0, 0.9), ([0.1], 5, 1.0)])
def test_nonsense_is_refused(taus: list[float], n: int, confidence: float) -> None:
    with pytest.raises(ValueError, match="got"):
        how_many(taus, n, np.random.default_rng(0), confidence)
