"""Regularised (ageing) evolution on DEAP: ask for proposals, tell their scores.

Source: Real, Aggarwal, Huang, Le, Regularized Evolution for Image Classifier Architecture Search, AAAI 2019, Algorithm
1: the parent is the best of a sample of the population, the child joins at the young end, and the oldest leaves,
however good it is. Differences: children are made a fixed number at a time (so that they can be scored in parallel,
with the same result on any number of ranks), there is crossover, mutation is heavy-tailed (`strength`), no genotype is
proposed twice, and a population that has not bettered itself for `patience` candidates gives way to a fresh one: under
a limit the next better network is often four or five decisions away, farther than children of one family get.

The transitions are pure: `ask` and `tell` depend on their arguments alone. The random stream of a generation is seeded
by the search's seed and the generation's number, so that these two numbers are the whole random state, asking twice
gives the same answer, and a search that was stopped anywhere continues as if it had not been.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import numpy as np
from deap import base, tools

from subshot.search.evaluator import Evaluator, Score
from subshot.search.history import EMPTY_DIGEST, Candidate, History, Proposal, chained, scored
from subshot.search.sampling import Sampler
from subshot.supernet.space import Genotype, SearchSpace, cardinality, crossover, enumerate_genotypes

_ENUMERABLE = 100_000
_DRAWS_IN_VAIN = 2_000

Cost = Literal["macs", "params", "activation_elements", "latency_ms"]


@dataclass(frozen=True)
class EvolutionConfig:
    """Settings of one search. `sample`, `children`, `schedule` and `patience` are of regularised evolution alone; a
    generation of NSGA-II is as large as its population, rounded up to a multiple of four."""

    method: Literal["regularised", "nsga2"] = "regularised"  # nsga2: the front of score and `costs`
    costs: tuple[Cost, ...] = ("macs",)  # what nsga2 lowers; latency_ms needs a table
    budget: int = 10_000  # candidates scored in all
    population: int = 100  # candidates alive
    sample: int = 10  # of which a parent is the best
    children: int = 20  # proposals in one generation
    mutations: float = 1.0  # decisions that change in a child, on average
    schedule: Literal["heavy_tailed", "falling"] = "heavy_tailed"  # heavy_tailed: now and then many times as many, see
    # `strength`; falling: NASRec's, from `mutations` of them to 1 in equal stretches of the budget
    crossover: float = 0.5  # probability that a child has two parents
    best: int = 10  # kept in the hall of fame
    controls: int = 3  # random networks of the winner's cost, drawn at the end, to be retrained beside it
    patience: int = 1_000  # candidates without a better one, after which the population starts afresh
    retries: int = 200  # attempts at a legal, unseen child before a fresh draw

    def __post_init__(self) -> None:
        for name in ("budget", "population", "sample", "children", "best", "patience", "retries"):
            if getattr(self, name) < 1:
                raise ValueError(f"evolution: {name} must be at least 1, it is {getattr(self, name)}")
        if not self.costs or len(set(self.costs)) < len(self.costs):
            raise ValueError(f"evolution: costs must name one cost or more, each once; it names {list(self.costs)}")
        if not 0.0 <= self.crossover <= 1.0:
            raise ValueError(f"evolution: crossover is a probability, 0 to 1, it is {self.crossover}")
        if not self.mutations >= 0.0:
            raise ValueError(f"evolution: mutations must not be negative, it is {self.mutations}")
        if self.sample > self.population:
            raise ValueError(
                f"evolution: a sample of {self.sample} cannot be drawn from a population of {self.population}"
            )


def random_search(config: EvolutionConfig) -> EvolutionConfig:
    """The control: as many candidates, all of them fresh draws, because the population is full only at the end."""
    return replace(config, method="regularised", population=config.budget, sample=1, patience=config.budget)


@dataclass(frozen=True)
class State:
    """Where a search stands.

    `population` runs from the oldest to the youngest; `best` from the best down, equal scores in order of evaluation;
    `champion` is the best since the population last started afresh; `evaluated` and `digest` pin the history, which is
    kept beside the state (see `from_json`).
    """

    seed: int
    generation: int = 0
    population: tuple[Candidate, ...] = ()
    best: tuple[Candidate, ...] = ()
    champion: Candidate | None = None
    digest: str = EMPTY_DIGEST
    history: History = field(default_factory=History, compare=False, repr=False)

    @property
    def evaluated(self) -> int:
        return len(self.history)

    def to_json(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "generation": self.generation,
            "evaluated": self.evaluated,
            "digest": self.digest,
            "population": [candidate.index for candidate in self.population],
            "best": [candidate.index for candidate in self.best],
            "champion": None if self.champion is None else self.champion.index,
        }

    @classmethod
    def from_json(cls, record: dict[str, Any], history: Iterable[Candidate]) -> State:
        """The state of `to_json` and the candidates of the run's history, in order.

        Candidates past those that the state has seen are left out: they were written before a stop, and will be asked
        for again. Raises ValueError where the history is not the one that the state was saved with.
        """
        known = History(itertools.islice(history, record["evaluated"]))
        if len(known) < record["evaluated"]:
            raise ValueError(
                f"the state was saved after {record['evaluated']} candidates, but the history holds {len(known)}; "
                "restore the history file that belongs to this state, or start in an empty run folder"
            )
        if chained(EMPTY_DIGEST, known) != record["digest"]:
            raise ValueError(
                "the history is not the one that the state was saved with (its digest differs); restore the history "
                "file that belongs to this state, or start in an empty run folder"
            )
        return cls(
            seed=record["seed"],
            generation=record["generation"],
            population=tuple(known[index] for index in record["population"]),
            best=tuple(known[index] for index in record["best"]),
            champion=None if record["champion"] is None else known[record["champion"]],
            digest=record["digest"],
            history=known,
        )


def init(seed: int) -> State:
    """The state before anything was proposed."""
    return State(seed)


def ask(config: EvolutionConfig, sampler: Sampler, state: State) -> list[Proposal]:
    """The next proposals: legal, canonical, all different, none scored before.

    Fresh draws until the population is full, then children. Empty when the search is over: the budget is spent, or
    there is no unseen legal genotype left; `why_finished` says which.
    """
    wanted = min(config.children, config.budget - state.evaluated)
    missing = config.population - len(state.population)
    if missing > 0:
        wanted = min(wanted, missing)
    if wanted <= 0:
        return []
    rng = stream(state.seed, state.generation)
    proposed: dict[Genotype, Proposal] = {}
    if missing <= 0:
        toolbox = _toolbox(config, sampler, rng)
        for _ in range(wanted):
            child = _child(config, sampler, state, toolbox, rng, proposed)
            if child is None:
                break
            proposed[child.genotype] = child
    for genotype in fresh(sampler, state.history, rng, wanted - len(proposed), exclude=proposed):
        proposed[genotype] = Proposal(genotype)
    return list(proposed.values())


def tell(config: EvolutionConfig, state: State, proposals: Sequence[Proposal], scores: Sequence[Score]) -> State:
    """The state after `proposals` were scored, in the order in which they were asked.

    A candidate without a finite score goes into the history with its reason, and nowhere else.
    """
    candidates, told = recorded(state, proposals, scores)
    feasible = [candidate for candidate in candidates if candidate.score is not None]
    hall = tools.HallOfFame(config.best)
    hall.update([*state.best, *feasible])
    rivals = [*feasible] if state.champion is None else [state.champion, *feasible]
    champion = max(rivals, key=lambda candidate: candidate.fitness, default=None)
    population = (*state.population, *feasible)[-config.population :]
    if champion is not None and state.evaluated + len(candidates) - champion.index > config.patience:
        champion, population = None, ()
    return told(population=population, best=tuple(hall), champion=champion)


def recorded(
    state: State, proposals: Sequence[Proposal], scores: Sequence[Score]
) -> tuple[list[Candidate], Callable[..., State]]:
    """The new candidates, and the next state with them in its history, to be completed with `population` and `best`."""
    if len(proposals) != len(scores):
        raise ValueError(f"{len(proposals)} proposals were asked for, {len(scores)} scores were told")
    candidates = [
        scored(proposal, state.evaluated + i, state.generation, score)
        for i, (proposal, score) in enumerate(zip(proposals, scores, strict=True))
    ]
    return candidates, partial(
        replace,
        state,
        generation=state.generation + 1,
        digest=chained(state.digest, candidates),
        history=state.history.extended(candidates),
    )


def why_finished(config: EvolutionConfig, sampler: Sampler, state: State) -> str:
    """One sentence on why `ask` returned nothing."""
    if state.evaluated >= config.budget:
        return f"the budget of {config.budget:,} candidates is spent"
    return (
        f"{sampler.space.name}: every legal network that could be found was scored, {state.evaluated:,} in all, "
        f"before the budget of {config.budget:,} was spent"
    )


def statistics(state: State) -> dict[str, float]:
    """Mean, spread and extremes of the population's scores, by DEAP's Statistics; empty before the first score."""
    if not state.population:
        return {}
    stats = tools.Statistics(key=lambda candidate: candidate.score)
    for name, function in (("mean", np.mean), ("std", np.std), ("min", np.min), ("max", np.max)):
        stats.register(name, function)
    return {name: float(value) for name, value in stats.compile(state.population).items()}


def stream(seed: int, generation: int) -> random.Random:
    """The random stream of one generation."""
    return random.Random(f"evolution {seed} {generation}")


def strength(space: SearchSpace, rng: random.Random) -> int:
    """By how much a mutation is multiplied: at least x with probability 1/x, at most half the decisions.

    Most children stay close to their parent, and a steady few leave the basin of a local optimum, which under a limit
    takes several decisions at once. Source: the heavy-tailed mutation of Doerr, Le, Makhmara, Nguyen, Fast Genetic
    Algorithms, GECCO 2017, with exponent 2.
    """
    return min(int(1.0 / (1.0 - rng.random())), max(1, len(space.decisions) // 2))


def changes(config: EvolutionConfig, space: SearchSpace, evaluated: int, rng: random.Random) -> float:
    """How many settings of a child are to be drawn anew.

    falling: (total - g) (mutations - 1) // total + 1 in generation g of `total` after the first population; with
    mutations 6 and 240 generations, NASRec's (240 - g) // 48 + 1.
    """
    if config.schedule == "heavy_tailed":
        return config.mutations * strength(space, rng)
    total = max(1, (config.budget - config.population) // config.children)
    generation = max(0, evaluated - config.population) // config.children
    return float((total - generation) * (round(config.mutations) - 1) // total + 1)


def fresh(
    sampler: Sampler, history: History, rng: random.Random, n: int, exclude: Iterable[Genotype] = ()
) -> list[Genotype]:
    """Up to `n` different legal genotypes, neither in the history nor excluded; fewer only when there are no more.

    Drawn from the sampler while that finds new ones. When 2,000 legal draws in a row were all known, a space of at most
    100,000 genotypes is searched in full, and a larger one counts as used up.
    """
    if n <= 0:
        return []
    numbers = np.random.default_rng(rng.getrandbits(128))
    taken = set(exclude)
    found: list[Genotype] = []
    in_vain = 0
    while len(found) < n and in_vain < _DRAWS_IN_VAIN:
        size = n - len(found) if in_vain == 0 else max(n - len(found), 64)
        new = [g for g in dict.fromkeys(sampler.draw(numbers, size)) if g not in taken and not history.has(g)]
        found += new[: n - len(found)]
        taken.update(found)
        in_vain = 0 if new else in_vain + size
    if len(found) < n and cardinality(sampler.space) <= _ENUMERABLE:
        rest = {sampler.space.canonical(genotype) for genotype in enumerate_genotypes(sampler.space)}
        unseen = sorted(g for g in rest if g not in taken and not history.has(g) and sampler.is_legal(g))
        found += rng.sample(unseen, min(len(unseen), n - len(found)))
    return found


def _toolbox(config: EvolutionConfig, sampler: Sampler, rng: random.Random) -> base.Toolbox:
    """DEAP's table of operators: `select` a parent from a sample, `mate` two genotypes, `mutate` one."""
    toolbox = base.Toolbox()
    toolbox.register("sample", rng.sample, k=config.sample)
    toolbox.register("select", tools.selBest, k=1)
    toolbox.register("mate", crossover, sampler.space, rng=rng)
    toolbox.register("mutate", sampler.mutate, rng=rng)
    return toolbox


def _child(
    config: EvolutionConfig,
    sampler: Sampler,
    state: State,
    toolbox: base.Toolbox,
    rng: random.Random,
    proposed: dict[Genotype, Proposal],
) -> Proposal | None:
    """A legal child that was neither scored nor proposed before, or None when `retries` attempts made none."""
    for _ in range(config.retries):
        (first,) = toolbox.select(toolbox.sample(state.population))
        genotype = first.genotype
        parents: tuple[int, ...] = (first.index,)
        if rng.random() < config.crossover:
            (second,) = toolbox.select(toolbox.sample(state.population))
            if second.index != first.index:
                parents, genotype = (first.index, second.index), toolbox.mate(genotype, second.genotype)
        genotype = toolbox.mutate(genotype, changes=changes(config, sampler.space, state.evaluated, rng))
        if genotype not in proposed and not state.history.has(genotype) and sampler.is_legal(genotype):
            return Proposal(genotype, parents)
    return None


def run_to_end(config: EvolutionConfig, sampler: Sampler, state: State, evaluator: Evaluator) -> State:
    """Ask, evaluate, tell until nothing is proposed: the loop without progress, logs or checkpoints."""
    while proposals := ask(config, sampler, state):
        state = tell(config, state, proposals, evaluator.evaluate([proposal.genotype for proposal in proposals]))
    return state
