"""Search spaces as data: a space is a tuple of decisions, and everything else is derived from it.

A genotype is a tuple with one choice index per decision. It is hashable (a cache key), JSON-able, of fixed length, and
passed as an argument, never stored as "the active subnet".
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Genotype = tuple[int, ...]


@dataclass(frozen=True)
class Decision:
    """One thing to decide, by name, and what it may be, in the order of the choice indices."""

    name: str
    choices: tuple[str, ...]


class SearchSpace(Protocol):
    """What sampling, variation, cost tables and printing need to know of a space."""

    @property
    def name(self) -> str: ...

    @property
    def decisions(self) -> tuple[Decision, ...]: ...

    def canonical(self, genotype: Genotype) -> Genotype:
        """The representative of all genotypes that build the same network; idempotent."""
        ...

    def why_invalid(self, genotype: Genotype) -> str | None:
        """One sentence on why the genotype is not of this space, or None where it is."""
        ...

    def decode(self, genotype: Genotype) -> Any:
        """The frozen description of the network that a builder reads."""
        ...


@dataclass(frozen=True)
class Additive:
    """A quantity that is a sum over decisions: base + sum over d of table[d][genotype[d]].

    MACs, parameters and activations of a chain are of this form, and so are the additive indicators; sampling under a
    limit and the exact optimum rest on it.
    """

    base: float
    table: tuple[tuple[float, ...], ...]

    def __call__(self, genotype: Genotype) -> float:
        total = self.base
        for row, choice in zip(self.table, genotype, strict=True):
            total += row[choice]
        return total

    def batch(self, genotypes: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
        """Values, shape [n], of genotypes, shape [n, decisions]."""
        total = np.full(len(genotypes), self.base, dtype=np.float64)
        for column, row in enumerate(self.table):
            total += np.asarray(row, dtype=np.float64)[genotypes[:, column]]
        return total

    def minimum(self) -> float:
        return self.base + sum(min(row) for row in self.table)

    def maximum(self) -> float:
        return self.base + sum(max(row) for row in self.table)


def standardised(additive: Additive) -> Additive:
    """The same order, with mean 0 and variance 1 over genotypes of uniform, independent choices.

    The variance of the sum is the sum of the decisions' variances. Raises ValueError where all genotypes are equal.
    """
    rows = [np.asarray(row, dtype=np.float64) for row in additive.table]
    deviation = float(np.sqrt(sum(row.var() for row in rows)))
    if deviation == 0.0:
        raise ValueError("a quantity that is the same for all genotypes has no scale to be standardised to")
    return Additive(0.0, tuple(tuple(((row - row.mean()) / deviation).tolist()) for row in rows))


def added(first: Additive, second: Additive) -> Additive:
    """The sum of two quantities over the same decisions."""
    table = [
        tuple(a + b for a, b in zip(one, other, strict=True))
        for one, other in zip(first.table, second.table, strict=True)
    ]
    return Additive(first.base + second.base, tuple(table))


def why_not_of(space: SearchSpace, genotype: Genotype) -> str | None:
    """The check that every space begins with: the length, and every index within its decision's choices."""
    decisions = space.decisions
    if len(genotype) != len(decisions):
        return f"{space.name}: a genotype has {len(decisions)} indices, one per decision; this one has {len(genotype)}"
    for decision, choice in zip(decisions, genotype, strict=True):
        if not 0 <= choice < len(decision.choices):
            allowed = ", ".join(f"{index}={name}" for index, name in enumerate(decision.choices))
            return f"{space.name}: decision {decision.name} has no choice {choice}; allowed: {allowed}"
    return None


def validated(space: SearchSpace, genotype: Genotype) -> Genotype:
    """The canonical form of a legal genotype. Raises ValueError with the reason of an illegal one."""
    reason = space.why_invalid(genotype)
    if reason is not None:
        raise ValueError(reason)
    return space.canonical(genotype)


def cardinality(space: SearchSpace) -> int:
    """The number of genotypes, before equal networks are merged."""
    product = 1
    for decision in space.decisions:
        product *= len(decision.choices)
    return product


def enumerate_genotypes(space: SearchSpace) -> Iterator[Genotype]:
    """Every genotype in lexicographic order, canonical or not."""
    return itertools.product(*(range(len(decision.choices)) for decision in space.decisions))


def sample(space: SearchSpace, rng: random.Random) -> Genotype:
    """A canonical genotype whose indices were drawn uniformly and independently."""
    return space.canonical(tuple(rng.randrange(len(decision.choices)) for decision in space.decisions))


def mutate(space: SearchSpace, genotype: Genotype, rng: random.Random, rate: float) -> Genotype:
    """Each index changes with probability `rate`, to another choice of its decision. Canonical; rate 0 is the
    identity."""

    def mutated(decision: Decision, choice: int) -> int:
        if len(decision.choices) == 1 or rng.random() >= rate:
            return choice
        other = rng.randrange(len(decision.choices) - 1)
        return other + (other >= choice)

    return space.canonical(tuple(mutated(d, choice) for d, choice in zip(space.decisions, genotype, strict=True)))


def crossover(space: SearchSpace, first: Genotype, second: Genotype, rng: random.Random) -> Genotype:
    """Uniform crossover: each index from either parent with probability one half. Canonical."""
    return space.canonical(tuple(rng.choice(pair) for pair in zip(first, second, strict=True)))


def named_choices(space: SearchSpace, genotype: Genotype) -> dict[str, str]:
    """Decision name to choice name: the form that is written to disk, because it survives a reordering of choices."""
    return {d.name: d.choices[choice] for d, choice in zip(space.decisions, genotype, strict=True)}


def from_named_choices(space: SearchSpace, choices: dict[str, str]) -> Genotype:
    """The inverse of `named_choices`. Raises ValueError for a decision that is missing, unknown or has no such
    choice."""
    names = {decision.name for decision in space.decisions}
    if set(choices) != names:
        missing, unknown = sorted(names - set(choices)), sorted(set(choices) - names)
        raise ValueError(f"{space.name}: the named choices lack {missing} and have unknown {unknown}")
    for decision in space.decisions:
        if choices[decision.name] not in decision.choices:
            allowed = ", ".join(decision.choices)
            raise ValueError(
                f"{space.name}: decision {decision.name} cannot be {choices[decision.name]!r}; allowed: {allowed}"
            )
    return validated(space, tuple(d.choices.index(choices[d.name]) for d in space.decisions))


def describe(space: SearchSpace, genotype: Genotype) -> str:
    """The human string, one word per decision in order, as in 'k3e6 identity k5e3'."""
    return " ".join(d.choices[choice] for d, choice in zip(space.decisions, genotype, strict=True))


def network_hash(space: SearchSpace, genotype: Genotype) -> str:
    """16 hexadecimal digits of the space's name and the network's choices."""
    return hashlib.sha256(f"{space.name} {describe(space, genotype)}".encode()).hexdigest()[:16]
