"""What a second process gives a search: candidates a second with 2 processes and with 1, and what communication takes.

    python benchmarks/ranks_speed.py [repetitions] [candidates]

Two processes, each pinned to a core and one thread, open and warm a run as launch/search.py does. In every repetition
the same candidates are scored twice, a generation's children at a time: by the first process alone, while the other one
sleeps in a barrier, and by both. The two take turns in going first, so that a busy moment of the machine meets both
alike. Scores are written down as in a search.

Communication is the gather of the scores, timed after a barrier: waiting for the slower process is no communication,
and is shown beside it. Both count in the time of 2 processes, and so does that barrier, which a search has not.
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from subshot.data.digits import write_digits
from subshot.data.prepare_clicks import PrepareOptions, prepare_clicks
from subshot.data.synthetic_clicks import write_synthetic_log
from subshot.launch.domain import open_domain
from subshot.launch.run_log import RunLog
from subshot.launch.search import parse
from subshot.search.evaluator import Cached, Sharded
from subshot.supernet.space import Genotype
from subshot.train.dist import World, barrier, gather_objects, joined_world
from subshot.train.run_dir import RunDir

LEAST_RATIO, MOST_COMMUNICATION = 1.8, 0.02
LOADED = 0.5
CLICK_ROWS = 20_000
WORKER = "--worker"
SEARCHES = {
    "one-shot accuracy, digits": ["digits", "--data=digits", "--warmup.recipe.epochs=1", "--score.kind=one_shot"],
    "SiGeo, synthetic clicks": ["clicks", "--data=clicks", "--score.population=16"],
    "AZ-NAS of NAS-Bench-201, digits": [
        "nasbench201-cifar10",
        "--data=digits",
        "--space.input-size=16",
        "--score.population=8",
        "--score.batch-size=16",
    ],
}


@dataclass
class Clock:
    """Seconds of one evaluation by 2 processes: in gathers, and waiting for the other one before them."""

    world: World
    gathering: float = 0.0
    waiting: float = 0.0

    def gather(self, mine: list[Any]) -> list[list[Any]]:
        began = time.perf_counter()
        barrier(self.world)
        together = time.perf_counter()
        gathered = gather_objects(mine, self.world)
        self.waiting += together - began
        self.gathering += time.perf_counter() - together
        return gathered


@dataclass
class Measured:
    """One entry a repetition. alone, both: seconds for all candidates. gathering, waiting: parts of `both`, of the
    process that had more of it."""

    candidates: int
    alone: list[float] = field(default_factory=list)
    both: list[float] = field(default_factory=list)
    gathering: list[float] = field(default_factory=list)
    waiting: list[float] = field(default_factory=list)

    def lines(self, name: str) -> tuple[list[str], int]:
        """What is printed, and how many bars were missed."""
        ratios = [one / two for one, two in zip(self.alone, self.both, strict=True)]
        shares = [part / whole for part, whole in zip(self.gathering, self.both, strict=True)]
        waits = [part / whole for part, whole in zip(self.waiting, self.both, strict=True)]
        ratio, share = statistics.median(ratios), statistics.median(shares)
        fast, cheap = ratio >= LEAST_RATIO, share < MOST_COMMUNICATION
        rates = [spread([self.candidates / seconds for seconds in timed]) for timed in (self.alone, self.both)]
        return [
            f"{name}, {self.candidates} candidates",
            f"  candidates a second: {rates[0]} with 1 process, {rates[1]} with 2",
            f"  ratio {spread(ratios)} in {len(ratios)}, at least {LEAST_RATIO}: {verdict(fast)}",
            f"  communication {spread([100 * part for part in shares])} % of the time, under "
            f"{100 * MOST_COMMUNICATION:g} %: {verdict(cheap)}; waiting for the slower process "
            f"{spread([100 * part for part in waits])} %",
        ], (not fast) + (not cheap)


def spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


def verdict(met: bool) -> str:
    return "met" if met else "MISSED"


def measure(arguments: list[str], repetitions: int, candidates: int, run: RunDir, world: World) -> Measured:
    config = parse(arguments).config
    torch.set_num_threads(1)
    domain = open_domain(config, world)
    log = RunLog(run, is_main=False)
    scorer = domain.scorer(domain.warm(run, log), run, log)
    assert isinstance(scorer.evaluator, Cached) and isinstance(scorer.evaluator.evaluator, Sharded)
    dealt = scorer.evaluator.evaluator
    drawn = domain.sampler().draw(np.random.default_rng(config.seed), 4 * candidates)
    genotypes = list(dict.fromkeys(map(domain.space.canonical, drawn)))[:candidates]
    children = config.evolution.children
    found = Measured(len(genotypes))

    def timed(evaluator: Sharded) -> float:
        began = time.perf_counter()
        for first in range(0, len(genotypes), children):
            evaluator.evaluate(genotypes[first : first + children])
        return time.perf_counter() - began

    def by_one() -> None:
        seconds = timed(Sharded(dealt.evaluator, 0, 1, lambda mine: [mine], dealt.cost)) if world.is_main else 0.0
        barrier(world)
        found.alone.append(gather_objects(seconds, world)[0])

    def by_both() -> None:
        clock = Clock(world)
        barrier(world)
        seconds = timed(replace(dealt, gather=clock.gather))
        parts = gather_objects((seconds, clock.gathering, clock.waiting), world)
        for values, part in zip((found.both, found.gathering, found.waiting), zip(*parts, strict=True), strict=True):
            values.append(max(part))

    dealt.evaluator.evaluate(genotypes[:2])  # the first candidates of a process are slower
    for repetition in range(repetitions):
        turns: list[Callable[[], None]] = [by_one, by_both]
        for turn in turns if repetition % 2 == 0 else reversed(turns):
            turn()
    require_same_scores(dealt, genotypes[: 2 * children], world)
    return found


def require_same_scores(dealt: Sharded, genotypes: list[Genotype], world: World) -> None:
    """Raises AssertionError where 2 processes give other scores than 1."""
    scores = dealt.evaluate(genotypes)
    if world.is_main:
        assert scores == dealt.evaluator.evaluate(genotypes), "the number of processes changed a score"


def work(folder: Path, repetitions: int, candidates: int) -> int:
    """One of the two processes."""
    missed = 0
    with joined_world() as world:
        for number, (name, arguments) in enumerate(SEARCHES.items()):
            run = RunDir(folder / "runs" / str(number))
            os.chdir(folder)
            lines, misses = measure(arguments, repetitions, candidates, run, world).lines(name)
            missed += misses
            if world.is_main:
                print("\n".join(lines), flush=True)
    return missed


def main() -> int:
    numbers = [int(argument) for argument in sys.argv[1:] if argument.isdigit()]
    repetitions, candidates = (numbers + [5, 40][len(numbers) :])[:2]
    if WORKER in sys.argv:
        return work(Path(sys.argv[-1]), repetitions, candidates)
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        raise SystemExit("two cores are needed, and this process may use one")
    load = os.getloadavg()[0]
    if load > LOADED:
        print(f"the machine is busy (load {load:.2f}), so these figures say little")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_digits(folder / "digits")
        raw = write_synthetic_log(folder / "raw.tsv", CLICK_ROWS, 0)
        prepare_clicks("criteo", raw, folder / "clicks", PrepareOptions(max_rows_per_table=2000))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        line = [sys.executable, __file__, WORKER, str(repetitions), str(candidates), name]
        alike = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        alike |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        processes = [
            subprocess.Popen(
                line,
                env=alike | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                preexec_fn=partial(os.sched_setaffinity, 0, {core}),
            )
            for rank, core in enumerate(cores)
        ]
        return max(process.wait() for process in processes)


if __name__ == "__main__":
    raise SystemExit(main())
