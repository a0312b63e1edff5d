"""Additive costs as whole steps on a line: what the legal sampler and the exact optimum share.

Every cost of a decision is written as the decision's cheapest one plus a number of steps. Where all differences are
whole multiples of one unit (4,704 MACs in the MobileNetV2 space at 224 pixels), that unit makes the steps exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from subshot.supernet.space import Additive

_EXACT_INTEGERS = 2.0**53


@dataclass(frozen=True)
class Lattice:
    """floor((cost - cheapest) / unit) per decision and choice; `exact` where nothing was rounded away."""

    origin: float  # the cheapest genotype's cost
    unit: float
    steps: tuple[NDArray[np.intp], ...]  # one [choices] per decision, each with minimum 0
    exact: bool

    @property
    def span(self) -> int:
        """The steps of the dearest genotype."""
        return sum(int(row.max()) for row in self.steps)

    def window(self, low: float, high: float) -> tuple[int, int]:
        """The least and greatest step sum of a genotype whose cost is in [low, high], clipped to 0..span.

        A superset where steps were rounded: a step sum lies at most one step per decision below the true one.
        """
        first, last = 0, self.span
        if self.exact:  # whole numbers: divided without rounding
            origin, unit = int(self.origin), int(self.unit)
            if math.isfinite(low):
                first = -((origin - math.ceil(low)) // unit)
            if math.isfinite(high):
                last = (math.floor(high) - origin) // unit
        else:
            if math.isfinite(low):
                first = math.floor((low - self.origin) / self.unit) - len(self.steps)
            if math.isfinite(high):
                last = math.ceil((high - self.origin) / self.unit)
        return max(first, 0), min(last, self.span)


def exact_lattice(cost: Additive) -> Lattice | None:
    """The lattice of the greatest common divisor, or None where a cost is no whole number or beyond 2^53."""
    values = [cost.base, *(value for row in cost.table for value in row)]
    if sum(abs(value) for value in values) >= _EXACT_INTEGERS or any(value != math.floor(value) for value in values):
        return None
    rises = [[int(value) - int(min(row)) for value in row] for row in cost.table]
    unit = math.gcd(*(rise for row in rises for rise in row)) or 1
    steps = tuple(np.array([rise // unit for rise in row], dtype=np.intp) for row in rises)
    return Lattice(cost.minimum(), float(unit), steps, exact=True)


def rounded_lattice(cost: Additive, bins: int) -> Lattice:
    """A lattice of at most `bins` steps, every cost rounded down."""
    span = cost.maximum() - cost.minimum()
    unit = span / bins if span > 0.0 else 1.0
    rises: Sequence[NDArray[np.float64]] = [np.asarray(row, dtype=np.float64) - min(row) for row in cost.table]
    return Lattice(cost.minimum(), unit, tuple(np.floor(rise / unit).astype(np.intp) for rise in rises), exact=False)
