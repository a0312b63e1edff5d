"""The main effect of every choice: a least-squares fit of an observed quantity by a sum over decisions.

A weight-sharing supernet that is trained one path at a time gives, with every step, the loss of one subnet. Those
losses are noisy, but there are thousands of them and they cost nothing. Fitting

    loss(step) = trend(step / steps) + sum over decisions d of effect[d][path[d]]

by ridge regression, with a quadratic trend for the progress of training, says how much each choice raises or lowers
the loss. The fitted sum is an `Additive`, so it ranks every subnet at once and has an exact optimum under a limit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from subshot.supernet.space import Additive, Genotype, SearchSpace

RIDGE = 1e-3
SETTLED_FROM = 1 / 3
"""Observations before this fraction of the training are left out: subnets of barely trained weights say little."""


def num_settled(observations: int) -> int:
    """How many of the observations count."""
    return observations - int(observations * SETTLED_FROM)


def num_unknowns(space: SearchSpace) -> int:
    """What a fit has to tell apart: the trend's three numbers, and the effects of each decision up to their sum."""
    return 3 + sum(len(decision.choices) - 1 for decision in space.decisions)


def main_effects(space: SearchSpace, paths: Sequence[Genotype], values: ArrayLike) -> Additive:
    """The effects of choices on `values`, one value per path, in the order in which they were observed.

    Effects of a decision are centred: they sum to 0 over its choices, and the base is the level at the end of the
    trend.
    Raises ValueError where there are fewer observations than unknowns.
    """
    observed = np.asarray(values, dtype=np.float64)
    settled = num_settled(len(observed))
    genotypes, observed = np.asarray(paths)[-settled:], observed[-settled:]
    sizes = [len(decision.choices) for decision in space.decisions]
    unknowns = num_unknowns(space)
    if len(observed) < unknowns:
        raise ValueError(
            f"{len(observed)} settled observations cannot tell {unknowns} effects apart; train the supernet for longer"
        )
    progress = np.linspace(-1.0, 1.0, len(observed))
    trend = np.stack([np.ones_like(progress), progress, progress**2], axis=1)
    indicators = [np.eye(size)[genotypes[:, d]] for d, size in enumerate(sizes)]
    design = np.concatenate([trend, *indicators], axis=1)
    penalty = np.diag([0.0] * 3 + [RIDGE * len(observed)] * sum(sizes))
    solution = np.linalg.solve(design.T @ design + penalty, design.T @ observed)
    table, first, base = [], 3, float(solution[:3].sum())
    for size in sizes:
        row = solution[first : first + size]
        table.append(tuple((row - row.mean()).tolist()))
        base += float(row.mean())
        first += size
    return Additive(base, tuple(table))


def negated(additive: Additive) -> Additive:
    """The same quantity with the sign turned: a loss becomes a score."""
    return Additive(-additive.base, tuple(tuple(-value for value in row) for row in additive.table))
