"""What evolution finds on NAS-Bench-201 when a score without training drives it: accuracies of its winners.

    python benchmarks/training_free_evolution.py --data FOLDER [--scores TABLE.csv.gz ...] [--ensemble A+B ...]
        [--evaluations 1000] [--seeds 20] [--population 25] [--tournament 5] [--children 5] [--pool 1000]

FOLDER holds nasbench201.csv.gz and nasbench201_proxies.csv.gz, whose scores of CIFAR-10 cover all 15,625 strings;
params, macs and num_layers are computed. A column of --scores (tables of launch/correlate.py) counts where it has a
network of every class of isomorphic cells, the table's `unique_str`: the others of a class take the mean of those that
were measured. That is an approximation: their own initial weights would score differently, and scores that count dead
edges or skips differ within a class (one naswot for a class has tau 0.85 with the reference's own, one synflow 0.99).

Every run is subshot.search.evolution's with population and tournament of FreeREA (25 and 5), never a network twice, and
no fresh start. The control draws as many networks at random and takes the best by the same score. An ensemble joins
ranks by log_rank_sum among --pool networks, the same random ones throughout, which are not counted as evaluations; 0
ranks among all 15,625. Rows marked * read accuracies on validation images and are no score without training. Every cell
is the 200-epoch test accuracy on CIFAR-10 in per cent, mean +- standard deviation over seeds.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from subshot.data.nasbench import NasBench201Table, read_nasbench201, read_nasbench201_proxies
from subshot.launch.correlation.benchmark_report import oriented, read_scores
from subshot.launch.correlation.benchmark_scores import open_nasbench201
from subshot.search.aggregation import ENSEMBLES, Ensemble
from subshot.search.evaluator import FunctionEvaluator, Infeasible, Score
from subshot.search.evolution import EvolutionConfig, init, random_search, run_to_end
from subshot.search.ranking import UndefinedPolicy, kendall
from subshot.search.sampling import LegalSampler
from subshot.supernet.nasbench201 import NasBench201Space, from_string
from subshot.supernet.space import Genotype

Array = NDArray[np.float64]
REFERENCE = ("naswot", "synflow", "logsynflow", "nregions", "zen")
ENSEMBLES_OF_REFERENCES = ("naswot+logsynflow", "naswot+logsynflow+num_layers", "naswot+logsynflow+nregions+macs")
VALIDATION = {"validation accuracy, 12 epochs *": 12, "validation accuracy, 200 epochs *": 200}


@dataclass(frozen=True)
class Space:
    """All strings of the benchmark. rows: by genotype. accuracy: per cent on the test images of CIFAR-10, [n]."""

    table: NasBench201Table
    genotypes: tuple[Genotype, ...]
    rows: dict[Genotype, int]
    accuracy: Array


def open_space(folder: Path) -> Space:
    table = read_nasbench201(folder)
    genotypes = tuple(from_string(arch) for arch in table.arch_str)
    rows = {genotype: row for row, genotype in enumerate(genotypes)}
    return Space(table, genotypes, rows, table.accuracy["cifar10", "test", 200])


def own_scores(space: Space, folder: Path) -> dict[str, Array]:
    """Costs in closed form and the reference scores, [n], higher is better."""
    costs = [NasBench201Space().cost(genotype) for genotype in space.genotypes]
    frame = read_nasbench201_proxies(folder)
    assert frame["index"].to_list() == space.table.index.tolist()
    return {
        "params": np.array([cost.params for cost in costs], dtype=np.float64),
        "macs": np.array([cost.macs for cost in costs], dtype=np.float64),
        "num_layers": np.array([21.0 + 45.0 * sum(op in (2, 3) for op in genotype) for genotype in space.genotypes]),
        **{name: frame[f"c10_{name}"].to_numpy() for name in REFERENCE},
    }


def by_class(classes: Sequence[str], rows: Sequence[int], values: Array) -> tuple[Array, int]:
    """(Scores [n] of all strings, how many classes have no measured network): a string's own value where it was
    measured, else the mean of its class's defined ones, nan where all of those are undefined or there is none.

    classes: the class of every string, [n]. values: of the entries `rows`, nan where undefined.
    """
    _, numbers = np.unique(np.asarray(classes), return_inverse=True)
    own = numbers[list(rows)]
    defined = np.isfinite(values)
    counts = np.bincount(own[defined], minlength=numbers.max() + 1)
    sums = np.bincount(own[defined], weights=values[defined], minlength=numbers.max() + 1)
    means = np.divide(sums, counts, out=np.full(len(counts), np.nan), where=counts > 0)
    everywhere = means[numbers]
    everywhere[list(rows)] = values
    return everywhere, len(counts) - len(np.unique(own))


def measured_scores(space: Space, folder: Path, paths: Sequence[Path]) -> tuple[dict[str, Array], list[str]]:
    """The columns of score tables that cover the space, and a line on each table."""
    benchmark = open_nasbench201(folder) if paths else None
    found: dict[str, Array] = {}
    lines = []
    for path in paths:
        assert benchmark is not None
        numbers, columns = read_scores(path, benchmark, ())
        rows = benchmark.rows_of(numbers)
        missing = 0
        for name, column in columns.items():
            values, missing = by_class(space.table.unique_str, rows, oriented(name, column))
            if missing == 0:
                found.setdefault(name, values)
        total = len(set(space.table.unique_str))
        used = (
            f"they cover the {total:,} classes"
            if missing == 0
            else f"left out, {missing:,} of {total:,} classes lack one"
        )
        lines.append(f"{path.name}: {len(numbers):,} networks measured; {used}; columns {', '.join(columns)}.")
    return found, lines


def joined_scores(scores: dict[str, Array], names: Sequence[str], pool: NDArray[np.intp]) -> dict[str, Array]:
    """Every ensemble `a+b` by log_rank_sum among the pool, and the published ones whose members are there."""
    reference = {name: column[pool] for name, column in scores.items()}
    known = {name: Ensemble(tuple(name.split("+")), "log_rank_sum") for name in names}
    known |= {name: ensemble for name, ensemble in ENSEMBLES.items() if set(ensemble.members) <= scores.keys()}
    return {name: ensemble.scores(scores, reference) for name, ensemble in known.items()}


def evolved(space: Space, scores: Array, config: EvolutionConfig, seeds: int) -> tuple[list[int], list[int]]:
    """The entry with the best score that each seed's evolution found, and how many entries have a score above it."""

    def score(genotype: Genotype) -> Score:
        value = float(scores[space.rows[genotype]])
        return value if np.isfinite(value) else Infeasible("the score is undefined")

    sampler = LegalSampler(NasBench201Space())
    best = []
    for seed in range(seeds):
        state = run_to_end(config, sampler, init(seed), FunctionEvaluator(score))
        best.append(space.rows[state.best[0].genotype])
    return best, [int(np.count_nonzero(scores > scores[row])) for row in best]


def random_draws(space: Space, config: EvolutionConfig, seeds: int) -> list[list[int]]:
    """The entries that each seed's random search looks at: the same ones whatever the score."""
    sampler, control = LegalSampler(NasBench201Space()), random_search(config)
    evaluator = FunctionEvaluator(lambda genotype: 0.0)
    return [
        [space.rows[candidate.genotype] for candidate in run_to_end(control, sampler, init(seed), evaluator).history]
        for seed in range(seeds)
    ]


def best_of(scores: Array, rows: Sequence[int]) -> int:
    """The first of the entries with the best score; undefined scores are below all."""
    return rows[int(np.argmax(np.where(np.isfinite(scores), scores, -np.inf)[list(rows)]))]


def cell(accuracies: Array) -> str:
    return f"{accuracies.mean():.2f} +- {accuracies.std(ddof=1 if len(accuracies) > 1 else 0):.2f}"


def row_of(space: Space, name: str, scores: Array, draws: list[list[int]], config: EvolutionConfig) -> list[str]:
    winners, above = evolved(space, scores, config, len(draws))
    controls = [best_of(scores, rows) for rows in draws]
    top = space.accuracy[scores == np.nanmax(np.where(np.isfinite(scores), scores, np.nan))]
    tau = kendall(space.accuracy, UndefinedPolicy().settle(scores).scores)
    return [
        name,
        f"{tau:.3f}",
        cell(space.accuracy[winners]),
        cell(space.accuracy[controls]),
        f"{top.mean():.2f} ({len(top)})",
        f"{above.count(0)} of {len(above)}",
        str(int(np.count_nonzero(~np.isfinite(scores))) or "-"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--scores", type=Path, nargs="*", default=[])
    parser.add_argument("--ensemble", nargs="*", default=list(ENSEMBLES_OF_REFERENCES), help="names joined by +")
    parser.add_argument("--evaluations", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--population", type=int, default=25)
    parser.add_argument("--tournament", type=int, default=5)
    parser.add_argument("--children", type=int, default=5, help="proposals of one generation")
    parser.add_argument("--pool", type=int, default=1000)
    options = parser.parse_args()
    start = time.perf_counter()
    space = open_space(options.data)
    scores = own_scores(space, options.data)
    measured, lines = measured_scores(space, options.data, options.scores)
    scores |= {f"{name} (ours)" if name in scores else name: column for name, column in measured.items()}
    everything = np.arange(len(space.accuracy))
    pool = np.random.default_rng(0).choice(everything, options.pool, replace=False) if options.pool else everything
    scores |= joined_scores(scores, options.ensemble, pool)
    scores |= {name: space.table.accuracy["cifar10", "valid", epochs] for name, epochs in VALIDATION.items()}
    config = EvolutionConfig(
        budget=options.evaluations,
        population=min(options.population, options.evaluations),
        sample=min(options.tournament, options.population, options.evaluations),
        children=options.children,
        patience=options.evaluations,
    )
    draws = random_draws(space, config, options.seeds)
    rows = [row_of(space, name, column, draws, config) for name, column in tqdm(scores.items(), disable=None)]
    drawn = np.array([space.accuracy[seen].max() for seen in draws])
    print(
        f"NAS-Bench-201, all {len(everything):,} strings, {options.evaluations:,} evaluations, {options.seeds} seeds; "
        f"evolution with population {config.population}, tournament {config.sample}, {config.children} children a "
        f"generation. Ensembles rank among {len(pool):,} {'random ' if options.pool else ''}networks. CIFAR-10 test "
        "accuracy after 200 epochs, per cent; tau is with it, over all strings, undefined scores last.\n"
    )
    heading = ["score", "tau", "evolution", "random search, same score", "the score's best of all (how many tie)"]
    heading += ["seeds that found no less than that", "undefined"]
    for line in [heading, ["---"] * len(heading), *rows]:
        print(f"| {' | '.join(line)} |")
    print(
        f"\nBest of all strings: {space.accuracy.max():.2f}; best of each seed's random draws by the test accuracy "
        f"itself: {cell(drawn)}; a random string: {cell(space.accuracy)}."
    )
    print("\n".join(lines))
    print(f"{time.perf_counter() - start:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
