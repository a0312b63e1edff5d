"""Which scores to join: published ensembles on NAS-Bench-201, and ensembles chosen on other data sets' accuracies.

    python benchmarks/proxy_ensembles.py --data FOLDER --scores FIRST.csv.gz [SECOND.csv.gz ...] [--set all]
        [--candidates 20] [--largest 5] [--aggregations log_rank_sum ...] [--splits 10] [--resamples 500] [--seed 0]

FOLDER holds nasbench201.csv.gz; the tables are those of launch/correlate.py, joined over the networks that all of them
have (of a column in two tables the first counts). Costs stand beside the scores. Undefined scores rank last. Printed,
in Markdown: the published ensembles; the best of all subsets of the candidates by the mean tau with the accuracies on
CIFAR-100 and ImageNet16-120, judged on CIFAR-10's; what did not help; and the same with one half of the networks to
choose on and the other to judge on. The same tables give the same text.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from subshot.launch.correlation.benchmark_published import published
from subshot.launch.correlation.benchmark_report import oriented, read_scores
from subshot.launch.correlation.benchmark_scores import Benchmark, open_nasbench201
from subshot.search.aggregation import ENSEMBLES, RANK_COMBINERS, Ensemble
from subshot.search.ensemble_selection import (
    Choice,
    best_ensembles,
    forward_selection,
    mean_kendall,
    shortlist,
    without_twins,
)
from subshot.search.ranking import NDCG_TOP, Interval, bootstrap, kendall, ndcg, spearman
from subshot.supernet.nasbench201 import from_string

Array = NDArray[np.float64]
Table = dict[str, Array]

CHOOSING = ("c100_test_200", "in16_test_200")
JUDGING = "c10_test_200"
WANTED = 0.76
TRUE_ENTROPY = "vkdnw"
"""The entropy of the Fisher matrix itself; the published ensemble reads that of the published code."""
AZ_NAS_PAPER = {"az_nas, linear": 0.697, "az_nas + zico": 0.773, "az_nas + synflow": 0.776}
"""Tau on CIFAR-10, all networks, of variants that the AZ-NAS paper reports; the wiki page that quotes it."""


@dataclass(frozen=True)
class Networks:
    """What is joined: scores by name, [n], higher is better, nan where undefined, and accuracies by column, [n]."""

    table: Table
    accuracies: Mapping[str, Array]

    def __len__(self) -> int:
        return len(self.accuracies[JUDGING])

    @property
    def choosing(self) -> list[Array]:
        return [self.accuracies[name] for name in CHOOSING]

    @property
    def judging(self) -> Array:
        return self.accuracies[JUDGING]

    def at(self, places: NDArray[np.intp]) -> Networks:
        return Networks(
            {name: column[places] for name, column in self.table.items()},
            {name: column[places] for name, column in self.accuracies.items()},
        )


@dataclass(frozen=True)
class Chosen:
    """The result of a search. ranked: every ensemble that was judged, best criterion first. candidates, twins: columns
    that took part, and those that another one made superfluous."""

    ranked: list[Choice]
    candidates: Table
    twins: list[str]

    @property
    def best(self) -> Choice:
        return self.ranked[0]


def joined(benchmark: Benchmark, paths: Sequence[Path], networks: str) -> Networks:
    """The tables over their common networks of the set. Raises ValueError where there is none."""
    read = [read_scores(path, benchmark, ()) for path in paths]
    common = set.intersection(*(set(numbers) for numbers, _ in read))
    rows = benchmark.rows_of(sorted(common))
    rows = rows[benchmark.sets[networks][rows]]
    if len(rows) == 0:
        raise ValueError(f"the tables have no network of the set {networks} in common")
    cells = [from_string(benchmark.archs[row]) for row in rows]
    table = {
        "macs": benchmark.costs["macs"][rows],
        "num_layers": np.array([21.0 + 45.0 * sum(choice in (2, 3) for choice in cell) for cell in cells]),
        "params": benchmark.costs["params"][rows],
    }
    for numbers, columns in read:
        places = np.searchsorted(numbers, benchmark.index[rows])
        for name, column in columns.items():
            table.setdefault(name, oriented(name, column[places]))
    return Networks(table, {name: benchmark.accuracies[name][rows] for name in (*CHOOSING, JUDGING)})


def known_ensembles(table: Table) -> dict[str, Ensemble]:
    """The published ensembles, and the AZ-NAS paper's variants, whose members are all in the table."""
    az_nas, vkdnw = ENSEMBLES["az_nas"], ENSEMBLES["vkdnw_agg"]
    found = {"az_nas": az_nas, "az_nas, linear": replace(az_nas, aggregation="linear_rank_sum")}
    found |= {f"az_nas + {name}": replace(az_nas, members=(*az_nas.members, name)) for name in ("zico", "synflow")}
    found["vkdnw_agg"] = vkdnw
    members = (vkdnw.members[0], TRUE_ENTROPY, *vkdnw.members[2:])
    found["vkdnw_agg, true Fisher matrix"] = replace(vkdnw, members=members)
    return {name: ensemble for name, ensemble in found.items() if set(ensemble.members) <= table.keys()}


def search(networks: Networks, options: argparse.Namespace) -> Chosen:
    """The best subsets of the candidates under every aggregation, by the choosing accuracies alone."""
    table, truths = networks.table, networks.choosing
    single = without_twins(table)
    candidates = shortlist(single, truths, options.candidates)
    choices = [
        choice
        for aggregation in options.aggregations
        for choice in best_ensembles(candidates, truths, aggregation, options.largest, options.screened)
    ]
    ranked = sorted(choices, key=lambda choice: -choice.criterion)
    return Chosen(ranked, candidates, [name for name in table if name not in single])


def written(ensemble: Ensemble) -> str:
    return f"{', '.join(ensemble.members)} ({ensemble.aggregation.replace('_', ' ')})"


def cell(interval: Interval) -> str:
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def markdown(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [heading, ["---"] * len(heading), *rows]
    return [f"| {' | '.join(line)} |" for line in lines] + [""]


def with_interval(
    statistic: Callable[[Array, Array], float], truth: Array, scores: Array, options: argparse.Namespace
) -> str:
    return cell(bootstrap(statistic, truth, scores, np.random.default_rng(options.seed), options.resamples))


def difference(truth: Array, first: Array, second: Array, options: argparse.Namespace) -> str:
    """Tau of the first less tau of the second, both over the same resampled networks."""

    def statistic(accuracy: Array, places: Array) -> float:
        rows = places.astype(np.intp)
        return kendall(accuracy, first[rows]) - kendall(accuracy, second[rows])

    return with_interval(statistic, truth, np.arange(len(truth)), options)


def published_section(networks: Networks, options: argparse.Namespace) -> list[str]:
    truth, rows = networks.judging, []
    for name, ensemble in known_ensembles(networks.table).items():
        scores = ensemble.scores(networks.table)
        theirs = [one for one in published(name.split(",")[0], options.set, JUDGING) if "linear" not in name]
        taus = [f"{one.tau:.3f} / {one.rho} / {one.ndcg} ({one.source})" for one in theirs]
        if options.set == "all" and name in AZ_NAS_PAPER:
            taus = [f"{AZ_NAS_PAPER[name]:.3f} (AZ-NAS paper)"]
        elsewhere = ", ".join(f"{kendall(networks.accuracies[other], scores):.3f}" for other in CHOOSING)
        figures = [with_interval(one, truth, scores, options) for one in (kendall, spearman, ndcg)]
        rows.append([name, *figures, elsewhere, "; ".join(taus) or "-"])
    if not rows:
        return ["No published ensemble has all of its members in the tables.", ""]
    heading = ["ensemble", "tau", "rho", f"nDCG of {min(NDCG_TOP, len(truth))}", "tau C100, IN16"]
    return markdown([*heading, "published tau / rho / nDCG"], rows)


def search_section(networks: Networks, chosen: Chosen, options: argparse.Namespace) -> list[str]:
    truth, table = networks.judging, networks.table
    best = chosen.best.ensemble
    tops = [
        [str(place), written(c.ensemble), f"{c.criterion:.3f}", f"{kendall(truth, c.ensemble.scores(table)):.3f}"]
        for place, c in enumerate(chosen.ranked[:10], 1)
    ]
    scores = best.scores(table)
    tau = bootstrap(kendall, truth, scores, np.random.default_rng(options.seed), options.resamples)
    verdict = "passes" if tau.value >= WANTED else "does not pass"
    where = "above it" if tau.low >= WANTED else "below it" if tau.high < WANTED else "on both sides of it"
    lines = [
        f"Candidates ({len(chosen.candidates)}): {', '.join(chosen.candidates)}. Left out as constant or as twins, tau "
        f"of 0.98 or more with another: {', '.join(chosen.twins) or 'none'}.",
        "",
        *markdown(["", "ensemble", "tau C100 and IN16, mean (chosen by)", "tau C10"], tops),
        f"Chosen: {written(best)}: tau {cell(tau)}, rho {with_interval(spearman, truth, scores, options)}, nDCG of "
        f"{min(NDCG_TOP, len(truth))} {with_interval(ndcg, truth, scores, options)}; it {verdict} {WANTED} (the "
        f"interval is {where}).",
        "",
    ]
    known = known_ensembles(table)
    for name, ensemble in known.items():
        lines.append(f"- tau less that of {name}: {difference(truth, scores, ensemble.scores(table), options)}")
    return [*lines, ""] if known else lines


def ablation_section(networks: Networks, chosen: Chosen, options: argparse.Namespace) -> list[str]:
    """The best of each aggregation and size, the greedy path, and what each member and each other score changes."""
    truth, table = networks.judging, networks.table

    def row(name: str, ensemble: Ensemble) -> list[str]:
        scores = ensemble.scores(table)
        return [name, f"{mean_kendall(networks.choosing, scores):.3f}", f"{kendall(truth, scores):.3f}"]

    rows = []
    for aggregation in options.aggregations:
        first = next(choice for choice in chosen.ranked if choice.ensemble.aggregation == aggregation)
        rows.append(row(f"best {aggregation.replace('_', ' ')}: {', '.join(first.ensemble.members)}", first.ensemble))
    for size in range(1, options.largest + 1):
        first = next((choice for choice in chosen.ranked if len(choice.ensemble.members) == size), None)
        if first is not None:
            rows.append(row(f"best of {size}: {written(first.ensemble)}", first.ensemble))
    best = chosen.best.ensemble
    for aggregation in options.aggregations:
        if aggregation != best.aggregation:
            rows.append(row(f"the chosen by {aggregation.replace('_', ' ')}", replace(best, aggregation=aggregation)))
    members: set[str] = set()
    for choice in forward_selection(chosen.candidates, networks.choosing, best.aggregation, options.largest + 2):
        (added,) = set(choice.ensemble.members) - members
        members.add(added)
        rows.append(row(f"greedy, {len(members)}: + {added}", choice.ensemble))
    if len(best.members) > 1:
        for name in best.members:
            rest = tuple(member for member in best.members if member != name)
            rows.append(row(f"the chosen without {name}", replace(best, members=rest)))
    value = mean_kendall(networks.choosing, best.scores(table))
    changes = {
        name: mean_kendall(networks.choosing, replace(best, members=(*best.members, name)).scores(table)) - value
        for name, column in table.items()
        if name not in best.members and np.isfinite(column).any()
    }
    ordered = sorted(changes.items(), key=lambda item: (item[1], item[0]))
    lower = ", ".join(f"{name} {change:+.3f}" for name, change in ordered if change < 0.0)
    higher = ", ".join(f"{name} {change:+.3f}" for name, change in reversed(ordered) if change >= 0.0)
    return [
        *markdown(["what", "tau C100 and IN16, mean", "tau C10"], rows),
        f"One more member of the chosen lowers the mean tau on C100 and IN16 by: {lower or 'none does'}.",
        "",
        f"It does not lower it: {higher or 'none'}.",
        "",
    ]


def split_section(networks: Networks, options: argparse.Namespace) -> list[str]:
    """Chosen on a half of the networks, judged by CIFAR-10 on the other half; both ways for every seed."""
    known = known_ensembles(networks.table)
    ours: list[float] = []
    inside: list[float] = []
    theirs: dict[str, list[float]] = {name: [] for name in known}
    members: Counter[str] = Counter()
    aggregations: Counter[str] = Counter()
    for seed in range(options.splits):
        order = np.random.default_rng([options.seed, seed]).permutation(len(networks))
        halves = [networks.at(np.sort(half)) for half in np.array_split(order, 2)]
        for own, other in (halves, halves[::-1]):
            best = search(own, options).best.ensemble
            members.update(best.members)
            aggregations[best.aggregation] += 1
            ours.append(kendall(other.judging, best.scores(other.table)))
            inside.append(kendall(own.judging, best.scores(own.table)))
            for name, ensemble in known.items():
                theirs[name].append(kendall(other.judging, ensemble.scores(other.table)))
    rows = [
        ["chosen on the other half", *spread(ours), "-"],
        ["the same, on the half of the choice", *spread(inside), "-"],
    ]
    for name, values in theirs.items():
        higher = np.count_nonzero(np.array(ours) > np.array(values))
        rows.append([name, *spread(values), f"{higher} of {len(ours)}"])
    return [
        f"Halves of {len(networks) // 2} networks, {options.splits} seeds, each half in turn; tau on C10:",
        "",
        *markdown(["ensemble", "mean +- sd over halves", "range", "halves where ours is higher"], rows),
        f"Of {len(ours)} choices, members: {counted(members)}; aggregations: {counted(aggregations)}.",
        "",
    ]


def spread(values: Sequence[float]) -> tuple[str, str]:
    return f"{np.mean(values):.3f} +- {np.std(values, ddof=1):.3f}", f"{min(values):.3f} to {max(values):.3f}"


def counted(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--scores", type=Path, nargs="+", required=True)
    parser.add_argument("--set", choices=("all", "filtered"), default="all")
    parser.add_argument("--candidates", type=int, default=20)
    parser.add_argument("--largest", type=int, default=5, help="members of an ensemble at most")
    joins = ("log_rank_sum", "linear_rank_sum", "normal_score_sum", "min_rank")
    parser.add_argument("--aggregations", nargs="+", choices=tuple(RANK_COMBINERS), default=list(joins))
    parser.add_argument("--screened", type=int, default=300, help="subsets of an aggregation judged by tau; best rho")
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--resamples", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    start = time.perf_counter()
    networks = joined(open_nasbench201(options.data), options.scores, options.set)
    undefined = {name: int(np.count_nonzero(~np.isfinite(column))) for name, column in networks.table.items()}
    missing = ", ".join(f"{name} {count}" for name, count in undefined.items() if count)
    print(
        f"NAS-Bench-201, {len(networks)} networks of the set {options.set}, accuracies after 200 epochs (test), 95 % "
        f"bootstrap intervals over networks. nDCG is of {min(NDCG_TOP, len(networks))}: published ones are of "
        f"{NDCG_TOP} among all networks, so they do not compare. Undefined, ranked last: {missing or 'none'}.\n"
    )
    print("\n".join(published_section(networks, options)))
    chosen = search(networks, options)
    print("\n".join(search_section(networks, chosen, options)))
    print("\n".join(ablation_section(networks, chosen, options)))
    print(f"{time.perf_counter() - start:.0f} s before the halves", file=sys.stderr)
    if options.splits:
        print("\n".join(split_section(networks, options)))
    print(f"{time.perf_counter() - start:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
