"""The exact best genotype of an additive score under limits on additive costs: the multiple-choice knapsack.

One choice per decision, value and weights per choice: the oracle against which every search on an additive score is
judged. Two methods, both exact, chosen by what the costs are:

lattice   One limit, costs that are whole multiples of a common unit. Dynamic programming over the decisions and over
          every reachable step sum (Kellerer, Pferschy, Pisinger: Knapsack Problems, 2004, section 11.5).
pareto    Any costs, any number of limits. Partial genotypes are extended one decision at a time; one is dropped when it
          cannot meet the limits any more, when another costs no more and scores no less (one-sided limits: same work
          for less), or when its Lagrangian bound

              score + sum_j u_j (limit_j - cost_j) + sum over open decisions max_c (score_c - sum_j u_j cost_jc)

          is below a genotype already known. Any u >= 0 gives a valid bound; the duals of the linear relaxation give a
          tight one. The known genotype comes from the same pass restricted to the most promising few (a beam).

Equal scores: the lowest cost under the first limit wins, then the method's fixed order of choices, so that the answer
is always the same one. The optimum is over genotypes as the decisions count them; validity beyond the choices is not
known here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from subshot.search.lattice import Lattice, exact_lattice
from subshot.search.objectives import Constraint, ImpossibleLimit, running_sum, why_illegal
from subshot.supernet.space import Additive, Genotype

_LATTICE_CELLS = 50_000_000  # decisions x step sums: about a second, 50 MB of choices
_BEAM = 2_000
_STATES = 2_000_000


@dataclass(frozen=True)
class Optimum:
    """The best legal genotype, its score, its costs by limit name, and how it was found."""

    genotype: Genotype
    score: float
    costs: dict[str, float]
    method: Literal["lattice", "pareto"]


def optimum(
    score: Additive, constraints: Sequence[Constraint] = (), method: Literal["auto", "lattice", "pareto"] = "auto"
) -> Optimum:
    """The genotype of the highest score that meets every constraint; exact up to the rounding of a float64 sum.

    Raises ImpossibleLimit where no genotype meets the limits, and ValueError where the problem is too large for both
    methods or the asked one does not apply.
    """
    shape = [len(row) for row in score.table]
    if not all(math.isfinite(value) for row in score.table for value in row):
        raise ValueError("the exact optimum needs finite scores; this table holds an infinite or undefined one")
    for constraint in constraints:
        if [len(row) for row in constraint.cost.table] != shape:
            raise ValueError(f"limit {constraint.limit.name}: its cost table has not the decisions of the score")
        constraint.require_possible()
    lattice = exact_lattice(constraints[0].cost) if len(constraints) == 1 else None
    fits = lattice is not None and (lattice.span + 1) * len(shape) <= _LATTICE_CELLS
    if method == "lattice" and not fits:
        raise ValueError(
            "the lattice method needs one limit on whole-number costs of not too fine a unit; use 'pareto'"
        )
    if fits and method != "pareto":
        assert lattice is not None
        genotype = _on_lattice(score, constraints[0], lattice)
        used: Literal["lattice", "pareto"] = "lattice"
    else:
        genotype = _by_pareto(score, constraints)
        used = "pareto"
    assert why_illegal(constraints, genotype) is None
    costs = {constraint.limit.name: running_sum(constraint.cost, genotype) for constraint in constraints}
    return Optimum(genotype, running_sum(score, genotype), costs, used)


def _on_lattice(score: Additive, constraint: Constraint, lattice: Lattice) -> Genotype:
    first, last = lattice.window(constraint.limit.low, constraint.limit.high)
    best = np.full(last + 1, -np.inf)
    best[0] = score.base
    taken = np.zeros((len(score.table), last + 1), dtype=np.int16)
    candidate = np.empty(last + 1)
    reach = 0
    for d, (values, steps) in enumerate(zip(score.table, lattice.steps, strict=True)):
        longer = np.full(last + 1, -np.inf)
        for c, (value, step) in enumerate(zip(values, steps.tolist(), strict=True)):
            end = min(reach + step, last) + 1
            if step >= end:
                continue
            here = candidate[: end - step]
            np.add(best[: end - step], value, out=here)
            better = here > longer[step:end]
            np.copyto(longer[step:end], here, where=better)
            np.copyto(taken[d, step:end], c, where=better)
        best = longer
        reach = min(reach + int(steps.max()), last)
    if first > last or best[first:].max() == -np.inf:
        raise ImpossibleLimit(
            f"limit {constraint.limit.name}: no network of this space lies between {constraint.limit.low:,.10g} "
            f"and {constraint.limit.high:,.10g}"
        )
    at = first + int(np.argmax(best[first:]))
    genotype: list[int] = []
    for d in reversed(range(len(score.table))):
        genotype.append(int(taken[d, at]))
        at -= int(lattice.steps[d][genotype[-1]])
    return tuple(reversed(genotype))


@dataclass(frozen=True)
class _Rows:
    """The limits as rows of weights <= bound; a minimum is a row of negated costs."""

    base: NDArray[np.float64]  # [rows]
    weights: tuple[NDArray[np.float64], ...]  # one [choices, rows] per decision
    bound: NDArray[np.float64]  # [rows]
    one_sided: bool  # no cost has both a minimum and a maximum

    @classmethod
    def of(cls, constraints: Sequence[Constraint], decisions: int) -> _Rows:
        sides = [(c.cost, 1.0, c.limit.high) for c in constraints if math.isfinite(c.limit.high)]
        sides += [(c.cost, -1.0, -c.limit.low) for c in constraints if math.isfinite(c.limit.low)]
        weights = [
            np.array([[sign * w for w in cost.table[d]] for cost, sign, _ in sides], dtype=np.float64).T
            for d in range(decisions)
        ]
        return cls(
            np.array([sign * cost.base for cost, sign, _ in sides], dtype=np.float64),
            tuple(weights),
            np.array([bound for *_, bound in sides], dtype=np.float64),
            one_sided=all(math.isinf(c.limit.high) or math.isinf(c.limit.low) for c in constraints),
        )


def _by_pareto(score: Additive, constraints: Sequence[Constraint]) -> Genotype:
    values = [np.asarray(row, dtype=np.float64) for row in score.table]
    rows = _Rows.of(constraints, len(values))
    if len(rows.bound) == 0:
        return tuple(int(np.argmax(row)) for row in values)
    duals = _duals(values, rows, constraints)
    known = _pass(values, score.base, rows, duals, -math.inf, beam=_BEAM)
    floor = -math.inf if known is None else running_sum(score, known)
    best = _pass(values, score.base, rows, duals, floor, beam=None)
    if best is None:
        raise ImpossibleLimit(f"no network of this space meets all limits together: {_names(constraints)}")
    return best


def _duals(values: list[NDArray[np.float64]], rows: _Rows, constraints: Sequence[Constraint]) -> NDArray[np.float64]:
    """Multipliers [rows] >= 0 of the limits in the linear relaxation, where shares of choices may be mixed."""
    sizes = [len(row) for row in values]
    one_each = np.repeat(np.eye(len(sizes)), sizes, axis=1)
    weights = np.concatenate(rows.weights).T
    scale = np.maximum(np.abs(weights).max(axis=1), 1e-300)
    relaxed = linprog(
        -np.concatenate(values),
        A_ub=weights / scale[:, None],
        b_ub=(rows.bound - rows.base) / scale,
        A_eq=one_each,
        b_eq=np.ones(len(sizes)),
        bounds=(0.0, 1.0),
        method="highs",
    )
    if relaxed.status == 2:
        raise ImpossibleLimit(f"no network of this space meets all limits together: {_names(constraints)}")
    if relaxed.status != 0:
        return np.zeros(len(rows.bound))
    return np.maximum(-np.asarray(relaxed.ineqlin.marginals, dtype=np.float64), 0.0) / scale


def _pass(
    values: list[NDArray[np.float64]],
    base: float,
    rows: _Rows,
    duals: NDArray[np.float64],
    floor: float,
    beam: int | None,
) -> Genotype | None:
    """One sweep over the decisions; the best complete genotype that was not dropped, or None."""
    decisions = len(values)
    net = [value - weight @ duals for value, weight in zip(values, rows.weights, strict=True)]
    open_bound = np.append(np.cumsum([row.max() for row in reversed(net)])[::-1], 0.0)
    least = np.cumsum([weight.min(axis=0) for weight in reversed(rows.weights)], axis=0)[::-1]
    open_least = np.concatenate([least, np.zeros((1, len(rows.bound)))])
    slack = 1e-9 * (np.abs(rows.bound) + np.abs(rows.base) + sum(np.abs(w).max(axis=0) for w in rows.weights))
    tolerance = 1e-9 * (abs(base) + sum(float(np.abs(row).max()) for row in values) + 1e-300)
    points, costs = np.array([base]), rows.base[None, :]
    parents: list[NDArray[np.intp]] = []
    choices: list[NDArray[np.intp]] = []
    for d in range(decisions):
        count = len(values[d])
        if len(points) * count > 8 * _STATES:
            raise ValueError(_too_large(len(points) * count))
        points = (points[:, None] + values[d]).ravel()
        costs = (costs[:, None, :] + rows.weights[d]).reshape(-1, len(rows.bound))
        margin = slack if d + 1 < decisions else 0.0  # the finished sum is compared as it stands
        bound = points + (rows.bound - costs) @ duals + open_bound[d + 1]
        kept = np.flatnonzero(
            np.all(costs + open_least[d + 1] <= rows.bound + margin, axis=1) & (bound >= floor - tolerance)
        )
        if beam is not None and len(kept) > beam:
            kept = np.sort(kept[np.argsort(-bound[kept], kind="stable")[:beam]])
        else:
            kept = kept[_undominated(points[kept], costs[kept], rows.one_sided)]
        if len(kept) > _STATES:
            raise ValueError(_too_large(len(kept)))
        points, costs = points[kept], costs[kept]
        parents.append(kept // count)
        choices.append(kept % count)
    if len(points) == 0:
        return None
    at = int(np.lexsort((costs[:, 0], -points))[0])
    genotype: list[int] = []
    for parent, choice in zip(reversed(parents), reversed(choices), strict=True):
        genotype.append(int(choice[at]))
        at = int(parent[at])
    return tuple(reversed(genotype))


def _undominated(points: NDArray[np.float64], costs: NDArray[np.float64], one_sided: bool) -> NDArray[np.intp]:
    """Indices, ascending, without partial genotypes that another one makes needless.

    With a single one-sided limit: every one that costs no less and scores no more than another. Else only those with
    exactly the costs of another.
    """
    order = np.lexsort((-points, *costs.T[::-1]))
    if costs.shape[1] == 1 and one_sided:
        sorted_points = points[order]
        before = np.concatenate([[-np.inf], np.maximum.accumulate(sorted_points)[:-1]])
        return np.sort(order[sorted_points > before])
    sorted_costs = costs[order]
    first = np.ones(len(order), dtype=np.bool_)
    first[1:] = np.any(sorted_costs[1:] != sorted_costs[:-1], axis=1)
    return np.sort(order[first])


def _names(constraints: Sequence[Constraint]) -> str:
    return ", ".join(f"{c.limit.name} in [{c.limit.low:,.10g}, {c.limit.high:,.10g}]" for c in constraints)


def _too_large(states: int) -> str:
    return (
        f"the exact optimum would keep {states:,} partial genotypes, more than it may; give fewer or one-sided limits, "
        "or whole-number costs with one limit"
    )
