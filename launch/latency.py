"""Measure a latency table of a chain space: python launch/latency.py PRESET_OR_RUN [--out FILE] [--runtime torch] ...

Every different candidate operation is timed once, by itself, and stem and head; a network's latency is then the sum of
its operations. Whole networks, spread over MACs, are timed in the same turns: they calibrate the sum (one half) and
say how far it is off (the other half), beside MACs alone. The last line of standard output is the path of the table,
for --limits.latency-table.
"""

from __future__ import annotations

import dataclasses
import random
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
import torch
import tyro
from torch import nn
from tqdm import tqdm

from subshot.launch.cli import USER_MISTAKE, begin_again, nearest, run_command
from subshot.launch.config import SpaceConfig, VisionConfig, to_json
from subshot.launch.domain import read_config
from subshot.launch.latency_tables.chain import (
    Operation,
    Shape,
    head_module,
    network_module,
    networks_over_macs,
    operation_module,
    operations,
    stem_module,
    summed,
)
from subshot.launch.latency_tables.fit import Errors, calibrated, coarse, interpolated, judged, percent
from subshot.launch.latency_tables.measure import (
    MeasureConfig,
    Program,
    device_name,
    make_program,
    measured,
    runtime_version,
)
from subshot.launch.latency_tables.table import table_record
from subshot.launch.options import at_least
from subshot.launch.parsing import parsed
from subshot.launch.pipe import reader_may_leave
from subshot.launch.presets import PRESETS
from subshot.launch.started import program
from subshot.launch.vision.build import make_space
from subshot.supernet.chain import ChainSpace
from subshot.supernet.space import Genotype
from subshot.train.run_dir import RunDir, read_json, write_json

Key = str | Operation | Genotype
"""Of a program: "nothing", "stem" or "head"; an operation; a whole network."""
T = TypeVar("T")

CHECKED = 5
"""Operations that --coarse leaves out, and that are measured after all, to say how good interpolation is."""


BUSY_PERCENT = 10.0
"""By which the two halves of the rounds may differ."""


@dataclass(frozen=True)
class LatencyArguments:
    """What to measure, and how. The space and the number of classes are the preset's or the run's."""

    space: SpaceConfig
    classes: int
    """Of the data that the search will have: 1000 for presets of ImageNet, 10 for others, and a run's own by default.
    The search refuses a table for another number."""
    out: Path
    """The table. It must not exist."""
    measure: Annotated[MeasureConfig, tyro.conf.arg(name="")] = field(default_factory=MeasureConfig)
    networks: int = 20
    """Whole networks that are measured, one half to calibrate the sum, the other to judge it."""
    calibrate: bool = True
    """Write the table with base and operations scaled so that sums fit the first half of the networks."""
    coarse: int = 1
    """Of the shapes of one kind of operation, in order of MACs, measure every so many, and the first and the last;
    interpolate the others. 1: all."""
    seed: int = 0
    """Of the networks and of the order of turns."""

    def __post_init__(self) -> None:
        at_least("--", self, networks=8, coarse=1, classes=1, seed=0)


@dataclass(frozen=True)
class Measured:
    """Milliseconds of all timed calls, by program and turn."""

    turns: dict[Key, list[list[float]]]

    def ms(self, key: Key) -> float:
        """The median over turns, each of which counts by its fastest call: another program's turn on the same core
        stretches some calls, and shortens none."""
        return float(np.median([min(turn) for turn in self.turns[key]]))

    def net_ms(self, key: Key) -> float:
        """Less what a program takes that does nothing."""
        return max(0.0, self.ms(key) - self.ms("nothing"))

    def row(self, key: Key) -> dict[str, float]:
        """p95_ms: of all calls."""
        return {"ms": self.ms(key), "p95_ms": float(np.percentile(self.turns[key], 95))}

    def halves_differ_percent(self, keys: Sequence[Key]) -> float:
        """How far the later half of the rounds is from the earlier one, by `ms`: what the machine's mood does."""
        half = len(self.turns[keys[0]]) // 2
        first, second = (Measured({k: self.turns[k][part] for k in keys}) for part in (slice(half), slice(half, None)))
        return percent(np.array([second.ms(key) for key in keys]), np.array([first.ms(key) for key in keys]))


def measure_table(arguments: LatencyArguments) -> tuple[dict[str, Any], list[str]]:
    """The table as it is written, and what it says of itself, in lines."""
    space = make_space(arguments.space, arguments.classes)
    wanted = operations(space)
    chosen = set(chosen_operations(wanted, arguments.coarse))
    skipped = [one for one in wanted if one not in chosen]
    checked = random.Random(arguments.seed).sample(skipped, min(CHECKED, len(skipped)))
    networks = networks_over_macs(space, arguments.networks, arguments.seed)
    found = times_of(space, [*(one for one in wanted if one in chosen), *checked], networks, arguments)
    of = {one: found.net_ms(one) for one in chosen}
    for one in skipped:
        of[one] = interpolated(one.macs, [(o.macs, of[o]) for o in chosen if o.kind == one.kind])
    base_ms = found.net_ms("stem") + found.net_ms("head") + found.ms("nothing")
    latency = summed(space, base_ms, of)
    sums = np.array([latency(genotype) - base_ms for genotype in networks])
    macs = np.array([space.costs["macs"](genotype) for genotype in networks])
    network_ms = np.array([found.ms(genotype) for genotype in networks])
    line, errors = judged(base_ms, sums, macs, network_ms, np.arange(len(networks)) % 2 == 0)
    is_calibrated = arguments.calibrate and line.factor > 0.0
    table = calibrated(latency, line) if is_calibrated else latency
    check = percent(*np.array([(of[one], found.net_ms(one)) for one in checked]).T) if checked else None
    provenance = {
        "space_config": to_json(arguments.space),
        "device_name": device_name(arguments.measure),
        "runtime_version": runtime_version(arguments.measure),
        **to_json(arguments.measure),
        "seed": arguments.seed,
        "is_calibrated": is_calibrated,
        "calibration": dataclasses.asdict(line),
        "errors": dataclasses.asdict(errors),
        "halves_differ_percent": found.halves_differ_percent(networks),
        "coarse": {"every": arguments.coarse, "interpolated": len(skipped), "checked": len(checked), "percent": check},
        "parts": {name: found.row(name) for name in ("nothing", "stem", "head")},
        "operations": [
            one.to_json() | (found.row(one) if one in chosen else {"interpolated_ms": of[one]}) for one in wanted
        ],
        "networks": [
            {"genotype": list(genotype), "macs": space.cost(genotype).macs, "table_ms": table(genotype)}
            | found.row(genotype)
            for genotype in networks
        ],
    }
    return table_record(space, table, provenance), said_of(space, provenance, errors)


def times_of(
    space: ChainSpace, wanted: Sequence[Operation], networks: Sequence[Genotype], arguments: LatencyArguments
) -> Measured:
    """Builds the programs, and times them in turns."""
    config = arguments.measure
    torch.set_num_threads(config.threads)
    torch.manual_seed(arguments.seed)
    modules: dict[Key, tuple[nn.Module, Shape]] = {
        "nothing": (nn.ReLU(), (1, 1, 1)),
        "stem": stem_module(space),
        "head": head_module(space),
        **{one: operation_module(space, one) for one in wanted},
        **{genotype: network_module(space, genotype) for genotype in networks},
    }
    programs: dict[Key, Program] = {}
    for key, (module, shape) in shown(modules.items(), len(modules), "building"):
        programs[key] = make_program(module, shape, config)
    rounds = shown(measured(programs, config, arguments.seed), config.rounds, "measuring")
    return Measured(list(rounds)[-1])


def chosen_operations(wanted: Iterable[Operation], every: int) -> Iterator[Operation]:
    """Those that are measured."""
    kinds: dict[tuple[str, str, int], list[Operation]] = {}
    for one in wanted:
        kinds.setdefault(one.kind, []).append(one)
    for ones in kinds.values():
        ones.sort(key=lambda one: one.macs)
        yield from (ones[i] for i in coarse(len(ones), every))


def said_of(space: ChainSpace, provenance: dict[str, Any], errors: Errors) -> list[str]:
    networks, rough = provenance["networks"], provenance["coarse"]
    ms = [row["ms"] for row in networks]
    count = len(provenance["operations"]) - rough["interpolated"]
    lines = [
        f"{space.name}: {count} operations, and {len(networks)} networks of {min(ms):.4g} to {max(ms):.4g} ms",
        f"{provenance['runtime']} {provenance['runtime_version']} on {provenance['device_name']}, batch "
        f"{provenance['batch_size']}, {provenance['threads']} thread(s)",
        f"mean absolute error on {len(networks) // 2} networks: the sum as measured {errors.sum_percent:.1f} %, "
        f"calibrated on the others {errors.calibrated_percent:.1f} %, MACs alone so {errors.macs_percent:.1f} %",
        f"Kendall's tau with measured networks: the sum {errors.sum_tau:.3f}, MACs alone {errors.macs_tau:.3f}",
        f"noise: second half of the rounds {provenance['halves_differ_percent']:.1f} % from the first, same networks",
    ]
    if provenance["halves_differ_percent"] > BUSY_PERCENT:
        lines.append(
            "caution: the machine was busy with other things; measure again when it is not, or with more --rounds"
        )
    if rough["interpolated"]:
        checked = f"{rough['checked']} of them that were measured as well"
        lines.append(f"{rough['interpolated']} operations interpolated, off by {rough['percent']:.1f} % on {checked}")
    return lines


def shown(items: Iterable[T], total: int, text: str) -> Iterator[T]:
    """Behind a progress bar, on a terminal."""
    yield from tqdm(items, total=total, desc=text, disable=not sys.stderr.isatty(), leave=False, file=sys.stderr)


def of_preset_or_run(name: str) -> tuple[VisionConfig, int | None]:
    """The configuration that is named, and the number of classes where a run knows it. Raises ValueError where there is
    none, or it searches no chain."""
    classes: int | None = None
    if name in PRESETS:
        config: Any = PRESETS[name]()
    elif (run := RunDir(Path(name))).config_json.is_file():
        config, classes = read_config(run), int(read_json(run.data_json).get("classes", 0))
    else:
        raise ValueError(f"there is no preset and no run folder {name!r}; {nearest(name, chains())}")
    if not isinstance(config, VisionConfig):
        raise ValueError(
            f"{name} searches {config.space.name}, which is no chain of layers; latency tables are of chains"
        )
    return config, classes


def chains() -> list[str]:
    """Presets of which a table can be."""
    return [name for name in PRESETS if isinstance(PRESETS[name](), VisionConfig)]


def parse(arguments: list[str]) -> LatencyArguments:
    """Exits with 2 where the line is not understood; raises ValueError as `of_preset_or_run` does."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"usage: {program('latency')} PRESET_OR_RUN [--help] [--out FILE] [--classes N] ...\n\n{__doc__}")
        print(f"presets: {', '.join(chains())}\nall options: {program('latency')} PRESET_OR_RUN --help")
        sys.exit(0 if arguments else USER_MISTAKE)
    config, classes = of_preset_or_run(arguments[0])
    of_preset = 1000 if config.preset.endswith("-imagenet") else 10
    default = LatencyArguments(config.space, classes or of_preset, Path(f"runs/latency-{config.preset}.json"))
    name = f"{program('latency')} {arguments[0]}"
    return parsed(LatencyArguments, arguments[1:], name, __doc__, default)


def command(words: list[str]) -> None:
    arguments = parse(words)
    if arguments.out.exists():
        raise ValueError(f"{arguments.out} exists; name another --out, or delete it")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    record, lines = measure_table(arguments)
    write_json(arguments.out, record)
    print("\n".join([*lines, str(arguments.out)]))


@reader_may_leave
def main() -> int:
    return run_command(lambda: command(sys.argv[1:]), lambda: True, lambda: f"no table was written; {begin_again()}")


if __name__ == "__main__":
    sys.exit(main())
