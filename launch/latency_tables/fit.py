"""What a latency table is worth: interpolation between measured shapes, calibration on whole networks, errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from subshot.search.ranking import kendall
from subshot.supernet.space import Additive

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Line:
    """ms = base + factor x, neither below 0."""

    base: float
    factor: float

    def __call__(self, x: Array) -> Array:
        return self.base + self.factor * x


@dataclass(frozen=True)
class Errors:
    """Of predicted latencies on whole networks. The percentages are mean absolute errors over the second half of the
    networks, which nothing was fitted on; Kendall's tau is over all of them, since no fit changes an order.

    sum: base and operations as they were measured. calibrated: a line through the sum of the operations. macs: a line
    through the MACs alone. Both lines are fitted on the first half.
    """

    sum_percent: float
    calibrated_percent: float
    macs_percent: float
    sum_tau: float
    macs_tau: float


def fitted_line(x: Array, ms: Array) -> Line:
    """By least squares under both signs."""
    (base, factor), _ = nnls(np.column_stack([np.ones_like(x), x]), ms)
    return Line(float(base), float(factor))


def percent(predicted: Array, ms: Array) -> float:
    """Mean absolute error, per cent of the measured, over those that were not measured as 0; 0 where none is left."""
    known = ms > 0.0
    return float(100.0 * np.mean(np.abs(predicted[known] / ms[known] - 1.0))) if known.any() else 0.0


def judged(base_ms: float, operations_ms: Array, macs: Array, ms: Array, fitted: Mask) -> tuple[Line, Errors]:
    """The calibration, and the errors with it and without. All arrays [networks]; fitted: the first half."""
    line, by_macs, held = fitted_line(operations_ms[fitted], ms[fitted]), fitted_line(macs[fitted], ms[fitted]), ~fitted
    return line, Errors(
        percent(base_ms + operations_ms[held], ms[held]),
        percent(line(operations_ms[held]), ms[held]),
        percent(by_macs(macs[held]), ms[held]),
        kendall((base_ms + operations_ms).tolist(), ms.tolist()),
        kendall(macs.tolist(), ms.tolist()),
    )


def calibrated(latency: Additive, line: Line) -> Additive:
    """The table whose sum is the line."""
    return Additive(line.base, tuple(tuple(line.factor * value for value in row) for row in latency.table))


def interpolated(macs: float, known: Sequence[tuple[float, float]]) -> float:
    """Milliseconds at so many MACs, linear in both logarithms between the neighbours among `known`, pairs of them.
    None (a pooling has none) counts as one, and 0 ms as a picosecond."""
    at, ms = np.array(sorted(known)).T
    places = np.log(np.maximum(at, 1.0))
    return float(np.exp(np.interp(np.log(max(macs, 1.0)), places, np.log(np.maximum(ms, 1e-9)))))


def coarse(count: int, every: int) -> list[int]:
    """Which of `count` shapes, in order of MACs, are measured: the first, each `every`-th after it, and the last."""
    return sorted({*range(0, count, every), count - 1}) if count else []
