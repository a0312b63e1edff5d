"""Search for an architecture: torchrun launch/search.py PRESET --run-dir DIR [--data PATH] [--resume]
[--section.option VALUE ...]

Warms the supernet up, ranks subnets, searches with regularised evolution beside a random control and, where the
score allows it, the exact optimum; writes the run folder and its report. The last line of standard output is the
sha256 of the history.
"""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from safetensors.torch import load_file

from subshot.launch.cli import USER_MISTAKE, RunLog, run_command
from subshot.launch.config import SearchConfig, differences, from_json, to_json
from subshot.launch.environment import describe_environment
from subshot.launch.explore import explore
from subshot.launch.presets import PRESETS
from subshot.launch.report import write_report
from subshot.launch.scoring import make_scorer, require_scorable
from subshot.launch.spectra import measure_spectra
from subshot.launch.vision import Images, make_constraints, make_space, make_supernet, open_images, warmup_loader
from subshot.launch.warmup import warm_up
from subshot.search.sampling import LegalSampler
from subshot.supernet.indicators import read_indicators
from subshot.train.dist import World, barrier, joined_world
from subshot.train.run_dir import RunDir, file_digest, read_json, write_json


@dataclass(frozen=True)
class SearchArguments(SearchConfig):
    """Where the run lies, whether it goes on, and every setting of the preset."""

    run_dir: Path | None = None
    """The run folder; None: runs/<preset>."""
    resume: bool = False
    """Go on with the run in that folder, with the same settings; a finished one is only reported."""

    def run(self) -> RunDir:
        return RunDir(self.run_dir or Path("runs") / self.preset)

    def config(self) -> SearchConfig:
        shared = {name: getattr(self, name) for name in SearchConfig.__dataclass_fields__}
        return SearchConfig(**shared)


def parse(arguments: list[str]) -> SearchArguments:
    """The preset's settings with the command line's over them. Exits with 2 where the line is not understood."""
    known = "\n".join(f"  {name:26}{summary(preset.__doc__)}" for name, preset in PRESETS.items())
    if not arguments or arguments[0] in ("-h", "--help"):
        usage = "usage: launch/search.py PRESET [--help] [--run-dir DIR] [--data PATH] [--resume] ..."
        print(f"{usage}\n\npresets:\n{known}")
        sys.exit(0 if arguments else USER_MISTAKE)
    if arguments[0] not in PRESETS:
        print(f"error: there is no preset {arguments[0]!r}; the presets are:\n{known}", file=sys.stderr)
        sys.exit(USER_MISTAKE)
    preset = PRESETS[arguments[0]]()
    settings = {name: getattr(preset, name) for name in SearchConfig.__dataclass_fields__}
    prog = f"launch/search.py {arguments[0]}"
    parsed: SearchArguments = tyro.cli(
        tyro.conf.SuppressFixed[SearchArguments],
        default=SearchArguments(**settings),
        args=arguments[1:],
        prog=prog,
        description=preset.__doc__,
    )
    return parsed


def summary(docstring: str | None) -> str:
    """What the first paragraph of a preset's docstring says after its command."""
    return " ".join((docstring or "").split("\n\n")[0].split()).split(": ", 1)[-1]


def open_run(run: RunDir, config: SearchConfig, resume: bool, world: World) -> None:
    """Creates the run folder, or checks that the one that is there may be gone on with. Raises ValueError where not."""
    wanted = to_json(config)
    if run.config_json.is_file():
        if not resume:
            raise ValueError(
                f"{run.root} holds a run already; add --resume to go on with it, or choose another --run-dir"
            )
        saved = read_json(run.config_json)
        from_json(SearchConfig, saved, str(run.config_json))
        changed = differences(saved, wanted)
        if changed:
            raise ValueError(
                f"{run.root} was begun with other settings; resume with the same ones ({'; '.join(changed)})"
            )
    barrier(world)
    if world.is_main:
        write_json(run.config_json, wanted)
        write_json(run.environment_json, describe_environment(world))
    barrier(world)


def search(arguments: SearchArguments, world: World) -> None:
    config, run = arguments.config(), arguments.run()
    torch.set_num_threads(config.threads)
    images = open_images(config, world)
    space = make_space(config.space, len(images.classes))
    sampler = LegalSampler(space, make_constraints(config.limits, space))
    loader = warmup_loader(config, images.train, world)
    require_scorable(config, space, config.warmup.recipe.epochs * loader.steps_per_epoch)
    open_run(run, config, arguments.resume, world)
    with RunLog(run, world.is_main) as log:
        log.line(f"{config.preset}: {world.size} process(es) on {world.device}; run folder {run.root}")
        log.line(summary_of(images))
        supernet = make_supernet(config.supernet, space, config.seed, world.device)
        if run.supernet.is_file():
            supernet.load_state_dict(load_file(run.supernet, device=str(world.device)))
            log.line("the supernet is warm already")
        else:
            if world.is_main:
                write_json(run.spectrum_json, {"initial": measure_spectra(supernet, config.seed)})
            barrier(world)
            shards = config.images.num_shards
            warm_up(supernet, loader, config.warmup, config.score, config.seed, shards, world, run, log)
        if world.is_main and not run.indicators_json.is_file():
            trained = measure_spectra(supernet, config.seed, recalibrate=True)
            write_json(run.spectrum_json, read_json(run.spectrum_json) | {"trained": trained})
            write_json(run.indicators_json, indicators_record(config, supernet))
        scorer = make_scorer(config, supernet, images, world, run)
        if scorer.caution is not None:
            log.line(f"caution: {scorer.caution}")
        explore(config, space, sampler, scorer, world, run, log)
        barrier(world)
        if world.is_main:
            write_report(run)
            log.line(f"report: {run.report_html}")
            print(file_digest(run.history_jsonl))


def summary_of(images: Images) -> str:
    skipped = len(images.train.skipped) + len(images.val.skipped)
    left_out = f", {skipped} bad files left out" if skipped else ""
    return (
        f"images: {len(images.train)} to train on, {len(images.search)} held out of train for one-shot scores, "
        f"{len(images.val)} untouched for the test; {len(images.classes)} classes{left_out}"
    )


def indicators_record(config: SearchConfig, supernet: Any) -> dict[str, Any]:
    indicators = read_indicators(supernet, config.score.statistic)
    return {
        "statistic": config.score.statistic,
        "decisions": {d.name: list(d.choices) for d in supernet.space.decisions},
        "block": [list(row) for row in indicators.block],
        "layer": list(indicators.layer),
    }


def main() -> int:
    arguments = parse(sys.argv[1:])
    rank = int(os.environ.get("RANK", "0"))
    again = [argument for argument in sys.argv if argument != "--resume"]
    resume = f"go on with: {shlex.join([*again, '--resume'])}"

    def command() -> None:
        with joined_world() as world:
            search(arguments, world)

    return run_command(command, lambda: rank == 0, resume)


if __name__ == "__main__":
    sys.exit(main())
