"""Train the best networks of a run from scratch: [torchrun] launch/retrain.py RUN [--top K] [--controls R] [--seeds N]
[--freeze | --index I].

Beside the winners it trains random networks of the winner's cost, so that the gain of the search shows on untouched
data. Each result is a folder below RUN/winners; finished ones are kept, a stopped one goes on from its last checkpoint.
The last line of standard output is the winner's path.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro

from subshot.launch.cli import go_on, run_command
from subshot.launch.domain import (
    Domain,
    RetrainPlan,
    changes_since_begun,
    open_domain,
    read_config,
    require_accepted,
    retraining_minutes,
)
from subshot.launch.job import claimed_by_main, job
from subshot.launch.manifest import element_of, freeze
from subshot.launch.options import at_least
from subshot.launch.parsing import parsed
from subshot.launch.pipe import reader_may_leave
from subshot.launch.report import write_report
from subshot.launch.run_log import RunLog
from subshot.launch.started import again, program
from subshot.train.dist import World, barrier, joined_world
from subshot.train.run_dir import RunDir


@dataclass(frozen=True)
class RetrainArguments:
    """What to train."""

    run: tyro.conf.Positional[Path]
    """The run folder of a finished search."""
    top: int | None = None
    """Networks from the best down; None: the winner alone for images, 15 for CTR, of which validation chooses one."""
    controls: int | None = None
    """Random networks of the winner's cost (at most as many as the search drew); None: 3 for images, all for CTR."""
    seeds: int | None = None
    """Trainings of each that is tested, from different initial weights and orders; None: 1 for images, 3 for CTR."""
    index: int | None = None
    """Only this line of the frozen manifest, counted from 0: one element of a job array."""
    epochs: int | None = None
    """Instead of the preset's; the schedule of the learning rate is rescaled to it."""
    data: Path | None = None
    """Instead of the folder that the search used; the same data elsewhere."""
    freeze: bool = False
    """Train nothing: write down, as manifest.json, what the elements of a job array will train."""
    accept: tuple[str, ...] = ()
    """Properties of the data that may differ from those of the search, each by the name that the refusal gives it."""
    checkpoint_minutes: float = 10.0
    """A checkpoint is written at least so often; a kill without notice loses no more training than that."""
    timeout_minutes: float | None = None
    """How long a process waits for another one before it gives up; None: 30 for images, whose processes meet at every
    step, and 1440 for CTR, where one may wait while another trains a whole network."""

    def __post_init__(self) -> None:
        at_least("--", self, top=1, controls=0, seeds=1)


def open_finished(
    run: RunDir, epochs: int | None, data: Path | None, accept: tuple[str, ...], world: World
) -> tuple[Any, Domain]:
    """The configuration of a finished search, with other epochs of retraining and another place of the data where they
    are given; and its domain. Raises ValueError where there is no such search, or its data are others."""
    if not run.summary_json.is_file():
        raise ValueError(
            f"{run.root} holds no finished search (no {run.summary_json.name}); run launch/search.py first"
        )
    config: Any = read_config(run)
    if epochs is not None:
        recipe = config.retrain.recipe
        longer = epochs / max(1, recipe.epochs)
        recipe = replace(recipe, epochs=epochs, warmup_epochs=recipe.warmup_epochs * longer)
        config = replace(config, retrain=replace(config.retrain, recipe=recipe))
    if data is not None:
        config = replace(config, data=data)
    torch.set_num_threads(config.threads)
    domain = open_domain(config, world)
    require_accepted(run, changes_since_begun(run, data=domain.fingerprint()), accept)
    return config, domain


def retrain(arguments: RetrainArguments, world: World) -> None:
    run = RunDir(arguments.run)
    _, domain = open_finished(run, arguments.epochs, arguments.data, arguments.accept, world)
    plan = RetrainPlan(arguments.top, arguments.controls, arguments.seeds)
    if arguments.freeze:
        manifest = domain.manifest(plan, run)
        if world.is_main:
            freeze(run, manifest)
            print(len(manifest.elements))
        return
    index = arguments.index
    name, element = "retrain", None
    if index is not None:
        name, element = f"retrain-{index}", element_of(run, domain.manifest(plan, run), index)
    part = name if element is not None else None
    claim = claimed_by_main(run.claim_json(name), f"launch/retrain.py as {name} in {run.root}", world)
    with claim:
        with job(run, name, again(), world) as pulse, RunLog(run, world.is_main, pulse, part) as log:
            if element is not None:
                winner = domain.retrain_element(element, run, log)
            else:
                winner = domain.retrain(plan, run, log)
            barrier(world)
        if world.is_main:  # after the job, which the report would else say to be running
            if element is None:  # elements of an array run at the same time, and a report has one writer
                write_report(run)
                log.line(f"report: {run.report_html}")
            print(winner)


def patience_minutes(run: RunDir, timeout_minutes: float | None) -> float:
    """How long a collective waits."""
    if timeout_minutes is not None:
        return timeout_minutes
    return retraining_minutes(read_config(run)) if run.config_json.is_file() else 30.0


@reader_may_leave
def main() -> int:
    rank = int(os.environ.get("RANK", "0"))

    def command() -> None:
        arguments = parsed(RetrainArguments, sys.argv[1:], program("retrain"), __doc__)
        patience = patience_minutes(RunDir(arguments.run), arguments.timeout_minutes)
        with joined_world(patience, arguments.checkpoint_minutes) as world:
            retrain(arguments, world)

    return run_command(command, lambda: rank == 0, go_on)


if __name__ == "__main__":
    sys.exit(main())
