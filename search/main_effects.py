"""The main effect of every choice: a least-squares fit of an observed quantity by a sum over decisions.

A weight-sharing supernet that is trained one path at a time gives, with every step, the loss of one subnet. Those
losses are noisy, but there are thousands of them and they cost nothing. Fitting

    loss(step) = trend(step / steps) + sum over decisions d of effect[d][path[d]]

by ridge regression, with a quadratic trend for the progress of training, says how much each choice raises or lowers
the loss. The fitted sum is an `Additive`, so it ranks every subnet at once and has an exact optimum under a limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from subshot.supernet.space import Additive, Genotype, SearchSpace, added, standardised

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

    Effects of a decision are centred: they sum to 0 over its choices. The base is the level at the end of the trend.
    Raises ValueError where there are fewer observations than unknowns.
    """
    observed = np.asarray(values, dtype=np.float64)
    settled = num_settled(len(observed))
    if settled < num_unknowns(space):
        raise ValueError(
            f"{settled} settled observations cannot tell {num_unknowns(space)} effects apart; "
            "train the supernet for longer"
        )
    progress = np.linspace(-1.0, 1.0, settled)
    return _fit(space, np.asarray(paths)[-settled:], observed[-settled:], progress)


def reliability(space: SearchSpace, paths: Sequence[Genotype], values: ArrayLike) -> float:
    """How much of the variance of the fitted effects is signal, in [0, 1]: their reliability.

    The even and the odd settled observations are fitted apart; r is the correlation of the two fits over all genotypes
    (uniform, independent choices), and the reliability of a fit to all of them is 2 r / (1 + r) (Spearman and Brown,
    1910), 0 where r is negative.
    """
    observed = np.asarray(values, dtype=np.float64)
    settled = num_settled(len(observed))
    genotypes, observed = np.asarray(paths)[-settled:], observed[-settled:]
    progress = np.linspace(-1.0, 1.0, settled)
    first, second = (
        standardised(_fit(space, genotypes[half::2], observed[half::2], progress[half::2])) for half in (0, 1)
    )
    correlation = sum(
        float(np.mean(np.multiply(one, other))) for one, other in zip(first.table, second.table, strict=True)
    )
    return max(0.0, 2 * correlation / (1 + correlation)) if correlation > 0 else 0.0


def _fit(space: SearchSpace, genotypes: NDArray[Any], observed: NDArray[np.float64], progress: ArrayLike) -> Additive:
    """Ridge regression of the module docstring; progress runs from -1 to 1."""
    progress = np.asarray(progress, dtype=np.float64)
    sizes = [len(decision.choices) for decision in space.decisions]
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


def path_loss_and_activations(path_loss: Additive, reliable: float, activations: Additive) -> Additive:
    """The default score: activations, and the negated path loss weighted by its reliability, both standardised.

    Equal weights for two perfect measurements; a path loss that is all noise counts nothing. Higher is better.
    """
    rows = standardised(negated(path_loss)).table
    weighted = Additive(0.0, tuple(tuple(reliable * value for value in row) for row in rows))
    return added(weighted, standardised(activations))


def negated(additive: Additive) -> Additive:
    """The same quantity with the sign turned: a loss becomes a score."""
    return Additive(-additive.base, tuple(tuple(-value for value in row) for row in additive.table))
