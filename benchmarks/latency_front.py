"""Latency tables and NSGA-II on the 27 device settings of NAS-Bench-201, where every network was trained and timed.

    python benchmarks/latency_front.py FOLDER [--devices NAME ...] [--sample 200] [--evaluations 500] [--population 20]
        [--seeds 10]

FOLDER holds nasbench201.csv.gz and nasbench201_latency_help.csv.gz. Accuracy: CIFAR-10, test, 200 epochs, per cent. The
341 networks whose output does not depend on their input are left out: some devices' compilers removed them.

table: milliseconds of every operation on every edge, fitted by least squares on --sample networks and judged on all
others: mean and median absolute error, Kendall's tau, and the tau of MACs on the same networks. That is the additive
form that launch/latency.py measures; here operations were not timed by themselves, so it is fitted.

front: what part of the hypervolume of the true front of accuracy and measured latency is found with --evaluations
networks, counted from the median accuracy and the front's highest latency. nsga2: launch/search.py's, told measured
latencies. by table: told those of the fitted table instead, as a run is, and judged by the measured ones. by MACs:
told MACs. random: as many different random networks. Mean over seeds, +- standard deviation; each seed has a table of
its own.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from subshot.data.nasbench import DEVICES, read_nasbench201, read_nasbench201_latency
from subshot.launch.cli import nearest
from subshot.search.evaluator import Infeasible, Score
from subshot.search.evolution import EvolutionConfig, init, random_search
from subshot.search.front import front_of, hypervolume
from subshot.search.methods import method_of
from subshot.search.ranking import kendall
from subshot.search.sampling import LegalSampler
from subshot.supernet.nasbench201 import NONE, OPS, NasBench201Space, from_string, without_dead_edges
from subshot.supernet.space import Additive, Genotype

Array = NDArray[np.float64]
SPACE = NasBench201Space()
CostOf = Callable[[Genotype], float]


@dataclass(frozen=True)
class Benchmark:
    """The connected networks: genotypes [n, edges], accuracy and MACs [n], latency_ms [n] by device, rows by
    genotype."""

    genotypes: NDArray[np.intp]
    accuracy: Array
    macs: Array
    latency_ms: dict[str, Array]
    rows: dict[Genotype, int]


@dataclass(frozen=True)
class TableErrors:
    """Of a fitted table on the networks that it was not fitted on."""

    mean_percent: float
    median_percent: float
    tau: float
    macs_tau: float


def open_benchmark(folder: Path) -> Benchmark:
    table, frame = read_nasbench201(folder), read_nasbench201_latency(folder)
    assert frame["index"].to_list() == table.index.tolist()
    every = [from_string(arch) for arch in table.arch_str]
    dead = (OPS.index(NONE),) * len(every[0])
    kept = np.array([without_dead_edges(genotype) != dead for genotype in every])
    genotypes = [genotype for genotype, keep in zip(every, kept, strict=True) if keep]
    return Benchmark(
        np.array(genotypes),
        table.accuracy["cifar10", "test", 200][kept],
        table.flops["cifar10"][kept].astype(np.float64),
        {device: frame[device].to_numpy()[kept] for device in DEVICES},
        {genotype: row for row, genotype in enumerate(genotypes)},
    )


def fitted_table(benchmark: Benchmark, ms: Array, sample: NDArray[np.intp]) -> Additive:
    """Milliseconds by edge and operation, [edges][operations], least squares of the smallest norm."""
    edges, ops = benchmark.genotypes.shape[1], len(OPS)
    ones = np.eye(ops)[benchmark.genotypes[sample]].reshape(len(sample), -1)
    centre = float(ms[sample].mean())
    weights = np.linalg.lstsq(ones, ms[sample] - centre, rcond=None)[0].reshape(edges, ops)
    return Additive(centre, tuple(map(tuple, weights.tolist())))


def table_errors(benchmark: Benchmark, ms: Array, table: Additive, sample: NDArray[np.intp]) -> TableErrors:
    others = np.setdiff1d(np.arange(len(ms)), sample)
    predicted = table.batch(benchmark.genotypes[others])
    percent = 100.0 * np.abs(predicted / ms[others] - 1.0)
    return TableErrors(
        float(percent.mean()),
        float(np.median(percent)),
        kendall(ms[others], predicted),
        kendall(ms[others], benchmark.macs[others]),
    )


def looked_at(benchmark: Benchmark, config: EvolutionConfig, cost: CostOf, seed: int) -> list[int]:
    """The rows of the networks that a search scores by their accuracies; its cost is told as latency_ms."""

    def score(genotype: Genotype) -> Score:
        row = benchmark.rows.get(genotype)
        return Infeasible("its output does not depend on its input") if row is None else float(benchmark.accuracy[row])

    method = method_of(config, LegalSampler(SPACE), lambda genotype: {"latency_ms": cost(genotype)})
    state = init(seed)
    while proposals := method.ask(state):
        state = method.tell(state, proposals, [score(proposal.genotype) for proposal in proposals])
    return [benchmark.rows[c.genotype] for c in state.history if c.score is not None]


class Truth:
    """The true front of one device, and what part of it some networks have."""

    def __init__(self, benchmark: Benchmark, ms: Array) -> None:
        self.points = np.column_stack([benchmark.accuracy, ms])
        self.front = front_of(self.points)
        self.reference = [float(np.median(benchmark.accuracy)), float(ms[self.front].max()) * (1.0 + 1e-9)]
        self.volume = hypervolume(self.points[self.front], self.reference)

    def share(self, rows: Sequence[int]) -> float:
        points = self.points[list(rows)]
        return hypervolume(points[front_of(points)], self.reference) / self.volume


def spread_text(values: Sequence[float]) -> str:
    return f"{100 * np.mean(values):5.1f} +- {100 * np.std(values, ddof=1 if len(values) > 1 else 0):3.1f}"


def measured_cost(benchmark: Benchmark, ms: Array, genotype: Genotype) -> float:
    """Of a disconnected network none is needed: it has no score."""
    return float(ms[benchmark.rows[genotype]]) if genotype in benchmark.rows else 0.0


def row_of(
    benchmark: Benchmark, device: str, config: EvolutionConfig, sample: int, blind: dict[str, list[list[int]]]
) -> tuple[list[str], dict[str, list[float]]]:
    """The device's line of the report, and its shares by method; blind: what searches that do not know the device look
    at, seed by seed."""
    ms = benchmark.latency_ms[device]
    truth, errors = Truth(benchmark, ms), []
    shares = {name: [truth.share(rows) for rows in runs] for name, runs in blind.items()}
    shares |= {"nsga2": [], "by table": []}
    for seed in range(len(blind["random"])):
        chosen = np.random.default_rng(seed).choice(len(ms), sample, replace=False)
        table = fitted_table(benchmark, ms, chosen)
        errors.append(table_errors(benchmark, ms, table, chosen))
        costs: dict[str, CostOf] = {"nsga2": partial(measured_cost, benchmark, ms), "by table": table}
        for name, cost in costs.items():
            shares[name].append(truth.share(looked_at(benchmark, config, cost, seed)))
    mean = [np.mean([getattr(e, name) for e in errors]) for name in TableErrors.__dataclass_fields__]
    cells = [device, f"{mean[0]:.1f}", f"{mean[1]:.1f}", f"{mean[2]:.3f}", f"{mean[3]:.3f}", str(len(truth.front))]
    return [*cells, *(spread_text(shares[name]) for name in METHODS)], shares


METHODS = ("nsga2", "by table", "by MACs", "random")
HEAD = ("device", "error %", "median", "tau", "MACs' tau", "front", *METHODS)


def line_of(cells: Sequence[str]) -> str:
    return f"{cells[0]:15}" + "".join(f"{cell:>{10 if i < 5 else 14}}" for i, cell in enumerate(cells[1:]))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--devices", nargs="+", default=list(DEVICES))
    parser.add_argument("--sample", type=int, default=200)
    parser.add_argument("--evaluations", type=int, default=500)
    parser.add_argument("--population", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    for device in options.devices:
        if device not in DEVICES:
            parser.error(f"there is no device {device!r}; {nearest(device, DEVICES)}")
    benchmark = open_benchmark(options.folder)
    config = EvolutionConfig(
        method="nsga2",
        costs=("latency_ms",),
        budget=options.evaluations,
        population=options.population,
        sample=1,
    )
    seeds = range(options.seeds)
    blind = {
        "random": [looked_at(benchmark, random_search(config), lambda genotype: 0.0, seed) for seed in seeds],
        "by MACs": [looked_at(benchmark, config, lambda g: float(SPACE.cost(g).macs), seed) for seed in seeds],
    }
    print(line_of(HEAD))
    total: dict[str, list[float]] = {name: [] for name in METHODS}
    for device in tqdm(options.devices, disable=not sys.stderr.isatty()):
        cells, shares = row_of(benchmark, device, config, options.sample, blind)
        tqdm.write(line_of(cells))
        for name in METHODS:
            total[name].append(float(np.mean(shares[name])))
    print(line_of(["mean", "", "", "", "", "", *(spread_text(total[name]) for name in METHODS)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
