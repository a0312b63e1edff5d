"""Search for an architecture: torchrun launch/search.py PRESET --run-dir DIR [--data PATH] [--resume] [--dry-run]
[--section.option VALUE ...]

Warms the supernet up, ranks subnets, searches with regularised evolution beside a random control and, where the
score allows it, the exact optimum; writes the run folder and its report. The last line of standard output is the
sha256 of the history.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import torch
import tyro

from subshot.launch.cli import USER_MISTAKE, begin_again, go_on, nearest, run_command
from subshot.launch.config import RunConfig, VisionConfig
from subshot.launch.domain import changes_since_begun, open_domain, read_config, require_accepted, saved_form
from subshot.launch.environment import describe_environment
from subshot.launch.explore import explore
from subshot.launch.job import claimed_by_main, job
from subshot.launch.options import require_choices
from subshot.launch.own_space import placed
from subshot.launch.parsing import parsed
from subshot.launch.pipe import reader_may_leave
from subshot.launch.plan import write_plan
from subshot.launch.presets import PRESETS
from subshot.launch.report import write_report
from subshot.launch.run_log import RunLog
from subshot.launch.search_help import description, help_text
from subshot.launch.started import again, program
from subshot.train.dist import World, barrier, gather_objects, joined_world
from subshot.train.run_dir import RunDir, file_digest, read_json, remove_abandoned, write_json

C = TypeVar("C", bound=RunConfig)


@dataclass(frozen=True)
class SearchArguments(Generic[C]):
    """Every setting of the preset, where the run lies, and whether it goes on."""

    config: Annotated[C, tyro.conf.arg(name="")]
    run_dir: Path | None = None
    """The run folder; None: runs/<preset>."""
    resume: bool = False
    """Go on with the run in that folder, with the same settings; a finished one is only reported."""
    accept: tuple[str, ...] = ()
    """Settings and properties of the data that may differ from those that the run was begun with, each by the name that
    the refusal gives it."""
    dry_run: bool = False
    """Print what the run would take, from a few timed steps, and leave no run."""
    checkpoint_minutes: float = 10.0
    """A checkpoint is written at least so often; a kill without notice loses no more training than that."""
    timeout_minutes: float = 30.0
    """How long a process waits for another one before it gives up."""

    def run(self) -> RunDir:
        return RunDir(self.run_dir or Path("runs") / self.config.preset)


def parse(arguments: list[str]) -> SearchArguments[Any]:
    """The preset's settings with the command line's over them. Exits with 2 where the line is not understood."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(help_text())
        sys.exit(0 if arguments else USER_MISTAKE)
    name, *rest = arguments
    try:
        if name.startswith("-"):
            raise ValueError(f"the preset comes first, and {name} after it: {program('search')} PRESET {name} ...")
        if name not in PRESETS:
            raise ValueError(f"there is no preset {name!r}; {nearest(name, PRESETS)}; --help describes them")
        preset = PRESETS[name]()
        require_choices(type(preset), rest)
        generic: Any = SearchArguments
        shown: Any = tyro.conf.SuppressFixed
        kind: type[SearchArguments[Any]] = shown[generic[type(preset)]]
        found = parsed(kind, rest, f"{program('search')} {name}", description(name), SearchArguments(preset))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(USER_MISTAKE)
    config = found.config
    if isinstance(config, VisionConfig):
        found = replace(found, config=replace(config, space=placed(config.space)))
    return found


def open_run(
    run: RunDir, config: RunConfig, data: dict[str, Any], resume: bool, accept: tuple[str, ...], world: World
) -> list[str]:
    """Creates the run folder, or checks that the one that is there may be gone on with; returns the accepted changes.

    data: the data's fingerprint. Raises ValueError, on every rank, with all that differs and is not accepted.
    """
    wanted, changes = saved_form(config), list[str]()
    if any(seen != data for seen in gather_objects(data, world)):
        raise ValueError("the processes see different data under the same path; give all nodes the same files")
    if run.config_json.is_file():
        if not resume:
            raise ValueError(
                f"{run.root} holds a run already; add --resume to go on with it, or choose another --run-dir"
            )
        changes = changes_since_begun(run, wanted, data)
        require_accepted(run, changes, accept)
        read_config(run)
    elif accept:
        raise ValueError(f"--accept {' '.join(accept)}: {run.root} holds no run that anything could differ from")
    barrier(world)
    if world.is_main:
        remove_abandoned(run.root)
        if changes:
            for path in (*run.all_scores("*"), run.score_json, run.indicators_json):  # made under the old settings
                path.unlink(missing_ok=True)
        keep_latency_table(run, config)
        write_json(run.data_json, data)
        write_json(run.config_json, wanted)
        write_json(run.environment_json, describe_environment(config, world))
    barrier(world)
    return changes


def keep_latency_table(run: RunDir, config: RunConfig) -> None:
    """Copies the table of latencies into the run folder, so that the report can say where they come from."""
    table = config.limits.latency_table if isinstance(config, VisionConfig) else None
    if table is None:
        run.latency_table_json.unlink(missing_ok=True)
    else:
        write_json(run.latency_table_json, read_json(table))


def search(arguments: SearchArguments[Any], world: World) -> None:
    config, run = arguments.config, arguments.run()
    torch.set_num_threads(config.threads)
    domain = open_domain(config, world)
    if arguments.dry_run:
        plan = write_plan(config, domain, run, world)
        if world.is_main:
            print(plan)
        return
    with claimed_by_main(run.claim_json("search"), f"a search in {run.root}", world):
        changes = open_run(run, config, domain.fingerprint(), arguments.resume, arguments.accept, world)
        with job(run, "search", again("--resume"), world) as pulse, RunLog(run, world.is_main, pulse) as log:
            log.line(f"{config.preset}: {world.size} process(es) on {world.device}; run folder {run.root}")
            for change in changes:
                log.line(f"accepted change: {change}")
            log.line(domain.summary)
            scorer = domain.scorer(domain.warm(run, log), run, log)
            if scorer.caution is not None:
                log.line(f"caution: {scorer.caution}")
            explore(config, domain, scorer, world, run, log)
            barrier(world)
        if world.is_main:  # after the job, which the report would else say to be running
            write_report(run)
            log.line(f"report: {run.report_html}")
            print(file_digest(run.history_jsonl))


@reader_may_leave
def main() -> int:
    arguments = parse(sys.argv[1:])
    rank = int(os.environ.get("RANK", "0"))

    def command() -> None:
        with joined_world(arguments.timeout_minutes, arguments.checkpoint_minutes) as world:
            search(arguments, world)

    def how_to_resume() -> str:
        return go_on("--resume") if arguments.run().config_json.is_file() else begin_again()

    return run_command(command, lambda: rank == 0, how_to_resume)


if __name__ == "__main__":
    sys.exit(main())
