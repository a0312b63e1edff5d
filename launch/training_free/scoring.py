"""What scores networks without training: proxies of a fresh initialisation, one alone or the ranks of several.

A network has its ranks among a reference population that is drawn and measured once and kept in score.json; so its
score does not change with what else is searched, and candidates of all generations compare. Above the best of the
population in a proxy, networks tie in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from torch import Tensor

from subshot.data.image_folder import ImageFolder
from subshot.launch.cli import nearest
from subshot.launch.config import ProxyScoreConfig, TrainingFreeConfig
from subshot.launch.domain import Scorer
from subshot.launch.run_log import RunLog
from subshot.launch.scoring import shared_evaluator
from subshot.launch.training_free.space import BenchmarkNetworks, initialised
from subshot.launch.vision.build import proxy_batches
from subshot.proxies import PROXIES, Proxy, ProxyUndefined, measure, plan
from subshot.search.aggregation import AGGREGATIONS, VKDNW_COLUMNS, Ensemble
from subshot.search.evaluator import Infeasible, Score, TermScore, deal
from subshot.search.ranking import kendall
from subshot.supernet.network_space import NetworkSpace
from subshot.supernet.space import Genotype
from subshot.train.dist import World, of_main, together, unless_stopped
from subshot.train.run_dir import RunDir, read_json, write_json

Columns = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Reference:
    """The reference population: a proxy's values by its name, nan where undefined, and the networks' MACs."""

    columns: Columns
    macs: Sequence[float]


MOSTLY_SIZE = 0.7
"""Kendall's tau of a score with MACs, from which a run is told."""


def require_scorable(score: ProxyScoreConfig, train: ImageFolder) -> None:
    """Raises ValueError, before a run folder exists, where the score cannot be given."""
    if not score.proxies:
        raise ValueError("score.proxies is empty; name one proxy or more")
    for name in score.proxies:
        if name not in PROXIES:
            raise ValueError(f"there is no proxy {name!r}; {nearest(name, PROXIES)}")
    if len(set(score.proxies)) < len(score.proxies):
        raise ValueError(f"score.proxies names one twice: {', '.join(score.proxies)}")
    if score.aggregation not in AGGREGATIONS:
        known = nearest(score.aggregation, AGGREGATIONS)
        raise ValueError(f"there is no aggregation {score.aggregation!r}; {known}")
    if score.aggregation == "vkdnw_agg" and len(score.proxies) != len(VKDNW_COLUMNS):
        raise ValueError(f"vkdnw_agg is of {', '.join(VKDNW_COLUMNS)}, in this order; name a proxy for each")
    if score.population < 2 or score.batch_size < 1:
        raise ValueError(
            f"score.population is {score.population} and score.batch_size {score.batch_size}; they must be 2 and 1 "
            "or more"
        )
    batches = max(PROXIES[name].num_batches for name in score.proxies)
    if len(train) < batches * score.batch_size:
        raise ValueError(
            f"the score reads {batches} x {score.batch_size} training images, and there are {len(train)}; lower "
            "--score.batch-size"
        )


@dataclass(frozen=True)
class Measurement:
    """Proxies of a network with initial weights drawn from (seed, genotype), on the same batches for all."""

    space: NetworkSpace
    proxies: tuple[Proxy, ...]
    batches: tuple[tuple[Tensor, Tensor], ...]
    seed: int

    def __call__(self, genotype: Genotype) -> dict[str, float | ProxyUndefined]:
        network = initialised(self.space, genotype, self.seed).to(self.batches[0][0].device)
        return measure(network, self.proxies, self.batches, seed=self.seed)


def make_scorer(
    config: TrainingFreeConfig, networks: BenchmarkNetworks, train: ImageFolder, world: World, run: RunDir, log: RunLog
) -> Scorer:
    """Every process holds the same scorer; candidates are dealt out among them."""
    score = config.score
    proxies = tuple(PROXIES[name] for name in score.proxies)
    for line in plan(proxies).splitlines():
        log.line(f"pass {line}")
    measurement = Measurement(networks.space, proxies, read_batches(config, train, world), config.seed)
    cost = networks.space.cost
    caution = None
    join: Callable[[Mapping[str, float]], float] = partial(single, proxies[0])
    if len(proxies) == 1:
        name = f"{proxies[0].name} of the network at its initialisation, on {score.batch_size} images a batch"
    else:
        pool = reference(measurement, networks, score.population, world, run, log)
        ensemble = Ensemble(score.proxies, score.aggregation)
        join = joined(ensemble, proxies, pool.columns)
        caution = why_only_size(ensemble.scores(signed(proxies, pool.columns)).tolist(), pool.macs)
        name = (
            f"{score.aggregation} of {', '.join(score.proxies)} of the network at its initialisation, on "
            f"{score.batch_size} images a batch, each ranked among {score.population} random networks"
        )

    def function(genotype: Genotype) -> Score:
        found = measurement(genotype)
        terms = {name: value for name, value in found.items() if isinstance(value, float)}
        if len(terms) < len(found):
            reasons = [f"{name}: {value}" for name, value in found.items() if name not in terms]
            return Infeasible("; ".join(reasons))
        return TermScore(join(terms), terms)

    return Scorer(name, shared_evaluator(function, lambda g: cost(g).macs, world, run, log), None, caution)


def read_batches(config: TrainingFreeConfig, train: ImageFolder, world: World) -> tuple[tuple[Tensor, Tensor], ...]:
    """What the proxies of the score read."""
    count = max(PROXIES[name].num_batches for name in config.score.proxies)
    return proxy_batches(config, train, config.score.batch_size, count, world)


def single(proxy: Proxy, terms: Mapping[str, float]) -> float:
    return terms[proxy.name] if proxy.maximize else -terms[proxy.name]


def signed(proxies: Sequence[Proxy], columns: Columns) -> dict[str, list[float]]:
    """The columns with higher always better."""
    return {p.name: [value if p.maximize else -value for value in columns[p.name]] for p in proxies}


def joined(ensemble: Ensemble, proxies: Sequence[Proxy], pool: Columns) -> Callable[[Mapping[str, float]], float]:
    against = ensemble.against(signed(proxies, pool))
    return lambda terms: against({proxy.name: single(proxy, terms) for proxy in proxies})


def reference(
    measurement: Measurement, networks: BenchmarkNetworks, count: int, world: World, run: RunDir, log: RunLog
) -> Reference:
    """Measured and written to score.json, or read from there. Raises ValueError where a proxy is defined for none."""
    names = [proxy.name for proxy in measurement.proxies]
    if of_main(run.score_json.is_file(), world):
        record = read_json(run.score_json)
    else:
        log.line(f"measuring {count} random networks, among which candidates are ranked")
        genotypes = networks.sampler().draw(np.random.default_rng([measurement.seed, count]), count)
        macs = [networks.costs(genotype)["macs"] for genotype in genotypes]
        shares = deal(genotypes, world.size, lambda genotype: networks.costs(genotype)["macs"])
        share = log.beating([genotypes[index] for index in shares[world.rank]], "measuring the population")
        # Every process has looked for score.json before one of them writes it.
        gathered = together(lambda: unless_stopped(share, measurement, world), world)
        dealt = [index for share in shares for index in share]
        found = dict(zip(dealt, [row for part in gathered for row in part], strict=True))
        values = {name: [found[index][name] for index in range(count)] for name in names}
        record = {
            "genotypes": [list(genotype) for genotype in genotypes],
            "macs": macs,
            "columns": {n: [v if isinstance(v, float) else None for v in column] for n, column in values.items()},
            "undefined": {n: sorted({str(v) for v in c if isinstance(v, ProxyUndefined)}) for n, c in values.items()},
        }
        if world.is_main:
            write_json(run.score_json, record)
    for name in names:
        if all(value is None for value in record["columns"][name]):
            raise ValueError(
                f"{name} is defined for none of {count} random networks ({'; '.join(record['undefined'][name])}); "
                "choose other --score.proxies"
            )
    columns = {n: [math.nan if value is None else value for value in record["columns"][n]] for n in names}
    return Reference(columns, record["macs"])


def why_only_size(scores: Sequence[float], macs: Sequence[float]) -> str | None:
    """A caution where the score ranks random networks much as their MACs do."""
    if len(set(macs)) < 2 or len(set(scores)) < 2:
        return None
    tau = kendall(macs, scores)
    if tau < MOSTLY_SIZE:
        return None
    return (
        f"over {len(macs)} random networks this score goes with MACs (Kendall's tau {tau:+.2f}): it may say little "
        "beyond size"
    )
