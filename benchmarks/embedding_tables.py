"""What a training step costs in the embedding tables alone: ratios measured side by side, interleaved, in one run.

    python benchmarks/embedding_tables.py [--repetitions 15]

1. A step of the fused kernel (lookup, backward, Adagrad on the rows that were looked up) against the same step through
a dense gradient (torch.optim.Adagrad over all rows), and the memory of each in a process of its own. 2. Row-wise
Adagrad. 3. What the exact global gradient norm adds. 4. A frozen lookup, as in scoring.

The 26 fields of the Criteo Kaggle log with their cardinalities, capped at 0.5 M rows as in a search; dimension 16; one
thread; on a GPU, where there is one, with fbgemm's CUDA kernels. Ids are drawn log-uniformly: small ones are frequent.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro

from subshot.data.batch import ClickBatch
from subshot.data.keyed_ids import keyed_ids
from subshot.train.dist import World
from subshot.train.table_storage import TableOptimizer
from subshot.train.tables import Tables, TablesConfig, build_tables, tables_mib

# fmt: off
CARDINALITIES = (
    1460, 583, 10131227, 2202608, 305, 24, 12517, 633, 3, 93145, 5683, 8351593, 3194,
    27, 14992, 5461306, 10, 5652, 2173, 4, 7046547, 18, 15, 286181, 105, 142572,
)
# fmt: on
FIELDS = [(f"C{place}", count) for place, count in enumerate(CARDINALITIES, start=1)]
BATCHES = 8


@dataclass(frozen=True)
class Arguments:
    repetitions: int = 15
    batch_size: int = 512
    max_rows: int = 500_000
    memory_of: TableOptimizer | None = None
    """Used by the benchmark itself: runs steps of this kind and prints the peak memory of the process in MiB."""


def config_of(optimizer: TableOptimizer, arguments: Arguments) -> TablesConfig:
    return TablesConfig(optimizer=optimizer, max_rows=arguments.max_rows)


def make_tables(optimizer: TableOptimizer, arguments: Arguments, world: World) -> Tables:
    tables = build_tables(FIELDS, config_of(optimizer, arguments), 0, world)
    tables.set_learning_rate(0.01)
    return tables


def make_batches(arguments: Arguments, world: World) -> list[ClickBatch]:
    generator = torch.Generator().manual_seed(0)
    rows = torch.tensor([min(count, arguments.max_rows) for count in CARDINALITIES])
    batches = []
    for _ in range(BATCHES):
        exponent = torch.rand(len(FIELDS), arguments.batch_size, generator=generator, dtype=torch.float64)
        ids = (rows[:, None].double() ** exponent).long().clamp(max=rows[:, None] - 1)
        sparse = keyed_ids([name for name, _ in FIELDS], ids)
        labels = torch.zeros(arguments.batch_size)
        batches.append(ClickBatch(torch.zeros(arguments.batch_size, 0), sparse, labels).to(world.device))
    return batches


def milliseconds(
    first: Callable[[int], object], second: Callable[[int], object], repetitions: int, world: World
) -> tuple[np.ndarray, np.ndarray]:
    """Of each, taken in turn, each time on another batch, after both have seen all batches once."""
    taken = np.zeros((2, repetitions))
    for turn in range(-BATCHES, repetitions):
        for place, run in enumerate((first, second)):
            began = time.perf_counter()
            run(turn % BATCHES)
            if world.device.type == "cuda":
                torch.cuda.synchronize()
            if turn >= 0:
                taken[place, turn] = 1e3 * (time.perf_counter() - began)
    return taken[0], taken[1]


def peak_memory_mib(arguments: Arguments, optimizer: TableOptimizer, world: World) -> float:
    """Of the device, or of this process less what it had before its tables."""
    before = 0.0 if world.device.type == "cuda" else resident_peak_mib()
    tables, gradient = make_tables(optimizer, arguments, world), make_gradient(arguments, world)
    for batch in make_batches(arguments, world):
        tables(batch).backward(gradient)
    return torch.cuda.max_memory_allocated() / 2**20 if world.device.type == "cuda" else resident_peak_mib() - before


def resident_peak_mib() -> float:
    status = Path("/proc/self/status").read_text()  # getrusage's peak would be that of the process which started this
    return float(status.split("VmHWM:")[1].split()[0]) / 2**10


def make_gradient(arguments: Arguments, world: World) -> torch.Tensor:
    return torch.randn(arguments.batch_size, len(FIELDS), 16, device=world.device)


def report_memory(arguments: Arguments) -> None:
    peaks = {}
    for optimizer in ("adagrad", "rowwise_adagrad", "adagrad_dense"):
        command = [sys.executable, __file__, "--memory-of", optimizer, "--max-rows", str(arguments.max_rows)]
        environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}  # freed memory leaves the process at once
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        peaks[optimizer] = float(done.stdout)
        foretold = tables_mib(FIELDS, config_of(optimizer, arguments))
        print(f"memory of {optimizer}: {foretold:.0f} MiB foretold, peak {peaks[optimizer]:.0f} MiB with all else")
    print(f"    fused / dense: {peaks['adagrad'] / peaks['adagrad_dense']:.2f}")


def report(name: str, first: np.ndarray, second: np.ndarray) -> None:
    ratios = first / second
    low, high = np.quantile(ratios, (0.25, 0.75))
    print(
        f"{name}: ratio {np.median(ratios):.2f} (middle half {low:.2f} to {high:.2f}); "
        f"medians {np.median(first):.2f} and {np.median(second):.2f} ms",
        flush=True,
    )


def main() -> None:
    arguments = tyro.cli(Arguments, description=__doc__)
    torch.set_num_threads(1)
    world = World(0, 1, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    if arguments.memory_of is not None:
        print(peak_memory_mib(arguments, arguments.memory_of, world))
        return
    fused, rowwise, dense = (
        make_tables(optimizer, arguments, world) for optimizer in ("adagrad", "rowwise_adagrad", "adagrad_dense")
    )
    batches, gradient = make_batches(arguments, world), make_gradient(arguments, world)

    def clipped(place: int) -> None:
        pooled = fused(batches[place])
        norm = fused.gradient_square_norm(batches[place], gradient) ** 0.5
        pooled.backward(gradient * min(1.0, 5.0 / norm))

    def frozen(place: int) -> None:
        with torch.no_grad():
            fused(batches[place])

    def step(tables: Tables) -> Callable[[int], object]:
        return lambda place: tables(batches[place]).backward(gradient)

    print(f"batch {arguments.batch_size}, {len(FIELDS)} tables of at most {arguments.max_rows:,} rows, {world.device}")
    report("dense step / fused step", *milliseconds(step(dense), step(fused), arguments.repetitions, world))
    more = 20 * arguments.repetitions  # without the dense step, which also empties the caches before the other
    report("row-wise fused step / fused step", *milliseconds(step(rowwise), step(fused), more, world))
    report("fused step with global clip / without", *milliseconds(clipped, step(fused), more, world))
    report("frozen lookup / fused step", *milliseconds(frozen, step(fused), more, world))
    report_memory(arguments)


if __name__ == "__main__":
    main()
