"""The plan of a run that is not begun: what launch/search.py prints with --dry-run.

Ranks, batch, memory, disk, time and limits, from a few real steps and scorings on the run's own data. No run folder
is made, and nothing that a run would read is changed.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from subshot.launch.clicks.config import ClickConfig
from subshot.launch.config import RunConfig, TrainingFreeConfig, VisionConfig
from subshot.launch.domain import Domain, Networks
from subshot.launch.plan_timing import Say, Scorings, Timed, timed_scorings
from subshot.launch.run_log import RunLog
from subshot.search.evaluator import Cached, Score, TermScore
from subshot.search.history import Proposal, scored
from subshot.search.methods import described, method_name
from subshot.supernet.space import Genotype
from subshot.train.dist import World, barrier
from subshot.train.run_dir import RunDir, json_line

CHECKPOINTS = "checkpoints of the warm-up: two that are kept, and one that is being written"
SAMPLE = 101
"""Random networks, of which the median and, where a space has no greatest one, the greatest are taken."""


@dataclass(frozen=True)
class WarmUp:
    """Of a supernet. examples: images or rows. steps_per_epoch, batch_size: global, over all processes.
    steps_on_largest: the expected number of steps that train the full path; the others train random ones."""

    examples: str
    epochs: int
    steps_per_epoch: int
    batch_size: int
    num_shards: int
    networks: tuple[Timed, ...]
    steps_on_largest: int = 0

    @property
    def steps(self) -> int:
        return self.epochs * self.steps_per_epoch

    def seconds(self, size: int = 1) -> float:
        """An estimate: random paths take as long as networks[size]."""
        others = self.steps - self.steps_on_largest
        return (others * self.networks[size].ms + self.steps_on_largest * self.networks[2].ms) / 1e3


@dataclass(frozen=True)
class Scoring:
    """Of candidates by measurement. population: networks that are measured before the search, to standardise or rank
    with. candidates: of both searches, at most."""

    population: int
    candidates: int
    timed: Scorings

    def seconds(self, size: int = 1) -> float:
        """An estimate from the candidates that were scored together; with size 0 or 2, as if all were as small, or as
        large, as the extreme ones."""
        mixed, networks = self.timed.mixed, self.timed.networks
        together = (self.population + self.candidates) * mixed.ms / 1e3
        return together if size == 1 else together * networks[size].ms / networks[1].ms


@dataclass(frozen=True)
class Measured:
    """What a domain says of its run. warm_up: None where nothing is trained. scoring: None where scores are looked up.
    memory_mib: of a process, by name. peak_mib: resident and GPU memory, after the steps and scorings. disk: bytes by
    name."""

    warm_up: WarmUp | None
    scoring: Scoring | None
    memory_mib: dict[str, float]
    peak_mib: tuple[float, float]
    disk: dict[str, int]


@dataclass(frozen=True)
class Plan:
    """disk_free: bytes where the run folder would lie, or lies."""

    measured: Measured
    legal_fraction: float
    disk_free: int

    def seconds(self, size: int = 1) -> float:
        """Of warm-up and search; retraining is not in it."""
        parts = (self.measured.warm_up, self.measured.scoring)
        return sum(part.seconds(size) for part in parts if part is not None)

    @property
    def disk_bytes(self) -> int:
        return sum(self.measured.disk.values())


def write_plan(config: RunConfig, domain: Domain, run: RunDir, world: World) -> str:
    """The plan as text, on every rank; all ranks call this. What is being timed goes to stderr.

    Raises ImpossibleLimit where no network is legal.
    """

    def say(text: str) -> None:
        if world.is_main:
            print(text, file=sys.stderr)

    return "\n".join(lines_of(make_plan(config, domain, run, world, say), config, domain, run, world))


def make_plan(config: RunConfig, domain: Domain, run: RunDir, world: World, say: Say = lambda text: None) -> Plan:
    sampler = domain.sampler()
    sampler.draw(np.random.default_rng(config.seed), 1)
    fraction = sampler.legal_fraction(np.random.default_rng(config.seed))
    measured = MEASURES[type(config)](config, domain, world, say)
    barrier(world)
    return Plan(measured, fraction, shutil.disk_usage(existing(run.root)).free)


def candidates_of(domain: Networks, seed: int) -> list[Genotype]:
    """Seeded legal networks, all different, in the order of their drawing."""
    drawn = domain.sampler().draw(np.random.default_rng(seed), SAMPLE)
    return list(dict.fromkeys(map(domain.space.canonical, drawn)))


def own_scorings(domain: Domain, supernet: Any, candidates: Sequence[Genotype], world: World, say: Say) -> Scorings:
    """Of the run's own scorer, which writes scores down as it goes: here to a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        run = RunDir(Path(folder))
        scorer = domain.scorer(supernet, run, RunLog(run, is_main=False))
        assert isinstance(scorer.evaluator, Cached), "a score that is measured is kept"
        return timed_scorings(
            scorer.evaluator.evaluator, candidates, lambda g: round(domain.costs(g)["macs"]), world, say
        )


def history_bytes(config: RunConfig, networks: Networks, found: Sequence[tuple[Genotype, Score]]) -> int:
    """Of history.jsonl, by the mean length of the lines of these networks."""
    lengths, method = [], method_name(config.evolution)
    for genotype, score in found:
        proposal = Proposal(genotype, (config.evolution.budget,) * 2)
        candidate = scored(proposal, config.evolution.budget, config.evolution.budget, score)
        row: dict[str, Any] = {"method": method, **candidate.to_json(), "costs": networks.costs(genotype)}
        lengths.append(len(json_line(row | {"terms": score.terms} if isinstance(score, TermScore) else row)) + 1)
    return round(2 * config.evolution.budget * sum(lengths) / len(lengths))


def existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())


def lines_of(plan: Plan, config: RunConfig, domain: Domain, run: RunDir, world: World) -> list[str]:
    measured = plan.measured
    lines = [
        f"plan of {config.preset}: {world.size} process(es) on {world.device}, {config.threads} thread(s) each; "
        f"run folder {run.root}; nothing is begun",
        domain.summary,
        _limits(config, plan.legal_fraction),
    ]
    if measured.warm_up is None:
        lines.append("warm-up: none")
    else:
        lines += _warm_up(measured.warm_up)
    lines += _search(config, measured.scoring, world)
    shown = [f"{name} {mib:,.1f} MiB" for name, mib in measured.memory_mib.items()]
    lines.append(f"memory of a process: {'; '.join(shown) or 'one network at a time'}")
    resident, on_gpu = measured.peak_mib
    gpu = f", {on_gpu:,.0f} MiB on the GPU" if on_gpu else ""
    lines.append(f"measured peak of a process: {resident:,.0f} MiB resident, Python and libraries included{gpu}")
    lines.append(
        f"disk: {size_text(plan.disk_bytes)}, logs and report not counted; {size_text(plan.disk_free)} are free at "
        f"{existing(run.root)}"
    )
    lines += [f"  {size_text(size):>12}  {name}" for name, size in measured.disk.items() if size]
    if plan.disk_bytes > plan.disk_free:
        lines.append("warning: the free disk does not suffice; choose another --run-dir")
    lines.append(
        f"estimate for {world.size} process(es), as measured here: {duration(plan.seconds())} "
        f"({duration(plan.seconds(0))} to {duration(plan.seconds(2))}) of warm-up and scoring, retraining not counted; "
        "for another number of processes give the dry run with as many"
    )
    return lines


def _limits(config: Any, fraction: float) -> str:
    values = {field.name: getattr(config.limits, field.name) for field in fields(config.limits)}
    limits = [f"{name} {value:g}" for name, value in values.items() if isinstance(value, float) and value]
    if not limits:
        return f"limits: none; {100 * fraction:.4g} % of random genotypes are networks of the space"
    found = f"{100 * fraction:.3g} %" if fraction else "so few that none was met while counting, yet some"
    return f"limits: {', '.join(limits)}: {found} of random genotypes are legal"


def _warm_up(warm: WarmUp) -> list[str]:
    lines = [
        f"warm-up: {warm.epochs} epoch(s) of {warm.steps_per_epoch:,} steps, {warm.steps:,} in all, of "
        f"{warm.batch_size} {warm.examples} in {warm.num_shards} shard(s)"
    ]
    for timed in warm.networks:
        lines.append(
            f"  {timed.size:9}{timed.macs / 1e6:10,.4g} M MACs {timed.ms:10,.1f} ms a step (mean of {timed.count}; "
            f"{timed.loading_ms:,.1f} of them for the batch to come), {1e3 * warm.batch_size / timed.ms:,.0f} "
            f"{warm.examples} a second"
        )
    full = f", of them about {warm.steps_on_largest:,} of the full path" if warm.steps_on_largest else ""
    lines.append(
        f"  estimate: {warm.steps:,} steps of the median network{full}: {duration(warm.seconds())} "
        f"({duration(warm.seconds(0))} to {duration(warm.seconds(2))})"
    )
    return lines


def _search(config: RunConfig, scoring: Scoring | None, world: World) -> list[str]:
    budget = config.evolution.budget
    searches = f"search: {budget:,} candidates each for {described(config.evolution)} and the random control"
    if scoring is None:
        return [f"{searches}; their scores are looked up in a table, which takes seconds"]
    before = f", after {scoring.population:,} random networks" if scoring.population else ""
    lines = [f"{searches}{before}"]
    for timed in scoring.timed.networks:
        lines.append(f"  {timed.size:9}{timed.macs / 1e6:10,.4g} M MACs {timed.ms:10,.1f} ms a candidate, by itself")
    mixed = scoring.timed.mixed
    lines.append(f"  {mixed.count} random ones, by {world.size} process(es): {1e3 / mixed.ms:,.3g} candidates a second")
    lines.append(
        f"  estimate: {scoring.population + scoring.candidates:,} candidates: {duration(scoring.seconds())} "
        f"({duration(scoring.seconds(0))} to {duration(scoring.seconds(2))})"
    )
    return lines


def size_text(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB" if size >= 2**30 else f"{size / 2**20:,.2f} MiB"


def duration(seconds: float) -> str:
    """In the largest unit of which there are two or more."""
    for unit, length in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"


def _vision(config: Any, domain: Any, world: World, say: Say) -> Measured:
    from subshot.launch.vision.plan import measure

    return measure(config, domain, world, say)


def _clicks(config: Any, domain: Any, world: World, say: Say) -> Measured:
    from subshot.launch.clicks.plan import measure

    return measure(config, domain, world, say)


def _training_free(config: Any, domain: Any, world: World, say: Say) -> Measured:
    from subshot.launch.training_free.plan import measure

    return measure(config, domain, world, say)


MEASURES: dict[type, Callable[[Any, Any, World, Say], Measured]] = {
    VisionConfig: _vision,
    ClickConfig: _clicks,
    TrainingFreeConfig: _training_free,
}
"""Imported when they are called, as domains are."""
