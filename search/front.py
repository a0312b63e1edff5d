"""Fronts: the networks of which none is both better and cheaper, how much they cover, and a few of them, spread out.

A point is (score, cost, cost, ...): the score is to rise, the costs are to fall.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Points = Sequence[Sequence[float]] | NDArray[np.float64]


def front_of(points: Points) -> list[int]:
    """Which points no other one dominates, the best score first; of equal points the first."""
    values = _falling(points)
    order = np.lexsort((np.arange(len(values)), *values.T[::-1])) if len(values) else np.array([], dtype=np.intp)
    kept: list[int] = []
    for index in order.tolist():  # whatever dominates a point stands before it
        if not (values[kept] <= values[index]).all(axis=1).any():
            kept.append(index)
    return kept


def hypervolume(points: Points, reference: Sequence[float]) -> float:
    """The volume that the points dominate, up to the reference point (score, cost, ...), which is worse than they are.

    By slices along the last cost; meant for fronts of some hundred points.
    """
    return _volume(_falling(points), _falling([reference])[0])


def reference_of(front: Points) -> list[float]:
    """A reference point for the hypervolume: a tenth of the front's own range beyond its worst score and costs."""
    values = _falling(front)
    beyond = values.max(axis=0) + 0.1 * np.ptp(values, axis=0)
    return [-float(beyond[0]), *beyond[1:].tolist()]


def spread(points: Points) -> list[int]:
    """All points of a front in such an order that the first few lie far apart: the best score, then again and again the
    one that is farthest from those before it, each quantity in units of its range."""
    values = _falling(points)
    width = np.ptp(values, axis=0)
    values = (values - values.min(axis=0)) / np.where(width > 0.0, width, 1.0)
    chosen = [int(np.argmin(values[:, 0]))]
    nearest = np.full(len(values), np.inf)
    while len(chosen) < len(values):
        nearest = np.minimum(nearest, ((values - values[chosen[-1]]) ** 2).sum(axis=1))
        nearest[chosen] = -1.0
        chosen.append(int(np.argmax(nearest)))
    return chosen


def _falling(points: Points) -> NDArray[np.float64]:
    """[n, quantities], less is better in each."""
    values = np.array(points, dtype=np.float64)
    values[:, 0] *= -1.0
    return values


def _volume(values: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    values = values[(values < reference).all(axis=1)]
    if not len(values):
        return 0.0
    if len(reference) == 1:
        return float(reference[0] - values.min())
    values = values[np.argsort(values[:, -1], kind="stable")]
    edges = np.append(values[:, -1], reference[-1])
    heights = np.diff(edges)
    return float(
        sum(height * _volume(values[: i + 1, :-1], reference[:-1]) for i, height in enumerate(heights) if height > 0.0)
    )
