"""What a search by NSGA-II found: the front of all that was scored, beside what random search has of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from subshot.search.evolution import State
from subshot.search.front import front_of, hypervolume, reference_of, spread
from subshot.supernet.space import Genotype

CostsOf = Callable[[Genotype], Mapping[str, float]]


@dataclass(frozen=True)
class Found:
    """A network, its score, and the method that found it."""

    method: str
    genotype: Genotype
    score: float


@dataclass(frozen=True)
class Front:
    """networks: none has a better score and no higher cost, the best score first. shares: of the front's hypervolume,
    by method, what the method's own candidates cover. chosen: for "best" and for each method, its front, in such an
    order that the first few lie far apart. line: the same in words."""

    networks: list[Found]
    shares: dict[str, float]
    chosen: dict[str, list[Found]]
    line: str


def front_summary(
    names: Sequence[str], states: Mapping[str, State], exact: Sequence[Found], costs_of: CostsOf
) -> Front:
    """Of every candidate that has a score, and of the exact optimum where it is known; names: of the costs.

    The hypervolume reaches a tenth of the front's range beyond it. Of equal networks the one stays that the earlier
    method found.
    """
    by_method = {
        name: [Found(name, c.genotype, c.score) for c in state.history if c.score is not None]
        for name, state in states.items()
    }
    together = [found for ones in by_method.values() for found in ones] + list(exact)
    points = {"best": together, **by_method}
    values = {name: _points(ones, names, costs_of) for name, ones in points.items()}
    fronts = {name: front_of(rows) for name, rows in values.items()}
    reference = reference_of([values["best"][i] for i in fronts["best"]])
    volumes = {name: hypervolume([values[name][i] for i in front], reference) for name, front in fronts.items()}
    chosen = {}
    for name, front in fronts.items():
        chosen[name] = [points[name][front[i]] for i in spread([values[name][i] for i in front])]
    whole = volumes.pop("best")
    shares = {name: volume / whole if whole else 1.0 for name, volume in volumes.items()}
    networks = [points["best"][i] for i in fronts["best"]]
    covered = ", ".join(f"{name} covers {100 * share:.2f} %" for name, share in shares.items())
    line = f"front of score and {' and '.join(names)}: {len(networks)} networks; of its hypervolume {covered}"
    return Front(networks, shares, chosen, line)


def _points(found: Sequence[Found], names: Sequence[str], costs_of: CostsOf) -> list[tuple[float, ...]]:
    rows = []
    for one in found:
        costs = costs_of(one.genotype)
        rows.append((one.score, *(costs[name] for name in names)))
    return rows
