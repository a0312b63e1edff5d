"""A run on a SLURM cluster: python launch/slurm.py PRESET --run-dir DIR [options of launch/search.py] [--slurm.OPTION
VALUE ...] [--print], and afterwards: python launch/slurm.py collect RUN

Writes batch scripts to DIR/slurm and submits them as a chain: search, then the retrainings as an array, each begun when
what it needs is finished. collect shows what the elements gave, and the command that runs the missing ones again.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro

from subshot.launch.cli import DONE, STOPPED, USER_MISTAKE, run_command
from subshot.launch.collect import collect, queued_jobs
from subshot.launch.pipe import reader_may_leave
from subshot.launch.slurm_scripts import (
    CORRELATE,
    CORRELATE_REST,
    REST,
    RETRAIN,
    SCORE,
    SEARCH,
    Plan,
    SlurmConfig,
    scripts,
)
from subshot.launch.started import another, program
from subshot.train.run_dir import RunDir, replacing

NEEDS = {SCORE: SEARCH, RETRAIN: SEARCH, REST: RETRAIN, CORRELATE: SEARCH, CORRELATE_REST: CORRELATE}


@dataclass(frozen=True)
class SlurmArguments:
    """What is for SLURM; every other option is launch/search.py's."""

    slurm: SlurmConfig = field(default_factory=SlurmConfig)
    print: bool = False
    """Only show the scripts and the commands that would submit them."""


def parse(arguments: list[str]) -> tuple[SlurmArguments, list[str]]:
    """What is for SLURM, and what is not. Exits with 2 where the line is not understood."""
    joined: list[str] = []
    for word in arguments:  # so that a value may begin with dashes
        if joined and joined[-1].startswith("--slurm.") and "=" not in joined[-1]:
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    parsed, rest = tyro.cli(
        SlurmArguments, args=joined, return_unknown_args=True, prog=f"{program('slurm')} PRESET", description=__doc__
    )
    return parsed, rest


def make_plan(arguments: list[str], slurm: SlurmConfig) -> Plan:
    """Raises ValueError, or exits with 2, for all that launch/search.py would refuse before it reads data."""
    from subshot.launch.search import parse as parse_search  # torch takes seconds to load, which collect need not wait

    found = parse_search(arguments)
    config, run = found.config, found.run()
    if found.dry_run:
        raise ValueError("--dry-run submits nothing; give it to launch/search.py, or --print to this command")
    require_same_settings(config, found.accept, run)
    require_data(config)
    require_enough_shards(config, slurm)
    elements, has_rest = retrainings(config, slurm)
    if has_rest and slurm.element_gpus > 1:
        raise ValueError("--slurm.gpus-per-element: a retraining on clicks runs in one process, so it must be 0 or 1")
    readers = getattr(getattr(config, "images", None), "num_threads", 0)
    return Plan(
        run=run.root.resolve(),
        here=Path.cwd(),
        code=Path(__file__).resolve().parent.parent,
        python=sys.executable,
        search=tuple(without_place(arguments)),
        slurm=slurm,
        elements=elements,
        has_rest=has_rest,
        threads=config.threads,
        cpus=config.threads + readers,
    )


def without_place(arguments: list[str]) -> list[str]:
    """Without --run-dir and --resume, which the scripts give themselves."""
    kept: list[str] = []
    words = iter(arguments)
    for word in words:
        name = word.replace("_", "-")
        if name == "--run-dir":
            next(words, None)
        elif not name.startswith("--run-dir=") and name not in ("--resume", "--no-resume"):
            kept.append(word)
    return kept


def require_same_settings(config: Any, accept: tuple[str, ...], run: RunDir) -> None:
    """Raises ValueError where the folder holds a run of other settings, which are not accepted."""
    from subshot.launch.domain import changes_since_begun, require_accepted, saved_form

    if run.config_json.is_file():
        require_accepted(run, changes_since_begun(run, saved_form(config)), accept)


def require_data(config: Any) -> None:
    if config.data is None and config.preset not in ("digits", "clicks"):
        raise ValueError(f"the preset {config.preset} needs data: add --data PATH")
    if config.data is not None and not config.data.is_dir():
        raise ValueError(f"the data folder {config.data} does not exist; every node must see it under this path")


def require_enough_shards(config: Any, slurm: SlurmConfig) -> None:
    """Raises ValueError where the search could not use so many processes."""
    from subshot.launch.clicks.config import ClickConfig
    from subshot.launch.config import VisionConfig

    processes = slurm.nodes * slurm.processes
    if isinstance(config, ClickConfig) and config.batches.num_shards % processes:
        rule = f"--batches.num-shards is {config.batches.num_shards}; it must be a multiple of the number of processes"
    elif isinstance(config, VisionConfig) and config.images.num_shards < processes:
        rule = f"--images.num-shards is {config.images.num_shards}; it must be at least the number of processes"
    else:
        return
    raise ValueError(f"{rule}, which is {processes} (--slurm.nodes times --slurm.processes-per-node)")


def retrainings(config: Any, slurm: SlurmConfig) -> tuple[int, bool]:
    """How many elements the manifest has at most, which is known before the search; and whether work that depends on
    their results follows them."""
    from subshot.launch.clicks.config import ClickConfig

    best, drawn = config.evolution.best, config.evolution.controls
    if isinstance(config, ClickConfig):
        retrain = config.retrain
        top = min(retrain.top if slurm.top is None else slurm.top, best)
        controls = min(retrain.controls if slurm.controls is None else slurm.controls, drawn)
        rates = len({*retrain.learning_rates, retrain.recipe.learning_rate})
        return 2 * top + controls + rates * len(retrain.baselines), True
    top = min(slurm.top or 1, best)
    controls = min(3 if slurm.controls is None else slurm.controls, drawn)
    return (top + controls) * (slurm.seeds or 1), False


def submissions(plan: Plan) -> dict[str, list[str]]:
    """Name and sbatch's command of every script. <name> stands for the id that the script of that name was given."""
    found = {}
    for name in scripts(plan):
        words = ["sbatch", "--parsable"]
        if name in NEEDS:
            words += [f"--dependency=afterok:<{NEEDS[name]}>", "--kill-on-invalid-dep=yes"]
        found[name] = [*words, str(plan.folder.batch_script(name))]
    return found


def show(plan: Plan) -> None:
    for name, text in scripts(plan).items():
        print(f"# ---- {plan.folder.batch_script(name)}\n{text}")
    print("# ---- submitted by")
    for name, command in submissions(plan).items():
        print(f"# {name}: {shlex.join(command)}")


def write(plan: Plan) -> None:
    plan.folder.batch_logs.mkdir(parents=True, exist_ok=True)
    for name, text in scripts(plan).items():
        with replacing(plan.folder.batch_script(name)) as temporary:
            temporary.write_text(text, encoding="utf-8")


def submit(plan: Plan) -> dict[str, str]:
    """Name and SLURM's id of every job. Raises ValueError where sbatch is missing or refuses."""
    if shutil.which("sbatch") is None:
        raise ValueError(
            f"there is no sbatch here; the scripts are in {plan.folder.slurm}: give this command again on a login node"
        )
    ids: dict[str, str] = {}
    for name, command in submissions(plan).items():
        for other, number in ids.items():
            command = [word.replace(f"<{other}>", number) for word in command]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            before = f"; submitted before it, and to be cancelled: scancel {' '.join(ids.values())}" if ids else ""
            raise ValueError(f"sbatch refused {command[-1]}: {done.stderr.strip()}{before}")
        ids[name] = done.stdout.strip().split(";")[0]
    return ids


def require_none_queued(plan: Plan) -> None:
    """Raises ValueError where jobs of this run wait or run already."""
    found = [job for name in scripts(plan) for job in queued_jobs(plan.folder.batch_script(name))]
    if found:
        raise ValueError(
            f"jobs of {plan.run} are in the queue already ({', '.join(found)}); look with "
            f"{command_for(plan, 'status')}, or end them with scancel first"
        )


def command_for(plan: Plan, name: str, *words: str) -> str:
    """How another command is given on this run, from here."""
    return shlex.join([*another(name), *words, str(plan.run)])


def launch(arguments: list[str]) -> None:
    parsed, rest = parse(arguments)
    plan = make_plan(rest, parsed.slurm)
    if parsed.print:
        show(plan)
        return
    require_none_queued(plan)
    write(plan)
    ids = submit(plan)
    array = f"{plan.elements} retrainings at most"
    what = {SEARCH: "warm-up and search", SCORE: f"{plan.slurm.shares} shares of the scores", RETRAIN: array}
    what |= {REST: "what depends on the retrainings", CORRELATE_REST: "whether the score ranks"}
    what |= {CORRELATE: f"{plan.slurm.correlate * plan.slurm.correlate_seeds} trainings that judge the score"}
    for name, number in ids.items():
        after = f", when {ids[NEEDS[name]]} is finished" if name in NEEDS else ""
        print(f"job {number}: {what[name]}{after}")
    print(f"look:    {command_for(plan, 'status')}")
    print(f"collect: {command_for(plan, 'slurm', 'collect')}")


def collected(arguments: list[str]) -> int:
    """The exit status: 0 when all is done, 75 when something is left to do."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        asked_for_help = arguments in (["-h"], ["--help"])
        print(f"usage: {program('slurm')} collect RUN", file=sys.stdout if asked_for_help else sys.stderr)
        return DONE if asked_for_help else USER_MISTAKE
    complete = True

    def command() -> None:
        nonlocal complete
        lines, complete = collect(RunDir(Path(arguments[0])))
        print("\n".join(lines))

    status = run_command(command, lambda: True, lambda: "")
    return STOPPED if status == DONE and not complete else status


@reader_may_leave
def main() -> int:
    if sys.argv[1:2] == ["collect"]:
        return collected(sys.argv[2:])
    return run_command(lambda: launch(sys.argv[1:]), lambda: True, lambda: "nothing runs here")


if __name__ == "__main__":
    sys.exit(main())
