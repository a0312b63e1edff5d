"""What a search wants and what it may spend: directions, limits, and the check that a limit can be met at all.

Direction and limit belong to the objective, not to the algorithm: evolution, the exact optimum and the random control
all read the same `Constraint`s. A cost is additive over decisions (`Additive`), so the least and the greatest value
that a space reaches are known before anything is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subshot.supernet.space import Additive, Genotype


class ImpossibleLimit(ValueError):
    """No genotype of the space can meet a limit."""


@dataclass(frozen=True)
class Limit:
    """A closed interval for the quantity `name`, in its own unit; None leaves that side open."""

    name: str
    maximum: float | None = None
    minimum: float | None = None

    def __post_init__(self) -> None:
        for side, value in (("maximum", self.maximum), ("minimum", self.minimum)):
            if value is not None and not math.isfinite(value):
                raise ValueError(f"limit {self.name}: the {side} must be a finite number, it is {value}")
        if self.low > self.high:
            raise ImpossibleLimit(
                f"limit {self.name}: the minimum {_number(self.low)} is above the maximum {_number(self.high)}"
            )

    @property
    def low(self) -> float:
        return -math.inf if self.minimum is None else self.minimum

    @property
    def high(self) -> float:
        return math.inf if self.maximum is None else self.maximum

    def why_violated(self, value: float) -> str | None:
        """One sentence on why `value` breaks the limit, or None where it does not. NaN breaks every limit."""
        if value > self.high:
            return f"{self.name} is {_number(value)}, above the maximum {_number(self.high)}"
        if value < self.low:
            return f"{self.name} is {_number(value)}, below the minimum {_number(self.low)}"
        return f"{self.name} is not a number" if math.isnan(value) else None


@dataclass(frozen=True)
class Objective:
    """A quantity by name, the direction in which it is better, and the limit on it, if any."""

    name: str
    maximize: bool
    limit: Limit | None = None


@dataclass(frozen=True)
class Constraint:
    """A limit together with the cost that it bounds.

    Genotypes that build the same network must have the same cost: limits are checked before and after `canonical`.
    """

    cost: Additive
    limit: Limit

    def __post_init__(self) -> None:
        if not all(math.isfinite(value) for row in (*self.cost.table, (self.cost.base,)) for value in row):
            raise ValueError(f"limit {self.limit.name}: its cost table holds a value that is no finite number")

    def require_possible(self) -> None:
        """Raises ImpossibleLimit, with the value that the space does reach, where no genotype meets the limit."""
        least, most = self.cost.minimum(), self.cost.maximum()
        if least > self.limit.high:
            raise ImpossibleLimit(
                f"limit {self.limit.name}: no network of this space has at most {_number(self.limit.high)}; "
                f"the minimum that the space reaches is {_number(least)}, so set the maximum to that or higher"
            )
        if most < self.limit.low:
            raise ImpossibleLimit(
                f"limit {self.limit.name}: no network of this space has at least {_number(self.limit.low)}; "
                f"the maximum that the space reaches is {_number(most)}, so set the minimum to that or lower"
            )


def constraints_of(objectives: Iterable[Objective], costs: Mapping[str, Additive]) -> tuple[Constraint, ...]:
    """The constraints of all objectives that have a limit, each checked to be possible.

    Raises ValueError for a limit on a quantity that has no cost table, ImpossibleLimit for one that nothing meets.
    """
    constraints = []
    for objective in objectives:
        if objective.limit is None:
            continue
        if objective.limit.name not in costs:
            allowed = ", ".join(sorted(costs))
            raise ValueError(f"there is no cost named {objective.limit.name!r} to put a limit on; allowed: {allowed}")
        constraint = Constraint(costs[objective.limit.name], objective.limit)
        constraint.require_possible()
        constraints.append(constraint)
    return tuple(constraints)


def within(constraints: Sequence[Constraint], genotypes: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
    """Which of the genotypes, shape [n, decisions], meet every limit; shape [n]."""
    legal = np.ones(len(genotypes), dtype=np.bool_)
    for constraint in constraints:
        cost = constraint.cost.batch(genotypes)
        legal &= (cost >= constraint.limit.low) & (cost <= constraint.limit.high)
    return legal


def why_illegal(constraints: Iterable[Constraint], genotype: Genotype) -> str | None:
    """One sentence on the first limit that the genotype breaks, or None where it meets them all."""
    for constraint in constraints:
        reason = constraint.limit.why_violated(running_sum(constraint.cost, genotype))
        if reason is not None:
            return reason
    return None


def running_sum(cost: Additive, genotype: Genotype) -> float:
    """The value as `Additive.batch` adds it up, so that one genotype and a batch agree to the last bit at a limit."""
    total = cost.base
    for row, choice in zip(cost.table, genotype, strict=True):
        total += row[choice]
    return total


def _number(value: float) -> str:
    return f"{value:,.10g}"
