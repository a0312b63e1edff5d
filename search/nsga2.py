"""NSGA-II on DEAP: the networks of which none is both better and cheaper, score up, costs down.

Source: Deb, Pratap, Agarwal, Meyarivan, A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II, IEEE TEC 6(2),
2002. The sorting, the crowding distance and the tournament are DEAP's; `State`, proposals and history are those of
`evolution`, with the same promises: pure transitions, exact resume, no genotype twice, limits always met.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from deap import base, tools

from subshot.search.evaluator import Score
from subshot.search.evolution import State, fresh, recorded, stream
from subshot.search.history import Candidate, Proposal
from subshot.search.sampling import Sampler
from subshot.supernet.space import Genotype, crossover

Costs = Sequence[Callable[[Genotype], float]]
"""What is to fall; an `Additive` is such a function."""


@dataclass(frozen=True)
class FrontConfig:
    """Settings of one search."""

    budget: int = 10_000  # candidates scored in all
    population: int = 100  # survivors, and children of one generation; a multiple of four
    mutations: float = 1.0  # decisions that change in a child, on average
    crossover: float = 0.9  # probability that a child has two parents
    retries: int = 200  # attempts at a legal, unseen child before a fresh draw

    def __post_init__(self) -> None:
        if self.population < 4 or self.population % 4:
            raise ValueError(f"nsga2: population must be a multiple of four, it is {self.population}")
        if self.budget < 1 or self.retries < 1:
            raise ValueError(f"nsga2: budget and retries must be at least 1, they are {self.budget} and {self.retries}")
        if not 0.0 <= self.crossover <= 1.0:
            raise ValueError(f"nsga2: crossover is a probability, 0 to 1, it is {self.crossover}")
        if not self.mutations >= 0.0:
            raise ValueError(f"nsga2: mutations must not be negative, it is {self.mutations}")


class FrontFitness(base.Fitness):
    """(score, cost, cost, ...): the first is maximised, the others are minimised."""

    def __init__(self, values: tuple[float, ...]) -> None:
        self.weights = (1.0, *(-1.0 for _ in values[1:]))
        super().__init__(values)


class Individual:
    """A candidate with the fitness that DEAP sorts by."""

    def __init__(self, candidate: Candidate, costs: Costs) -> None:
        assert candidate.score is not None, "an infeasible candidate has no fitness"
        self.candidate = candidate
        values = (candidate.score, *(cost(candidate.genotype) for cost in costs))
        self.fitness = FrontFitness(values)


@contextmanager
def as_module_random(rng: random.Random) -> Iterator[None]:
    """Inside, the module-level `random`, from which DEAP's operators draw, is `rng`; afterwards it is as it was."""
    outside = random.getstate()
    random.setstate(rng.getstate())
    try:
        yield
    finally:
        rng.setstate(random.getstate())
        random.setstate(outside)


def ask(config: FrontConfig, sampler: Sampler, costs: Costs, state: State) -> list[Proposal]:
    """The next proposals, under the promises of `evolution.ask`: fresh draws first, then a generation of children."""
    wanted = min(config.population, config.budget - state.evaluated)
    if wanted <= 0:
        return []
    rng = stream(state.seed, state.generation)
    proposed: dict[Genotype, Proposal] = {}
    if len(state.population) < config.population:
        wanted = min(wanted, config.population - len(state.population))
    else:
        for first, second in _couples(config, costs, state, rng):
            child = _child(config, sampler, state, first, second, rng, proposed)
            if child is not None and len(proposed) < wanted:
                proposed[child.genotype] = child
    for genotype in fresh(sampler, state.history, rng, wanted - len(proposed), exclude=proposed):
        proposed[genotype] = Proposal(genotype)
    return list(proposed.values())


def tell(
    config: FrontConfig, costs: Costs, state: State, proposals: Sequence[Proposal], scores: Sequence[Score]
) -> State:
    """The state after `proposals` were scored: the survivors, and in `best` their first front, best score first."""
    candidates, told = recorded(state, proposals, scores)
    pool = [Individual(c, costs) for c in (*state.population, *candidates) if c.score is not None]
    survivors = tools.selNSGA2(pool, config.population) if pool else []
    front = tools.sortNondominated(survivors, len(survivors), first_front_only=True)[0] if survivors else []
    ranked = sorted(front, key=lambda individual: (-individual.fitness.values[0], individual.candidate.index))
    return told(
        population=tuple(individual.candidate for individual in survivors),
        best=tuple(individual.candidate for individual in ranked),
    )


def _couples(
    config: FrontConfig, costs: Costs, state: State, rng: random.Random
) -> Iterator[tuple[Candidate, Candidate]]:
    """One couple a child: each of both orders of the winners of DEAP's crowded tournament."""
    ranked = tools.selNSGA2([Individual(candidate, costs) for candidate in state.population], len(state.population))
    with as_module_random(rng):
        winners = tools.selTournamentDCD(ranked, len(ranked))
    for one, other in zip(winners[::2], winners[1::2], strict=True):
        yield one.candidate, other.candidate
        yield other.candidate, one.candidate


def _child(
    config: FrontConfig,
    sampler: Sampler,
    state: State,
    first: Candidate,
    second: Candidate,
    rng: random.Random,
    proposed: dict[Genotype, Proposal],
) -> Proposal | None:
    for _ in range(config.retries):
        genotype = first.genotype
        parents: tuple[int, ...] = (first.index,)
        if first.index != second.index and rng.random() < config.crossover:
            parents, genotype = (first.index, second.index), crossover(sampler.space, genotype, second.genotype, rng)
        genotype = sampler.mutate(genotype, rng, config.mutations)
        if genotype not in proposed and not state.history.has(genotype) and sampler.is_legal(genotype):
            return Proposal(genotype, parents)
    return None
