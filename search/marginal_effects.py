"""What each choice does to a quantity of scored networks, with intervals: the fitted sum of one effect a decision.

    value(network) = base + sum over factors f of effect[f][level of f] + rest

by least squares. A contrast is the effect of a level minus that of its factor's reference level, the others held. The
rest is what no such sum can say: noise, and choices that work together. Its size may differ from network to network, so
the intervals are of the estimator that allows for that, HC3 of MacKinnon and White (1985, Journal of Econometrics 29):

    var(effects) = A diag(rest^2 / (1 - leverage)^2) A',    A the pseudoinverse of the design

with Student's t of (networks - rank) degrees of freedom. Where the rest is zero the quantity is exactly such a sum,
and the intervals collapse. Factors need not be independent in the sample, as they are not under a limit. A contrast
that the sample does not determine is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

OFF = -1
"""The level of a factor that is switched off in a network, by another one."""
LEAST_NETWORKS = 3
"""A level that fewer networks have is not told."""
SPARE_NETWORKS = 10
"""So many more networks than unknowns are needed: the rest cannot be told from fewer."""
EXACT = 1e-9
"""A rest below this part of the spread of the values is rounding."""


@dataclass(frozen=True)
class Contrast:
    """A level of a factor beside the factor's reference level, in the unit of the values, with its 95 % interval.

    networks: how many of the sample have the level."""

    factor: int
    level: int
    value: float
    low: float
    high: float
    networks: int

    @property
    def is_told(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0.0 or self.high < 0.0


@dataclass(frozen=True)
class Effects:
    """The fit to a sample. explained: the part of the variance that is of the sum, adjusted for the number of unknowns
    (Fisher 1924); at most 1, and near 0 or below where the sum says nothing."""

    contrasts: tuple[Contrast, ...]
    explained: float
    is_exact: bool
    networks: int
    unknowns: int


def unknowns(levels: NDArray[np.int64]) -> int:
    """How many numbers a fit to this sample determines: the rank of its design. levels: [networks, factors]."""
    return int(np.linalg.matrix_rank(_design(levels)[0]))


def marginal_effects(
    levels: NDArray[np.int64], values: ArrayLike, references: Sequence[int], confidence: float = 0.95
) -> Effects:
    """Contrasts of all levels of all factors, in order. levels: [networks, factors], OFF where a factor is switched
    off; values: [networks]; references: one level a factor.

    Raises ValueError where there are too few networks for the number of levels.
    """
    observed = np.asarray(values, dtype=np.float64)
    assert levels.shape == (len(observed), len(references)), "one row a network, one column a factor"
    design, columns = _design(levels)
    left, scales, right = np.linalg.svd(design, full_matrices=False)
    kept = scales > scales[0] * max(design.shape) * np.finfo(float).eps * 10
    left, scales, right = left[:, kept], scales[kept], right[kept]
    rank = len(scales)
    if len(observed) < rank + SPARE_NETWORKS:
        raise ValueError(
            f"{len(observed)} networks cannot tell {rank} unknowns; at least {rank + SPARE_NETWORKS} are needed"
        )
    solve = (right.T / scales) @ left.T
    effects = solve @ observed
    rest = observed - design @ effects
    spread = float(observed.max() - observed.min())
    is_exact = bool(np.abs(rest).max() <= EXACT * max(spread, 1e-300))
    leverage = (left**2).sum(axis=1)
    weighted = solve * (np.zeros_like(rest) if is_exact else rest / np.maximum(1.0 - leverage, 1e-6))
    quantile = float(stats.t.ppf(0.5 + confidence / 2, len(observed) - rank))
    found = []
    for factor, reference in enumerate(references):
        base = columns.get((factor, reference))
        for level in sorted(level for owner, level in columns if owner == factor):
            column = columns[factor, level]
            networks = int((levels[:, factor] == level).sum())
            if level in (OFF, reference) or base is None or networks < LEAST_NETWORKS:
                continue
            direction = np.zeros(design.shape[1])
            direction[column], direction[base] = 1.0, -1.0
            if np.linalg.norm(direction - right.T @ (right @ direction)) > 1e-6:
                continue
            value = float(direction @ effects)
            half = quantile * float(np.linalg.norm(direction @ weighted))
            found.append(Contrast(factor, level, value, value - half, value + half, networks))
    explained = 1.0 if is_exact else _explained(rest, observed, rank)
    return Effects(tuple(found), explained, is_exact, len(observed), rank)


def _explained(rest: NDArray[np.float64], observed: NDArray[np.float64], rank: int) -> float:
    total = float(observed.var()) * len(observed) / (len(observed) - 1)
    return 1.0 - float(rest @ rest) / (len(observed) - rank) / total if total else 0.0


def _design(levels: NDArray[np.int64]) -> tuple[NDArray[np.float64], dict[tuple[int, int], int]]:
    """A column of ones, then one of zeros and ones for each level that occurs; and its column by (factor, level)."""
    columns: dict[tuple[int, int], int] = {}
    parts = [np.ones(len(levels))]
    for factor in range(levels.shape[1]):
        for level in np.unique(levels[:, factor]).tolist():
            columns[factor, level] = len(parts)
            parts.append((levels[:, factor] == level).astype(np.float64))
    return np.stack(parts, axis=1), columns
