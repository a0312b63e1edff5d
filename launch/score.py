"""Score a large population of random networks: launch/score.py RUN --population N [--of M --index I].

The networks are N legal draws of the run's space, from the run's seed and N alone, equal ones counted once. With --of M
they are dealt out into M shares, and --index I scores share I of them: one element of a job array; without it this
command scores all shares. Each score is written down before the next is begun, so a stopped command is given again and
goes on; networks that a share has scored are not scored again. The last line of standard output is the path of the
scores, one line of JSON a network.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from subshot.launch.cli import go_on, run_command
from subshot.launch.clicks.config import ClickConfig
from subshot.launch.config import RunConfig, TrainingFreeConfig, VisionConfig
from subshot.launch.domain import Domain, Scorer, changes_since_begun, open_domain, read_config, require_accepted
from subshot.launch.job import claimed_by_main, job
from subshot.launch.options import at_least
from subshot.launch.parsing import parsed
from subshot.launch.pipe import reader_may_leave
from subshot.launch.run_log import RunLog
from subshot.launch.scoring import alone
from subshot.launch.started import again, program
from subshot.search.evaluator import Evaluator
from subshot.search.history import Proposal, scored
from subshot.supernet.space import Genotype
from subshot.train.dist import World, joined_world, of_main, together, unless_stopped
from subshot.train.run_dir import RunDir, append_jsonl, whole_rows


@dataclass(frozen=True)
class ScoreArguments:
    """What to score."""

    run: tyro.conf.Positional[Path]
    """The run folder of a search that has warmed its supernet up; a training-free one needs none."""
    population: int
    """Random networks, drawn under the run's limits."""
    of: int = 1
    """Shares that the networks are dealt out into."""
    index: int | None = None
    """Only this share, counted from 0: one element of a job array."""
    data: Path | None = None
    """Instead of the folder that the search used; the same data elsewhere."""
    accept: tuple[str, ...] = ()
    """Properties of the data that may differ from those of the search, each by the name that the refusal gives it."""
    timeout_minutes: float = 1440.0
    """How long a process that has scored its part waits for the others."""

    def __post_init__(self) -> None:
        at_least("--", self, population=1, of=1)
        if self.index is not None and not 0 <= self.index < self.of:
            raise ValueError(f"--index is {self.index}; with --of {self.of} there are shares 0 to {self.of - 1}")

    @property
    def shares(self) -> list[int]:
        return list(range(self.of)) if self.index is None else [self.index]


def score(arguments: ScoreArguments, world: World) -> None:
    """Processes share the networks of each share of the array; each scores its own as if it were alone."""
    run = RunDir(arguments.run)
    if not run.config_json.is_file():
        raise ValueError(f"{run.root} holds no run (no {run.config_json.name}); run launch/search.py first")
    config: Any = read_config(run)
    if arguments.data is not None:
        config = replace(config, data=arguments.data)
    require_ready(config, run)
    torch.set_num_threads(config.threads)
    domain = open_domain(config, replace(world, rank=0, size=1))
    require_accepted(run, changes_since_begun(run, data=domain.fingerprint()), arguments.accept)
    genotypes = population_of(domain, config.seed, arguments.population)
    scorer: Scorer | None = None
    for index in arguments.shares:
        claim = claimed_by_main(run.claim_json(share_name(index)), f"share {index} of the scores in {run.root}", world)
        name = share_name(index)
        with claim, job(run, name, again(), world) as pulse, RunLog(run, world.is_main, pulse, name) as log:
            if scorer is None:
                scorer = built(domain, run, log, world)
                log.line(f"{len(genotypes)} different networks; score: {scorer.name}")
            share = genotypes[index :: arguments.of]
            score_share(index, share, domain, alone(scorer.evaluator), world, run, log)
        if world.is_main:
            print(run.scores_jsonl(share_name(index), 0))


def score_share(
    index: int, share: list[Genotype], domain: Domain, evaluator: Evaluator, world: World, run: RunDir, log: RunLog
) -> None:
    """Scores what the files of this share lack. Raises Preempted on every rank where one was asked to stop."""
    before = scored_before(run, index, log)
    missing = of_main([genotype for genotype in share if genotype not in before], world)
    mine = missing[world.rank :: world.size]
    path = run.scores_jsonl(share_name(index), world.rank)
    path.parent.mkdir(exist_ok=True)
    path.touch()

    def one(place: int) -> None:
        log.beat(share_name(index), len(share) - len(missing) + place, 0)
        append_jsonl(path, [row_of(mine[place], domain, evaluator)])

    together(lambda: unless_stopped(range(len(mine)), one, world), world)
    log.beat(share_name(index), len(share), len(share))
    log.line(f"share {index}: {len(missing)} scored now, {len(share) - len(missing)} before")


def row_of(genotype: Genotype, domain: Domain, evaluator: Evaluator) -> dict[str, Any]:
    """score: None, with the reason, where there is none."""
    (value,) = evaluator.evaluate([genotype])
    candidate = scored(Proposal(genotype), 0, 0, value)
    return {
        "genotype": list(genotype),
        "score": candidate.score,
        "reason": candidate.reason,
        "costs": domain.costs(genotype),
    }


def built(domain: Domain, run: RunDir, log: RunLog, world: World) -> Scorer:
    """Each process's own scorer. Raises Preempted on all of them where one was asked to stop."""
    found: list[Scorer] = []
    together(lambda: found.append(domain.scorer(domain.warm(run, log), run, log)), world)
    return found[0]


def scored_before(run: RunDir, index: int, log: RunLog) -> set[Genotype]:
    """Whatever number of processes scored them."""
    paths = run.all_scores(share_name(index))
    return {tuple(row["genotype"]) for path in paths for row in whole_rows(path, log.line)}


def population_of(domain: Domain, seed: int, count: int) -> list[Genotype]:
    """`count` canonical legal draws, a function of (seed, count); equal ones once, in the order of their drawing."""
    drawn = domain.sampler().draw(np.random.default_rng([seed, count]), count)
    return list(dict.fromkeys(map(domain.space.canonical, drawn)))


def share_name(index: int) -> str:
    return f"score-{index}"


def require_ready(config: RunConfig, run: RunDir) -> None:
    """Raises ValueError where the search has not yet written what its score needs: elements of an array would write the
    same file at the same time, so none of them writes it."""
    missing = [path.name for path in needed_files(config, run) if not path.is_file()]
    if missing:
        raise ValueError(
            f"{run.root} has no {' and no '.join(missing)} yet; let launch/search.py come to its search first "
            "(give it again with --resume where it was stopped)"
        )


def needed_files(config: RunConfig, run: RunDir) -> Iterable[Path]:
    """What the search writes before it scores its first candidate, and scoring reads."""
    if isinstance(config, VisionConfig):
        return (run.supernet, run.indicators_json)
    if isinstance(config, ClickConfig):
        return (run.supernet, run.score_json) if config.score.kind in ("sigeo", "zico") else (run.supernet,)
    assert isinstance(config, TrainingFreeConfig)
    return (run.score_json,) if len(config.score.proxies) > 1 else ()


@reader_may_leave
def main() -> int:
    rank = int(os.environ.get("RANK", "0"))

    def command() -> None:
        arguments = parsed(ScoreArguments, sys.argv[1:], program("score"), __doc__)
        with joined_world(arguments.timeout_minutes) as world:
            score(arguments, world)

    return run_command(command, lambda: rank == 0, go_on)


if __name__ == "__main__":
    sys.exit(main())
