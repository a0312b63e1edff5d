"""What a dry run measures of a training-free run: the scoring of a small, a median and a large network."""

from __future__ import annotations

from functools import partial

from subshot.launch.config import TrainingFreeConfig
from subshot.launch.plan import Measured, Scoring, candidates_of, history_bytes
from subshot.launch.plan_timing import Say, peak_mib, timed_scorings
from subshot.launch.training_free.domain import TrainingFreeDomain
from subshot.launch.training_free.scoring import Measurement, read_batches
from subshot.launch.vision.plan import retraining_bytes
from subshot.proxies import PROXIES
from subshot.search.evaluator import FunctionEvaluator, Infeasible, Score, Sharded, TermScore
from subshot.supernet.space import Genotype
from subshot.train.dist import World, gather_objects


def measure(config: TrainingFreeConfig, domain: TrainingFreeDomain, world: World, say: Say) -> Measured:
    """The proxies of a network are timed, without the ranks that join them: those need the whole population first."""
    proxies = tuple(PROXIES[name] for name in config.score.proxies)
    measurement = Measurement(domain.space, proxies, read_batches(config, domain.train, world), config.seed)

    def terms(genotype: Genotype) -> Score:
        found = measurement(genotype)
        values = {name: value for name, value in found.items() if isinstance(value, float)}
        return TermScore(1 / 3, values) if len(values) == len(found) else Infeasible("a proxy is undefined")

    def macs(genotype: Genotype) -> int:
        return domain.cost(genotype).macs

    gather = partial(gather_objects, world=world)
    evaluator = Sharded(FunctionEvaluator(terms), world.rank, world.size, gather, macs)
    candidates = candidates_of(domain, config.seed)
    timed = timed_scorings(evaluator, candidates, macs, world, say)
    population = config.score.population if len(proxies) > 1 else 0
    largest = max(domain.costs(genotype)["params"] for genotype in candidates)
    return Measured(
        None,
        Scoring(population, 2 * config.evolution.budget, timed),
        {"weights of the largest network": 4 * largest / 2**20},
        peak_mib(world),
        {
            "history.jsonl": history_bytes(config, domain, timed.scores),
            **retraining_bytes(config.retrain, domain, candidates),
        },
    )
