"""What scores subnets in a CTR run: SiGeo, ZiCo, the public code's SiGeo, or NASRec's one-shot log loss.

Tables are frozen while subnets are scored, so the batches and their embeddings are made once and every candidate is
measured on the same ones.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from subshot.data.batch import ClickBatch
from subshot.data.clicks import ClickEvalLoader, first_batches
from subshot.launch.clicks.config import ClickConfig, ClickScoreConfig
from subshot.launch.clicks.data import ClickData
from subshot.launch.domain import Scorer
from subshot.launch.run_log import RunLog
from subshot.launch.scoring import shared_evaluator
from subshot.proxies.base import Probe, ProxyUndefined
from subshot.proxies.sigeo import SigeoMoments, SigeoTerms, SigeoWeights, combine, moments_of, sigeo_terms
from subshot.proxies.sigeo_reference import reference_terms
from subshot.search.evaluator import Infeasible, Score, TermScore
from subshot.search.ranking import kendall
from subshot.search.sampling import Sampler
from subshot.supernet.base import Bound
from subshot.supernet.nasrec_network import Inputs, NasrecNetwork
from subshot.supernet.nasrec_supernet import NasrecSupernet
from subshot.supernet.space import Genotype
from subshot.train.dist import World, together, unless_stopped
from subshot.train.run_dir import RunDir, write_json
from subshot.train.tables import Tables

MOSTLY_A_COUNT = 0.5
"""Kendall's tau of a score with the number of modules, from which a run is told."""

Embedded = tuple[Inputs, Tensor]
"""((dense, embedded categories), labels) of one batch."""


def batches_needed(score: ClickScoreConfig) -> int:
    """Training batches that the score reads."""
    return score.tune_batches if score.kind == "one_shot" else score.batches


def require_batches(config: ClickConfig, data: ClickData) -> None:
    """Raises ValueError, before the warm-up, where the training rows hold fewer batches than the score reads."""
    there = len(data.split("train")) // config.batches.batch_size
    if config.score.kind != "one_shot" and config.score.batches < 2:
        raise ValueError(f"score.batches is {config.score.batches}; gradients must vary over 2 batches or more")
    if there < batches_needed(config.score):
        raise ValueError(
            f"{config.score.kind} reads {batches_needed(config.score)} batches of {config.batches.batch_size} "
            f"rows, the training rows hold {there}: lower --batches.batch-size or "
            f"--score.{'tune-batches' if config.score.kind == 'one_shot' else 'batches'}"
        )


def make_scorer(
    config: ClickConfig,
    supernet: NasrecSupernet,
    tables: Tables,
    data: ClickData,
    sampler: Sampler,
    world: World,
    run: RunDir,
    log: RunLog,
) -> Scorer:
    """Every process holds the same scorer; candidates are dealt out among them."""
    score = config.score
    train = [
        embedded(batch, tables, world.device)
        for batch in first_batches(
            data.split("train"),
            count=batches_needed(score),
            batch_size=config.batches.batch_size,
            seed=config.seed,
            max_rows_per_table=config.tables.max_rows,
        )
    ]
    probe = Probe(tuple(train[: score.batches]), F.binary_cross_entropy_with_logits, config.seed)
    function: Callable[[Genotype], Score]
    caution = None
    if score.kind == "one_shot":
        size, cap = config.batches.eval_batch_size, config.tables.max_rows
        loader = ClickEvalLoader(data.split("val"), batch_size=size, max_rows_per_table=cap)
        held = [
            embedded(batch, tables, world.device) for batch in islice(loader, score.validation_batches or len(loader))
        ]
        function = OneShotLogLoss(supernet, train, held, score)
        name = f"validation log loss, negated, after {score.tune_steps} steps of the last layer"
    elif score.kind == "sigeo_reference":
        function = Reference(
            supernet, probe, SigeoWeights(score.zico_weight, score.fisher_rao_weight, score.loss_weight)
        )
        name = f"SiGeo as the public code computes it, on {score.batches} batches"
    else:
        log.line(f"measuring {score.population} random networks, over which the terms are standardised")
        population = measured_population(supernet, probe, sampler, score.population, config.seed, world, log)
        moments = moments_of(population)
        if world.is_main and not run.score_json.is_file():
            write_json(run.score_json, asdict(moments))
        only_zico = SigeoWeights(zico=1.0, fisher_rao=0.0, loss=0.0)
        all_terms = SigeoWeights(score.zico_weight, score.fisher_rao_weight, score.loss_weight)
        weights = only_zico if score.kind == "zico" else all_terms
        function = Sigeo(supernet, probe, moments, weights)
        caution = why_only_a_count([combine(terms, moments, weights) for terms in population], population)
        name = (
            f"{score.kind} on {score.batches} batches: {weights.zico:g} z(zico) + {weights.fisher_rao:g} "
            f"z(log Fisher-Rao) - {weights.loss:g} z(loss), z over {score.population} random networks"
        )
    evaluator = shared_evaluator(function, lambda g: supernet.space.cost(g).macs, world, run, log)
    return Scorer(name, evaluator, None, caution)


def embedded(batch: ClickBatch, tables: Tables, device: torch.device) -> Embedded:
    there = batch.to(device)
    with torch.no_grad():
        return (there.dense, tables(there)), there.labels


def why_only_a_count(scores: Sequence[float], population: Sequence[SigeoTerms]) -> str | None:
    """A caution where the score ranks random networks much as the number of their modules does."""
    modules = [terms.num_modules for terms in population]
    if len(set(modules)) < 2 or len(set(scores)) < 2:
        return None
    tau = kendall(modules, scores)
    if abs(tau) < MOSTLY_A_COUNT:
        return None
    return (
        f"over {len(population)} networks this score goes with the number of modules (Kendall's tau {tau:+.2f}): "
        "it may say little beyond size; compare --score.kind one_shot, and see docs/log.md"
    )


def measured_population(
    supernet: NasrecSupernet, probe: Probe, sampler: Sampler, count: int, seed: int, world: World, log: RunLog
) -> list[SigeoTerms]:
    """The terms of seeded random networks, over which they are standardised; the work is shared among the processes.

    Networks whose terms are undefined are left out. The order is that of the draw, on any number of processes.
    """
    genotypes = sampler.draw(np.random.default_rng([seed, count]), count)

    def measured(genotype: Genotype) -> SigeoTerms | None:
        try:
            return sigeo_terms(Bound(supernet, genotype), probe)
        except ProxyUndefined:
            return None

    share = log.beating(genotypes[world.rank :: world.size], "measuring the population")
    shares = together(lambda: unless_stopped(share, measured, world), world)
    ordered = [shares[place % world.size][place // world.size] for place in range(count)]
    defined = [terms for terms in ordered if terms is not None]
    if len(defined) < 2:
        raise ValueError(
            f"SiGeo is defined for {len(defined)} of {count} random networks, so its terms cannot be standardised; "
            "warm the supernet up (--warmup.fraction) or choose another --score.kind"
        )
    return defined


@dataclass(frozen=True)
class Sigeo:
    """The weighted, standardised terms of a subnet; higher is better."""

    supernet: NasrecSupernet
    probe: Probe
    moments: SigeoMoments
    weights: SigeoWeights

    def __call__(self, genotype: Genotype) -> Score:
        try:
            terms = sigeo_terms(Bound(self.supernet, genotype), self.probe)
            return TermScore(combine(terms, self.moments, self.weights), logged(terms))
        except ProxyUndefined as error:
            return Infeasible(str(error))


def logged(terms: SigeoTerms) -> dict[str, float]:
    """What the history keeps beside the score: each raw term, and what it was taken over. (scored_modules own a weight
    of two or more dimensions; costs.num_modules counts all with weights.)"""
    return {
        "zico": terms.zico,
        "fisher_rao": terms.fisher_rao,
        "loss": terms.loss,
        "scored_modules": terms.num_modules,
        "skipped_modules": terms.num_skipped,
        "scored_parameters": terms.num_parameters,
        "dropped_entries": terms.num_dropped,
    }


@dataclass(frozen=True)
class Reference:
    """SiGeo as the public code computes it, from the classifier alone; higher is better."""

    supernet: NasrecSupernet
    probe: Probe
    weights: SigeoWeights

    def __call__(self, genotype: Genotype) -> Score:
        try:
            zico, log_fisher_rao, loss = reference_terms(Bound(self.supernet, genotype), self.probe)
        except ProxyUndefined as error:
            return Infeasible(str(error))
        value = self.weights.zico * zico + self.weights.fisher_rao * log_fisher_rao - self.weights.loss * loss
        return TermScore(value, {"zico": zico, "log_fisher_rao": log_fisher_rao, "loss": loss})


@dataclass(frozen=True)
class OneShotLogLoss:
    """NASRec's ranking: inherited weights, the last layer tuned on training batches, then validation log loss.

    Source: NASRec, eval_subnet_from_supernet.py: Adagrad 0.04 for 500 steps of the last layer, there on 500 batches.
    Here the steps go round `train`: what is in front of the last layer is frozen, so its outputs are computed once a
    batch. The supernet is not touched.
    """

    supernet: NasrecSupernet
    train: Sequence[Embedded]
    validation: Sequence[Embedded]
    config: ClickScoreConfig

    def __call__(self, genotype: Genotype) -> Score:
        network = self.supernet.path(genotype)
        classifier = copy.deepcopy(network.classifier)
        train = [(self._last_inputs(network, inputs), labels) for inputs, labels in self.train]
        optimizer = torch.optim.Adagrad(classifier.parameters(), lr=self.config.tune_rate, eps=1e-2)
        for step in range(self.config.tune_steps):
            seen, labels = train[step % len(train)]
            loss = F.binary_cross_entropy_with_logits(classifier(*seen), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        total, rows = 0.0, 0
        for inputs, labels in self.validation:
            with torch.no_grad():
                logits = classifier(*self._last_inputs(network, inputs)).double()
            total += float(F.binary_cross_entropy_with_logits(logits, labels.double(), reduction="sum"))
            rows += len(labels)
        return -total / rows

    @staticmethod
    @torch.no_grad()
    def _last_inputs(network: NasrecNetwork, inputs: Inputs) -> tuple[Any, ...]:
        """What the last layer is given."""
        seen: list[tuple[Any, ...]] = []
        hook = network.classifier.register_forward_pre_hook(lambda module, given: seen.append(given))
        network(inputs)
        hook.remove()
        return seen[0]
