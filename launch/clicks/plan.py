"""What a dry run measures of a CTR run: warm-up steps of a small, a median and the full path with its tables, and
scoring."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from subshot.data.clicks import first_batches
from subshot.launch.clicks.config import ClickConfig
from subshot.launch.clicks.domain import ClickDomain, WarmSupernet
from subshot.launch.clicks.scoring import batches_needed, embedded, logged
from subshot.launch.plan import (
    CHECKPOINTS,
    SAMPLE,
    Measured,
    Scoring,
    WarmUp,
    candidates_of,
    history_bytes,
    own_scorings,
)
from subshot.launch.plan_timing import (
    Say,
    Scorings,
    Sized,
    gradient_copies,
    of_three_sizes,
    peak_mib,
    tensor_bytes,
    timed_scorings,
    timed_steps,
)
from subshot.proxies.base import Probe, ProxyUndefined
from subshot.proxies.sigeo import sigeo_terms
from subshot.search.evaluator import FunctionEvaluator, Infeasible, Score, Sharded, TermScore
from subshot.supernet.base import Bound
from subshot.supernet.nasrec import NasrecSpace
from subshot.supernet.nasrec_cost import network_cost
from subshot.supernet.nasrec_spec import NasrecSpec
from subshot.supernet.nasrec_supernet import NasrecSupernet
from subshot.supernet.space import Genotype
from subshot.train.click_paths import PathSampling
from subshot.train.click_task import click_task
from subshot.train.dist import World, gather_objects
from subshot.train.sliced_adagrad import SlicedAdagrad
from subshot.train.tables import Tables, TablesConfig, build_tables, table_shapes, tables_mib

MIB = 2**20


def measure(config: ClickConfig, domain: ClickDomain, world: World, say: Say) -> Measured:
    data, space = domain.data, domain.space
    supernet = NasrecSupernet(space, torch.Generator().manual_seed(config.seed)).to(world.device)
    tables = build_tables(data.fields, domain.tables_config, config.seed, world)
    warm_up = _warm_up(config, domain, supernet, tables, world, say)
    candidates = candidates_of(domain, config.seed)
    say("reading the rows that score subnets")
    standardised = config.score.kind in ("sigeo", "zico")
    timed = (
        _term_scorings(config, domain, supernet, tables, candidates, world, say)
        if standardised
        else own_scorings(domain, WarmSupernet(supernet, tables), candidates, world, say)
    )
    population = config.score.population if standardised else 0
    scoring = Scoring(population, 2 * config.evolution.budget, timed)
    in_search, final = domain.tables_config, replace(domain.tables_config, max_rows=config.retrain.max_rows)
    weights = tensor_bytes(supernet)
    copies = gradient_copies(config.warmup.recipe, config.batches.num_shards, world.size)
    dealt = " of all processes together" if in_search.sharding == "dmp" and world.size > 1 else ""
    memory = {
        "weights": weights / MIB,
        f"gradients of the full path, {copies} times": copies * weights / MIB,
        "Adagrad's state": weights / MIB,
        f"tables with their optimiser's state{dealt}": tables_mib(data.fields, in_search),
        "and in retraining": tables_mib(data.fields, final),
    }
    state = 2 * weights + round(tables_mib(data.fields, in_search) * MIB)
    disk = {
        "supernet.safetensors with its tables": weights + table_bytes(domain, in_search),
        CHECKPOINTS: 0 if warm_up is None else 3 * state,
        "history.jsonl": history_bytes(config, domain, timed.scores),
        **_retraining_bytes(config, domain, final, candidates),
    }
    return Measured(warm_up, scoring, memory, peak_mib(world), disk)


def _warm_up(
    config: ClickConfig, domain: ClickDomain, supernet: NasrecSupernet, tables: Tables, world: World, say: Say
) -> WarmUp | None:
    recipe, batches, loader = config.warmup.recipe, config.batches, domain.loader
    if loader is None or recipe.epochs == 0:
        return None
    optimizer = SlicedAdagrad(dict(supernet.named_parameters()), recipe.learning_rate, recipe.eps)

    def network_of(spec: NasrecSpec) -> nn.Module:
        network = supernet.path(spec)
        optimizer.follow(network.parameters())
        return network

    timed = timed_steps(
        three_paths(domain.space, config),
        network_of,
        optimizer,
        loader,
        recipe,
        click_task(tables, world.device),
        world,
        batches.num_shards,
        say,
    )
    total = recipe.epochs * loader.steps_per_epoch
    sampling = PathSampling(round(config.warmup.full_path_share * total), config.warmup.connections)
    full = round(sum(map(sampling.full_path_probability, range(sampling.full_path_steps))))
    return WarmUp("rows", recipe.epochs, loader.steps_per_epoch, batches.batch_size, batches.num_shards, timed, full)


def three_paths(space: NasrecSpace, config: ClickConfig) -> tuple[Sized, ...]:
    """The least and the median of seeded random paths, and the full path, which has most MACs of all."""

    def macs(spec: NasrecSpec) -> int:
        return network_cost(spec, layer_norm=True).macs

    rng = random.Random(f"plan {config.seed}")
    drawn = [space.decode(space.draw(rng, config.warmup.connections)) for _ in range(SAMPLE)]
    least, median, _ = of_three_sizes(drawn, macs)
    return least, median, Sized("largest", macs(space.full_spec()), space.full_spec())


def _term_scorings(
    config: ClickConfig,
    domain: ClickDomain,
    supernet: NasrecSupernet,
    tables: Tables,
    candidates: list[Genotype],
    world: World,
    say: Say,
) -> Scorings:
    """Of the terms of SiGeo and ZiCo alone: what standardises them is measured on a whole population first."""
    score = config.score
    batches = first_batches(
        domain.data.split("train"),
        count=batches_needed(score),
        batch_size=config.batches.batch_size,
        seed=config.seed,
        max_rows_per_table=config.tables.max_rows,
    )
    held = tuple(embedded(batch, tables, world.device) for batch in batches)
    probe = Probe(held[: score.batches], F.binary_cross_entropy_with_logits, config.seed)

    def terms(genotype: Genotype) -> Score:
        try:
            found = sigeo_terms(Bound(supernet, genotype), probe)
        except ProxyUndefined as error:
            return Infeasible(str(error))
        return TermScore(found.zico, logged(found))

    def macs(genotype: Genotype) -> int:
        return domain.space.cost(genotype).macs

    gather = partial(gather_objects, world=world)
    evaluator = Sharded(FunctionEvaluator(terms), world.rank, world.size, gather, macs)
    return timed_scorings(evaluator, candidates, macs, world, say)


def table_bytes(domain: ClickDomain, tables: TablesConfig) -> int:
    """Of the tables' weights alone, as they are saved."""
    return sum(4 * shape.rows * tables.embedding_dim for shape in table_shapes(domain.data.fields, tables))


def _retraining_bytes(
    config: ClickConfig, domain: ClickDomain, final: TablesConfig, candidates: list[Genotype]
) -> dict[str, int]:
    """The winner's folder holds weights and tables, and both again as an ONNX program; a tested training leaves a logit
    and a label, 4 bytes each, of every test row. Three networks of the search are tested beside the baselines."""
    network = 4 * max(domain.costs(genotype)["params"] for genotype in candidates)
    tested = (3 + len(config.retrain.baselines)) * config.retrain.seeds
    return {
        "the winner's folder, if large": 2 * (network + table_bytes(domain, final)),
        f"logits of {tested} tested trainings": tested * 8 * len(domain.data.split("test")),
    }
