"""The search that a configuration asks for, as the two functions that a run needs: what to score next, and where the
search stands once it was."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

from subshot.search import nsga2
from subshot.search.evaluator import Score
from subshot.search.evolution import EvolutionConfig, State, ask, tell
from subshot.search.history import Proposal
from subshot.search.sampling import Sampler
from subshot.supernet.space import Genotype


@dataclass(frozen=True)
class Method:
    """ask: the next proposals, none when the search is over. tell: the state after they were scored. Both are pure."""

    config: EvolutionConfig
    sampler: Sampler
    ask: Callable[[State], list[Proposal]]
    tell: Callable[[State, Sequence[Proposal], Sequence[Score]], State]


def method_of(config: EvolutionConfig, sampler: Sampler, costs_of: Callable[[Genotype], Mapping[str, float]]) -> Method:
    """costs_of: the costs of a genotype by name, of which NSGA-II lowers `config.costs`."""
    if config.method == "regularised":
        return Method(config, sampler, partial(ask, config, sampler), partial(tell, config))
    front = nsga2.FrontConfig(
        budget=config.budget,
        population=-(-config.population // 4) * 4,
        mutations=config.mutations,
        crossover=config.crossover,
        retries=config.retries,
    )

    known = lru_cache(maxsize=1 << 16)(costs_of)

    def cost(name: str, genotype: Genotype) -> float:
        return known(genotype)[name]

    costs = [partial(cost, name) for name in config.costs]
    return Method(config, sampler, partial(nsga2.ask, front, sampler, costs), partial(nsga2.tell, front, costs))


def method_name(config: EvolutionConfig) -> str:
    """What its candidates are filed under in a run's history."""
    return "nsga2" if config.method == "nsga2" else "evolution"


def described(config: EvolutionConfig) -> str:
    """The search in words."""
    if config.method == "regularised":
        return "evolution"
    return f"NSGA-II (score up, {' and '.join(config.costs)} down)"
