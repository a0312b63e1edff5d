"""How well scores without training rank trained networks: launch/correlate.py BENCHMARK --data FOLDER --proxies a,b
(and how well the score of a run ranks its networks: launch/correlate.py RUN; launch/correlate.py RUN --help)

Measures the proxies on the benchmark's freshly initialised networks, or on a seeded sample of them (also under
torchrun), and prints tau, rho, nDCG and more of each beside the costs and published values. A stopped command goes on
when it is given again, on any number of processes. --scores FILE judges a table of scores without measuring. Writes
scores.csv.gz, table.json and tau.svg; the last line of standard output is the path of table.json.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro

from subshot.launch.cli import DONE, USER_MISTAKE, go_on, nearest, run_command
from subshot.launch.correlation import run as correlation_run
from subshot.launch.correlation.benchmark_report import JudgingSettings, as_json, as_text, judge, picture, read_scores
from subshot.launch.correlation.benchmark_scores import (
    BENCHMARKS,
    COSTS,
    Benchmark,
    CorrelationDir,
    ScoringSettings,
    drawn,
    open_folder,
    read_batches,
    read_warmup,
    score_all,
    write_scores,
)
from subshot.launch.correlation.run import CorrelateRunArguments, correlate_run
from subshot.launch.job import claimed_by_main
from subshot.launch.options import at_least
from subshot.launch.parsing import parsed
from subshot.launch.pipe import reader_may_leave
from subshot.launch.retrain import patience_minutes
from subshot.launch.started import program
from subshot.proxies import PROXIES
from subshot.train.dist import World, barrier, joined_world
from subshot.train.run_dir import RunDir, file_digest, replacing, write_json


@dataclass(frozen=True)
class CorrelateArguments:
    """Which networks, which scores, and how they are judged."""

    benchmark: tyro.conf.Positional[str]
    """nasbench201; or the folder of a run, which has options of its own."""
    data: Path
    """Folder with the benchmark's table and, for measuring, CIFAR-10's sample: nasbench201.csv.gz,
    cifar10_train10k.npz, cifar10_test2k.npz."""
    proxies: str = ""
    """Names with commas between them, or all; with --scores the columns to judge, all by default."""
    sample: int = 0
    """How many networks of the set; 0 for all. A larger sample of the same seed holds the smaller."""
    networks: Annotated[Literal["all", "filtered", "distinct"], tyro.conf.arg(name="set")] = "all"
    """all: every string of the benchmark. filtered: those without a dead edge (9,445 of nasbench201). distinct: one of
    each class of isomorphic cells (6,466), which is enough to drive a search over all."""
    seed: int = 0
    """Of the sample, the images, the initial weights, what proxies draw, and the bootstrap."""
    out: Path | None = None
    """The folder to write; None: runs/correlate/<benchmark>-<set>-<sample>-seed<seed>."""
    accuracy: str = "c10_test_200"
    """What is to be predicted: <c10|c100|in16>_<test|valid>_<200|12>."""
    batch_size: int = 64
    """Training images of the batches that networks are scored on."""
    warmup: float = 0.0
    """The share of the training images, 0 to 1, on which each network is trained before it is scored, in one pass."""
    undefined: Literal["last", "left_out"] = "last"
    """Networks without a score rank below all others, or are left out of that score's statistics."""
    top: int = 0
    """How many best networks the recall is of; 0 for a tenth of them."""
    resamples: int = 500
    """Of the bootstrap."""
    threads: int = 1
    """torch threads a process. One makes scores independent of the number of processes, bit for bit."""
    timeout_minutes: float = 1440.0
    """How long a process that has scored its share waits for the others."""
    scores: Path | None = None
    """A CSV, plain or gzip, with a column index and columns of scores: judged without measuring anything. Columns that
    are no proxies of subshot are taken as higher is better."""


def chosen_proxies(words: str) -> tuple[str, ...]:
    """Names of PROXIES, each once, in the order given, but for costs, which stand in every table. Raises ValueError for
    another name or none."""
    names = tuple(dict.fromkeys(word.strip() for word in words.split(",") if word.strip()))
    if "all" in names:
        names = tuple(PROXIES)
    if not names:
        raise ValueError(f"name the proxies with commas between them: --proxies a,b, or all; {nearest('', PROXIES)}")
    for name in names:
        if name not in PROXIES:
            raise ValueError(f"there is no proxy {name!r}; {nearest(name, PROXIES)}")
    return tuple(name for name in names if name not in COSTS)


def check(arguments: CorrelateArguments) -> None:
    """Raises ValueError for what can be refused before anything is read."""
    if arguments.benchmark not in BENCHMARKS:
        raise ValueError(unknown(arguments.benchmark))
    at_least("--", arguments, sample=0, seed=0, batch_size=1, top=0, resamples=1, threads=1)
    if arguments.seed >= 2**63:
        raise ValueError(f"--seed is {arguments.seed}; it must be below 2^63")
    if arguments.out is not None and arguments.out.exists() and not arguments.out.is_dir():
        raise ValueError(f"--out {arguments.out} is a file; name a folder")
    if arguments.scores is not None and arguments.out is not None and (arguments.out / "manifest.json").exists():
        raise ValueError(
            f"--out {arguments.out} holds measured scores; choose another folder for what --scores is judged"
        )
    if not 0.0 <= arguments.warmup <= 1.0:
        raise ValueError(f"--warmup is {arguments.warmup}; it is a share of the training images, from 0 to 1")
    if not arguments.data.is_dir():
        raise ValueError(f"the data folder {arguments.data} does not exist")


def folder_of(arguments: CorrelateArguments) -> CorrelationDir:
    size = str(arguments.sample or "whole")
    derived = f"{arguments.benchmark}-{arguments.networks}-{size}-seed{arguments.seed}"
    if arguments.warmup:
        derived = f"{derived}-warmup{arguments.warmup:g}"
    if arguments.scores is not None:
        derived = f"{derived}-{arguments.scores.name.split('.')[0]}"
    return CorrelationDir(arguments.out or Path("runs") / "correlate" / derived)


def measured(
    arguments: CorrelateArguments, benchmark: Benchmark, folder: CorrelationDir, world: World
) -> tuple[list[int], dict[str, Any], list[dict[str, Any]]]:
    """(Entries, raw scores by proxy, lines), measured by all ranks or taken from what is there already."""
    names = chosen_proxies(arguments.proxies)
    settings = ScoringSettings(
        arguments.benchmark,
        arguments.networks,
        arguments.sample,
        arguments.seed,
        names,
        arguments.batch_size,
        arguments.threads,
        arguments.warmup,
    )
    rows = drawn(np.flatnonzero(benchmark.sets[arguments.networks]), arguments.sample, arguments.seed)
    batches = read_batches(arguments.data, settings, world.device)
    warmup = read_warmup(arguments.data, settings, world.device)
    digests = {f"{name}_sha256": file_digest(arguments.data / name) for name in BENCHMARKS[arguments.benchmark][1]}
    manifest = {**asdict(settings), "proxies": list(names), "device": world.device.type, **digests}
    with claimed_by_main(folder.claim_json, f"launch/correlate.py in {folder.root}", world):
        open_folder(folder, manifest, world)
        found = score_all(benchmark, rows, settings, batches, warmup, folder, world)
    if world.is_main:
        write_scores(folder.scores_csv, benchmark, found, names)
    lines = list(found.values())
    columns = {name: np.array([line["scores"][name] for line in lines], dtype=np.float64) for name in names}
    return rows, columns, lines


def given(arguments: CorrelateArguments, benchmark: Benchmark, path: Path) -> tuple[list[int], dict[str, Any]]:
    """(Entries, raw scores by column) of a table's networks that are in the set, or of a sample of those."""
    names = [word.strip() for word in arguments.proxies.split(",") if word.strip() not in ("", "all")]
    numbers, columns = read_scores(path, benchmark, names)
    rows = benchmark.rows_of(numbers)
    candidates = rows[benchmark.sets[arguments.networks][rows]]
    if len(candidates) == 0:
        raise ValueError(f"{path} has no network of the set {arguments.networks}")
    kept = drawn(candidates, arguments.sample, arguments.seed)
    places = np.searchsorted(rows, kept)
    return kept, {name: column[places] for name, column in columns.items()}


def correlate(arguments: CorrelateArguments, world: World) -> None:
    check(arguments)
    if arguments.scores is None:
        chosen_proxies(arguments.proxies)
    torch.set_num_threads(arguments.threads)
    benchmark = BENCHMARKS[arguments.benchmark][0](arguments.data)
    if arguments.accuracy not in benchmark.accuracies:
        known = nearest(arguments.accuracy, benchmark.accuracies)
        raise ValueError(f"{benchmark.name} has no accuracy {arguments.accuracy!r}; {known}")
    folder = folder_of(arguments)
    lines: list[dict[str, Any]] = []
    if arguments.scores is None:
        rows, scores, lines = measured(arguments, benchmark, folder, world)
    else:
        rows, scores = given(arguments, benchmark, arguments.scores)
    if world.is_main:
        settings = JudgingSettings(
            arguments.accuracy,
            arguments.networks,
            arguments.sample,
            arguments.seed,
            arguments.top,
            arguments.resamples,
            arguments.undefined,
        )
        report = judge(benchmark, rows, scores, settings, lines)
        write_json(folder.table_json, {**as_json(report), "warmup": arguments.warmup})
        with replacing(folder.picture) as temporary:
            temporary.write_text(picture(report), encoding="utf-8")
        print(as_text(report))
        if lines:
            median = float(np.median([line["milliseconds"] for line in lines]))
            if arguments.warmup:
                print(
                    f"each network was trained on {100 * arguments.warmup:g} % of the training images first; published "
                    "values are of untrained ones"
                )
            print(f"measured on batches of {arguments.batch_size} training images, {median:.0f} ms a network (median)")
        print(folder.table_json)
    barrier(world)


def names_a_run(words: Sequence[str]) -> bool:
    """Whether the command is about a run folder, and not about a benchmark. Raises ValueError where what stands first
    is neither."""
    if set(words) & set(BENCHMARKS):
        return False
    if "RUN" in words and set(words) & {"-h", "--help"}:  # as the first page says it
        return True
    if any(RunDir(Path(word)).config_json.is_file() for word in words):
        return True
    if words and not words[0].startswith("-"):
        raise ValueError(unknown(words[0]))
    return False


def unknown(name: str) -> str:
    known = nearest(name, BENCHMARKS)
    return f"there is no benchmark {name!r}; {known} (nor is it a run folder, which would have a config.json)"


def first_page() -> str:
    """What `--help` says alone: the two forms."""
    name = program("correlate")
    return f"""usage: {name} RUN [--sample N] [--seeds K] [--proxies a,b] ...
       {name} {"|".join(BENCHMARKS)} --data FOLDER --proxies a,b [--sample N] ...

How well scores rank networks.

Of a run of your own: trains some of its networks from scratch, compares the order of the score with theirs, and adds
the answer to the run's report. Of a benchmark: judges scores without training against its trained networks.

all options of the two forms:
  {name} RUN --help
  {name} {next(iter(BENCHMARKS))} --help"""


def of_a_run() -> None:
    name = f"{program('correlate')} RUN"
    arguments = parsed(CorrelateRunArguments, sys.argv[1:], name, correlation_run.__doc__)
    names = chosen_proxies(arguments.proxies) if arguments.proxies.strip() else ()
    patience = patience_minutes(RunDir(arguments.run), arguments.timeout_minutes)
    with joined_world(patience, arguments.checkpoint_minutes) as world:
        correlate_run(arguments, names, world)


@reader_may_leave
def main() -> int:
    rank = int(os.environ.get("RANK", "0"))
    if not sys.argv[1:] or sys.argv[1] in ("-h", "--help"):
        print(first_page())
        return DONE if sys.argv[1:] else USER_MISTAKE

    def command() -> None:
        if names_a_run(sys.argv[1:]):
            of_a_run()
            return
        arguments = parsed(CorrelateArguments, sys.argv[1:], program("correlate"), __doc__)
        with joined_world(arguments.timeout_minutes) as world:
            correlate(arguments, world)

    return run_command(command, lambda: rank == 0, go_on)


if __name__ == "__main__":
    sys.exit(main())
