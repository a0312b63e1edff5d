"""Ranking figures against slow definitions, sklearn, and intervals of known coverage."""

import itertools
import math
import time

import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from subshot.search.ranking import (
    UndefinedPolicy,
    bootstrap,
    kendall,
    ndcg,
    partial_kendall,
    partial_spearman,
    regret,
    spearman,
    top_k_recall,
)


def slow_kendall(x, y) -> float:
    concordant = tied_x = tied_y = pairs = 0
    for (a, b), (c, d) in itertools.combinations(zip(x, y, strict=True), 2):
        pairs += 1
        tied_x += a == c
        tied_y += b == d
        concordant += int(np.sign(a - c) * np.sign(b - d))
    return concordant / math.sqrt((pairs - tied_x) * (pairs - tied_y))


def slow_ranks(x) -> list[float]:
    return [sum(b < a for b in x) + (1 + sum(b == a for b in x)) / 2 for a in x]


@pytest.fixture(params=range(6))
def sample(request):
    """Thirty pairs, with ties in half of the cases."""
    rng = np.random.default_rng(request.param)
    truth = rng.integers(0, 8, 30).astype(float) if request.param % 2 else rng.normal(90, 2, 30)
    return np.abs(truth), truth + rng.normal(0, 2, 30).round(request.param % 3)


def test_correlations_are_their_definitions(sample) -> None:
    truth, scores = sample
    assert kendall(truth, scores) == pytest.approx(slow_kendall(truth, scores), abs=1e-12)
    assert spearman(truth, scores) == pytest.approx(np.corrcoef(slow_ranks(truth), slow_ranks(scores))[0, 1], abs=1e-12)
    assert kendall(truth, truth) == pytest.approx(1.0) and kendall(truth, -truth) == pytest.approx(-1.0)


def test_partial_correlations_are_their_definitions(sample) -> None:
    truth, scores = sample
    given = np.abs(scores + np.random.default_rng(9).normal(0, 3, 30)).round(1)
    t_ts, t_tg, t_sg = slow_kendall(truth, scores), slow_kendall(truth, given), slow_kendall(scores, given)
    expected = (t_ts - t_tg * t_sg) / math.sqrt((1 - t_tg**2) * (1 - t_sg**2))
    assert partial_kendall(truth, scores, given) == pytest.approx(expected, abs=1e-12)
    columns = [np.asarray(slow_ranks(side)) for side in (truth, scores, given)]
    left = [side - np.polyval(np.polyfit(columns[2], side, 1), columns[2]) for side in columns[:2]]
    assert partial_spearman(truth, scores, given) == pytest.approx(np.corrcoef(*left)[0, 1], abs=1e-9)
    for partial in (partial_kendall, partial_spearman):
        with pytest.raises(ValueError, match="determines the order"):
            partial(truth, scores, truth)
        with pytest.raises(ValueError, match="shapes"):
            partial(truth, scores, given[:-1])


def test_ndcg_is_that_of_the_paper_and_of_sklearn() -> None:
    rng = np.random.default_rng(0)
    truth, scores = rng.uniform(5, 30, 200), rng.normal(size=200)
    for k in (1, 10, 200, 1000):
        expected = ndcg_score([2**truth - 1], [scores], k=k, ignore_ties=True)
        assert ndcg(truth, scores, k) == pytest.approx(expected, rel=1e-12)
    by_hand = (3 / math.log2(2) + 7 / math.log2(3)) / (7 / math.log2(2) + 3 / math.log2(3))
    assert ndcg([0.0, 3.0, 2.0], [0.0, 1.0, 2.0], k=2) == pytest.approx(by_hand)
    assert ndcg(truth, truth) == pytest.approx(1.0)
    many = rng.uniform(30, 60, 1500)
    noisy = many + rng.normal(size=1500)
    assert ndcg(many, noisy) == ndcg(many, noisy, 1000) != ndcg(many, noisy, None)
    assert ndcg(many, noisy, None) == pytest.approx(ndcg_score([2**many - 1], [noisy], ignore_ties=True), rel=1e-12)


def test_ndcg_keeps_the_order_of_equal_scores_where_sklearn_reverses_it() -> None:
    truth, scores = np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.0, 5.0, 5.0, 5.0])
    for k in (1, 2, 4):
        order = [1, 2, 3, 0][:k]
        gain = sum((2 ** truth[item] - 1) / math.log2(2 + place) for place, item in enumerate(order))
        best = sum((2 ** truth[item] - 1) / math.log2(2 + place) for place, item in enumerate([3, 2, 1, 0][:k]))
        assert ndcg(truth, scores, k) == pytest.approx(gain / best)
        turned = ndcg_score([2 ** truth[::-1] - 1], [scores[::-1]], k=k, ignore_ties=True)
        assert turned == pytest.approx(gain / best)
    assert ndcg_score([2**truth - 1], [scores], k=1, ignore_ties=True) == 1.0 > ndcg(truth, scores, 1)


def test_what_is_found_at_the_top() -> None:
    truth, scores = [1.0, 5.0, 4.0, 3.0, 2.0], [9.0, 0.0, 7.0, 8.0, 1.0]
    assert [top_k_recall(truth, scores, k) for k in (1, 2, 3, 5, 9)] == [0.0, 0.0, pytest.approx(2 / 3), 1.0, 1.0]
    assert [regret(truth, scores, k) for k in (1, 2, 3, 5)] == [4.0, 2.0, 1.0, 0.0]
    assert top_k_recall([1.0, 1.0, 0.0], [0.0, 1.0, 1.0], 1) == 0.0  # of equals the earlier: index 0 against index 1


def test_an_undefined_score_ranks_last_or_is_left_out() -> None:
    scores = [1e300, math.nan, -math.inf, 0.0, 1e-300, 0.0, math.inf]
    last = UndefinedPolicy().settle(scores)
    assert last.scores.tolist() == [3.0, 0.0, 0.0, 1.0, 2.0, 1.0, 0.0] and last.kept.all() and last.undefined == 3
    out = UndefinedPolicy("left_out").settle(scores)
    assert out.kept.tolist() == [True, False, False, True, True, True, False]
    assert out.scores.tolist() == [3.0, 1.0, 2.0, 1.0] and out.undefined == 3
    with pytest.raises(ValueError, match="none of the 2 scores is defined"):
        UndefinedPolicy().settle([math.nan, math.nan])


@pytest.mark.parametrize("statistic", [kendall, spearman, ndcg, regret])
def test_settled_scores_have_the_statistics_of_the_scores(sample, statistic) -> None:
    truth, scores = sample
    settled = UndefinedPolicy().settle(scores)
    assert settled.undefined == 0 and statistic(truth, settled.scores) == pytest.approx(statistic(truth, scores))


def test_intervals_are_seeded_and_cover() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(40):  # bivariate normal: tau = 2/pi asin(rho)
        x = rng.normal(size=80)
        y = 0.6 * x + 0.8 * rng.normal(size=80)
        interval = bootstrap(kendall, x, y, rng, resamples=80, level=0.9)
        assert interval.low <= interval.value <= interval.high
        covered += interval.low <= 2 / math.pi * math.asin(0.6) <= interval.high
    assert 30 <= covered <= 40
    first, second = (bootstrap(kendall, x, y, np.random.default_rng(7)) for _ in range(2))
    assert first == second


def test_a_whole_table_of_networks_takes_moments() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=15_625)
    start = time.perf_counter()
    interval = bootstrap(kendall, truth, truth + rng.normal(size=15_625), rng, resamples=200)
    assert time.perf_counter() - start < 20.0
    assert interval.value == pytest.approx(0.5, abs=0.02)
    assert 0.005 < interval.high - interval.low < 0.05


def test_the_undefined_is_refused() -> None:
    with pytest.raises(ValueError, match="all scores are 2"):
        kendall([1.0, 2.0, 3.0], [2.0, 2.0, 2.0])
    with pytest.raises(ValueError, match="all truth are 1"):
        spearman([1.0, 1.0], [2.0, 3.0])
    with pytest.raises(ValueError, match="finite"):
        kendall([1.0, math.nan], [2.0, 3.0])
    with pytest.raises(ValueError, match="shapes"):
        regret([1.0, 2.0], [2.0])
    with pytest.raises(ValueError, match="k must be at least 1"):
        top_k_recall([1.0, 2.0], [2.0, 1.0], 0)
    with pytest.raises(ValueError, match="not negative"):
        ndcg([-1.0, 2.0], [2.0, 1.0])
    with pytest.raises(ValueError, match="level"):
        bootstrap(kendall, [1.0, 2.0], [2.0, 1.0], np.random.default_rng(0), level=1.0)
