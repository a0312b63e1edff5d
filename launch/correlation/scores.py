"""What is judged beside the score that drove a search: its terms, proxies of freshly initialised networks, and other
kinds of score of the same warm supernet. All are of the networks of the sample, in its order.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from subshot.launch.cli import nearest
from subshot.launch.clicks.config import ClickConfig
from subshot.launch.config import TrainingFreeConfig
from subshot.launch.correlation.trainings import Trainings
from subshot.launch.domain import open_domain
from subshot.launch.run_log import RunLog
from subshot.launch.scoring import alone
from subshot.proxies import PROXIES
from subshot.search.evaluator import Infeasible
from subshot.supernet.space import Genotype
from subshot.train.dist import World, of_main, together, unless_stopped
from subshot.train.run_dir import RunDir, read_json, read_jsonl, write_json

Source = Literal["term", "proxy", "kind"]


@dataclass(frozen=True)
class Column:
    """One score of every network, None where undefined."""

    source: Source
    maximize: bool
    values: tuple[float | None, ...]


def known_kinds(config: Any) -> tuple[str, ...]:
    """Of the scores that a run's supernet can give; none without one."""
    if isinstance(config, TrainingFreeConfig):
        return ()
    return typing.get_args(typing.get_type_hints(type(config.score))["kind"])


def chosen_kinds(words: str, config: Any) -> tuple[str, ...]:
    """Names with commas between them, without the one that drove the search. Raises ValueError for another name."""
    names = tuple(dict.fromkeys(word.strip() for word in words.split(",") if word.strip()))
    known = known_kinds(config)
    if names and not known:
        raise ValueError("--kinds are of a warm supernet, and this run has none; --proxies judges other scores")
    for name in names:
        if name not in known:
            raise ValueError(f"--kinds: there is no kind of score {name!r}; {nearest(name, known)}")
    return tuple(name for name in names if name != config.score.kind)


def terms_of(genotypes: Sequence[Genotype], trainings: Trainings, run: RunDir) -> dict[str, Column]:
    """The terms of the score that drove the search, as its history has them, where every network has them and they are
    several."""
    rows = {tuple(row["genotype"]): row["terms"] for row in read_jsonl(run.history_jsonl) if "terms" in row}
    found = {}
    for name, maximize in trainings.terms.items():
        values = tuple(defined(rows.get(genotype, {}).get(name)) for genotype in genotypes)
        if None not in values:
            found[f"term {name}"] = Column("term", maximize, values)
    return found if len(found) > 1 else {}


def measured(
    proxies: Sequence[str],
    kinds: Sequence[str],
    genotypes: Sequence[Genotype],
    depends_on: str,
    config: Any,
    trainings: Trainings,
    world: World,
    run: RunDir,
    log: RunLog,
) -> dict[str, Column]:
    """Proxies and kinds of score by name, measured now or kept from earlier; the processes share the networks.

    depends_on: a hash of what the trainings depend on. Raises Preempted, between two networks.
    """
    path = run.correlation.measured_json
    mark = [depends_on, [list(genotype) for genotype in genotypes]]
    kept: dict[str, Any] = {}
    if path.is_file() and (record := read_json(path))["depends_on"] == mark:
        kept = record["columns"]
    kept = of_main(kept, world)

    def keep(name: str, source: Source, maximize: bool, values: list[Any]) -> None:
        kept[name] = {"source": source, "maximize": maximize, "values": [defined(value) for value in values]}
        told(name, values, log)
        if world.is_main:
            write_json(path, {"depends_on": mark, "columns": kept})

    missing = [name for name in proxies if name not in kept]
    if missing:
        measure = trainings.measure([PROXIES[name] for name in missing])
        rows = shared(genotypes, measure, "proxies", world, log)
        for name in missing:
            keep(name, "proxy", PROXIES[name].maximize, [row[name] for row in rows])
    for kind in kinds:
        if (name := f"kind {kind}") not in kept:
            keep(name, "kind", True, shared(genotypes, score_of_kind(kind, config, world, run, log), name, world, log))
    return {
        name: Column(column["source"], column["maximize"], tuple(column["values"])) for name, column in kept.items()
    }


def shared(
    genotypes: Sequence[Genotype], work: Callable[[Genotype], Any], stage: str, world: World, log: RunLog
) -> list[Any]:
    """`work` of every genotype, in order, on every process."""
    mine = log.beating(genotypes[world.rank :: world.size], stage)
    shares = together(lambda: unless_stopped(mine, work, world), world)
    return [shares[place % world.size][place // world.size] for place in range(len(genotypes))]


def score_of_kind(
    kind: str, config: Any, world: World, run: RunDir, log: RunLog
) -> Callable[[Genotype], float | Infeasible]:
    """Each process holds a scorer of its own. What a CTR score is standardised with is not written over the run's."""
    log.line(f"preparing the score {kind} of the warm supernet")
    domain = open_domain(replace(config, score=replace(config.score, kind=kind)), replace(world, rank=0, size=1))
    place = run.correlation if isinstance(config, ClickConfig) else run
    evaluator = alone(domain.scorer(domain.warm(run, log), place, log).evaluator)

    def score(genotype: Genotype) -> float | Infeasible:
        (value,) = evaluator.evaluate([genotype])
        return value if isinstance(value, Infeasible) else float(value)

    return score


def told(name: str, values: Sequence[Any], log: RunLog) -> None:
    """Says why a score is undefined for some networks."""
    reasons = sorted({str(value) for value in values if defined(value) is None})
    if reasons:
        log.line(f"{name} is undefined for some networks: {'; '.join(reasons)}")


def defined(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
