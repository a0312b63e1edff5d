"""Aggregations against loops over pairs of networks, and networks ranked against a fixed pool."""

import math

import numpy as np
import pytest
from scipy.special import ndtri

from subshot.search.aggregation import (
    AGGREGATIONS,
    Ensemble,
    column_ranks,
    lexicographic_rank,
    log_rank_sum,
    min_rank,
    rank_among,
    vkdnw_agg,
)

NAN, INF = math.nan, math.inf


def slow_rank(column, item) -> float:
    """Mean rank of one item among all, from its comparisons; undefined ones last."""
    values = [value if math.isfinite(value) else -INF for value in column]
    below = sum(other < values[item] for other in values)
    equal = sum(other == values[item] for other in values)
    return sum(range(below + 1, below + equal + 1)) / equal


def slow_dense_rank(pairs, item) -> int:
    distinct = []
    for pair in pairs:
        if pair not in distinct:
            distinct.append(pair)
    return 1 + sum(a < pairs[item][0] or (a == pairs[item][0] and b < pairs[item][1]) for a, b in distinct)


def slow_scores(name, columns) -> list[float]:
    n, k = columns.shape
    ranks = [[slow_rank(columns[:, c].tolist(), item) for c in range(k)] for item in range(n)]
    formula = {
        "log_rank_sum": lambda row: sum(math.log(rank / n) for rank in row),
        "linear_rank_sum": sum,
        "quantile_product": lambda row: math.prod((rank - 0.5) / n for rank in row),
        "normal_score_sum": lambda row: sum(float(ndtri(rank / (n + 1))) for rank in row),
    }[name]
    return [formula(row) for row in ranks]


@pytest.fixture(params=range(4))
def columns(request):
    """Twenty-five networks by four scores, with ties and, in half of the cases, undefined scores."""
    rng = np.random.default_rng(request.param)
    made = np.stack([rng.normal(size=25), rng.integers(0, 5, 25), rng.integers(0, 2, 25), rng.normal(size=25)], axis=1)
    if request.param % 2:
        made[rng.integers(0, 25, 4), [0, 0, 1, 3]] = [NAN, -INF, NAN, INF]
    return made


@pytest.mark.parametrize("name", ["log_rank_sum", "linear_rank_sum", "quantile_product", "normal_score_sum"])
def test_aggregations_are_their_definitions(columns, name) -> None:
    assert AGGREGATIONS[name](columns) == pytest.approx(slow_scores(name, columns), abs=1e-12)


def test_min_rank_orders_by_the_worst_rank_then_by_the_next(columns) -> None:
    ranks = [sorted(slow_rank(columns[:, c].tolist(), item) for c in range(4)) for item in range(25)]
    scores = min_rank(columns)
    for a in range(25):
        for b in range(25):
            assert (scores[a] > scores[b]) == (ranks[a] > ranks[b])
        assert ranks[a][0] <= scores[a] < ranks[a][0] + 0.5


def test_vkdnw_agg_is_its_definition() -> None:
    rng = np.random.default_rng(0)
    table = rng.normal(size=(40, 6))
    table[:, 0] = 21 + 45 * rng.integers(0, 7, 40)
    table[:, 1], table[:, 5] = rng.integers(0, 3, 40), rng.integers(0, 9, 40)
    table[[3, 7, 9, 11, 20], [2, 2, 3, 4, 1]] = [NAN, INF, -INF, NAN, -INF]
    clean = table.copy()
    for item, column in ((3, 2), (9, 3), (11, 4), (20, 1)):
        clean[item, column] = min(v for v in table[:, column] if math.isfinite(v))
    clean[7, 2] = max(v for v in table[:, 2] if math.isfinite(v))
    pairs = [tuple(pair) for pair in clean[:, :2].tolist()]
    expected = [
        math.log(slow_dense_rank(pairs, item))
        + sum(math.log(slow_rank(clean[:, c].tolist(), item)) for c in range(2, 6))
        for item in range(40)
    ]
    assert vkdnw_agg(table) == pytest.approx(expected, abs=1e-12)
    assert np.isnan(table[3, 2]), "the given table is not written to"
    with pytest.raises(ValueError, match="it was given 5 columns"):
        vkdnw_agg(table[:, :5])
    table[:, 2] = NAN
    with pytest.raises(ValueError, match="a finite value of Jacobian covariance"):
        vkdnw_agg(table)


def test_pairs_rank_by_the_first_then_by_the_second() -> None:
    assert lexicographic_rank([66, 21, 66, 66, 21], [1.0, 9.0, 0.5, 1.0, 2.0]).tolist() == [4, 2, 3, 4, 1]


def test_ranks_among_a_pool() -> None:
    pool = [10.0, 20.0, 20.0, NAN]
    assert rank_among(pool, pool).tolist() == [2.0, 3.5, 3.5, 1.0]
    assert rank_among([NAN, 5.0, 10.0, 15.0, 20.0, 99.0, INF], pool).tolist() == [1.0, 1.5, 2.0, 2.5, 3.5, 4.5, 1.0]
    assert rank_among([5.0, 20.0, 99.0], pool, "dense").tolist() == [1.5, 3.0, 3.5]
    with pytest.raises(ValueError, match="a pool"):
        rank_among([1.0], [])


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_against_a_fixed_pool_a_score_is_the_network_s_own(name) -> None:
    rng = np.random.default_rng(1)
    pool = {f"m{c}": np.round(rng.normal(size=30), 1) for c in range(6)}
    ensemble = Ensemble(tuple(pool), name)
    within = ensemble.scores(pool)
    score = ensemble.against(pool)
    one_by_one = [score({key: float(column[item]) for key, column in pool.items()}) for item in range(30)]
    assert one_by_one == pytest.approx(within.tolist(), abs=1e-12)
    others = {key: rng.normal(size=50) * 2 for key in pool}
    together = ensemble.scores(others, pool)
    assert np.isfinite(together).all()
    assert ensemble.scores({key: column[7:9] for key, column in others.items()}, pool) == pytest.approx(together[7:9])
    better = {key: column + 0.5 for key, column in others.items()}
    assert (ensemble.scores(better, pool) >= together).all()
    before = score(dict.fromkeys(pool, 0.0))
    for column in pool.values():
        column[:] = 0.0
    assert score(dict.fromkeys(pool, 0.0)) == before


def test_an_ensemble_names_its_members_and_its_aggregation() -> None:
    ensemble = Ensemble(("zico", "macs"), "log_rank_sum")
    table = {"macs": [1.0, 2.0, 3.0], "other": [0.0, 0.0, 0.0], "zico": [3.0, 3.0, NAN]}
    assert ensemble.scores(table) == pytest.approx(log_rank_sum([[3.0, 1.0], [3.0, 2.0], [NAN, 3.0]]))
    assert ensemble.scores(table) == pytest.approx([math.log(2.5 / 9), math.log(5 / 9), math.log(1 / 3)])
    with pytest.raises(ValueError, match="members zico have no column"):
        ensemble.scores({"macs": [1.0]})
    with pytest.raises(ValueError, match="members macs have no column"):
        ensemble.against(table)({"zico": 1.0})
    with pytest.raises(ValueError, match="there is no aggregation 'mean'"):
        Ensemble(("zico",), "mean")
    with pytest.raises(ValueError, match="at least one member"):
        Ensemble((), "log_rank_sum")


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match=r"\(3,\)"):
        column_ranks([1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match=r"\(1, 2\), \(1, 3\)"):
        column_ranks([[1.0, 2.0]], [[1.0, 2.0, 3.0]])
