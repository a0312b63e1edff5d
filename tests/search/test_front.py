"""Fronts against all pairs, hypervolumes against a count of small cubes, and the order that spreads."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from subshot.search.front import front_of, hypervolume, reference_of, spread


def dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """(score, cost, ...): no worse in anything, better in something."""
    no_worse = one[0] >= other[0] and all(a <= b for a, b in zip(one[1:], other[1:], strict=True))
    return no_worse and one != other


def whole_points(rng: random.Random, count: int, costs: int) -> list[tuple[float, ...]]:
    return [tuple(float(rng.randrange(8)) for _ in range(costs + 1)) for _ in range(count)]


@pytest.mark.parametrize("costs", [1, 2, 3])
def test_the_front_is_what_nothing_dominates(costs: int) -> None:
    rng = random.Random(costs)
    for count in (1, 2, 30):
        points = whole_points(rng, count, costs)
        wanted = {p for p in points if not any(dominates(q, p) for q in points)}
        front = front_of(points)
        assert {points[i] for i in front} == wanted and len(front) == len(wanted)
        assert [points[i][0] for i in front] == sorted((points[i][0] for i in front), reverse=True)
        assert all(i == points.index(points[i]) for i in front)  # of equal points the first


def test_no_points_have_no_front() -> None:
    assert front_of(np.empty((0, 2))) == []


@pytest.mark.parametrize("costs", [1, 2, 3])
def test_hypervolume_counts_the_cubes_that_are_dominated(costs: int) -> None:
    rng = random.Random(10 + costs)
    points = whole_points(rng, 6, costs)
    reference = (0.0, *(6.0 for _ in range(costs)))  # some points are worse than it, and count for nothing
    cubes = itertools.product(range(8), *(range(6) for _ in range(costs)))  # (score, cost, ...) at the lower corner
    covered = sum(
        any(p[0] >= cube[0] + 1 and all(c <= at for c, at in zip(p[1:], cube[1:], strict=True)) for p in points)
        for cube in cubes
    )
    assert hypervolume(points, reference) == pytest.approx(covered)
    assert hypervolume([points[i] for i in front_of(points)], reference) == pytest.approx(covered)


def test_the_reference_lies_beyond_the_front() -> None:
    assert reference_of([(10.0, 5.0), (0.0, 1.0)]) == pytest.approx([-1.0, 5.4])


def test_spread_begins_with_the_best_and_goes_to_the_far_ends() -> None:
    points = [(10.0, 100.0), (9.0, 90.0), (5.0, 50.0), (4.9, 49.0), (0.0, 0.0)]
    order = spread(points)
    assert order[:3] == [0, 4, 2] and sorted(order) == list(range(5))
    assert spread([(1.0, 2.0)]) == [0]
    assert spread([(2.0, 3.0), (1.0, 3.0)]) == [0, 1]  # a cost without range
