"""Does SiGeo rank better after a little training, and ZiCo not? On NAS-Bench-201.

    python benchmarks/sigeo_warmup.py --data FOLDER --levels 0=a.csv.gz 0.1=b.csv.gz 0.2=c.csv.gz [--resamples 1000]

FOLDER holds nasbench201.csv.gz. Each table is the scores.csv.gz that launch/correlate.py nasbench201 writes with
--proxies zico,sigeo_zico,sigeo_fr,sigeo_loss --sample 200 --warmup LEVEL for one level, the share of the training
images that each network was trained on, in one pass. Printed, over the networks that all tables hold: Kendall's tau
with CIFAR-10 test accuracy of ZiCo, of SiGeo's terms, of SiGeo under the weights (l1, l2, l3) of its paper and under
the standardised terms of proxies/sigeo.py; and how much tau changes from the first level to the last, with a 95 %
bootstrap interval over networks (the same networks at both levels). Undefined scores rank last.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from subshot.data.nasbench import read_nasbench201
from subshot.search.ranking import UndefinedPolicy, kendall

Values = NDArray[np.float64]

WEIGHTS = {"SiGeo (1, 1, 0)": (1, 1, 0), "SiGeo (1, 1, 1)": (1, 1, 1), "SiGeo (1, 50, 1)": (1, 50, 1)}


def rows_of(table: pl.DataFrame) -> dict[str, Values]:
    """Every score of a level, [networks], nan where undefined."""
    zico, fisher_rao, loss = (
        table[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()
        for name in ("sigeo_zico", "sigeo_fr", "sigeo_loss")
    )
    found = {"ZiCo, 2 batches": table["zico"].cast(pl.Float64).fill_null(float("nan")).to_numpy()}
    found |= {"ZiCo term, 4 batches": zico, "log FR": fisher_rao, "loss, negated": -loss}
    found |= {name: l1 * zico + l2 * fisher_rao - l3 * loss for name, (l1, l2, l3) in WEIGHTS.items()}
    found["SiGeo, standardised terms"] = standard(zico) + standard(fisher_rao) - standard(loss)
    return found


def standard(values: Values) -> Values:
    return np.asarray((values - np.nanmean(values)) / np.nanstd(values), dtype=np.float64)


def tau(accuracy: Values, scores: Values) -> float:
    return kendall(accuracy, UndefinedPolicy("last").settle(scores).scores)


def report(accuracy: Values, levels: Mapping[str, dict[str, Values]], resamples: int) -> None:
    first, last = list(levels)[0], list(levels)[-1]
    print(f"| score | {' | '.join(levels)} | change, {first} to {last} | 95 % interval |")
    print("|---" * (len(levels) + 3) + "|")
    rng = np.random.default_rng(0)
    draws = [rng.integers(len(accuracy), size=len(accuracy)) for _ in range(resamples)]
    for name in levels[first]:
        taus = [tau(accuracy, scores[name]) for scores in levels.values()]
        before, after = levels[first][name], levels[last][name]
        changes = [tau(accuracy[d], after[d]) - tau(accuracy[d], before[d]) for d in draws]
        low, high = np.quantile(changes, [0.025, 0.975])
        cells = " | ".join(f"{value:+.3f}" for value in taus)
        print(f"| {name} | {cells} | {taus[-1] - taus[0]:+.3f} | {low:+.3f} to {high:+.3f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--levels", nargs="+", required=True, metavar="LEVEL=FILE")
    parser.add_argument("--resamples", type=int, default=1000)
    options = parser.parse_args()
    tables = {level: pl.read_csv(path) for level, _, path in (word.partition("=") for word in options.levels)}
    common = sorted(set.intersection(*(set(table["index"]) for table in tables.values())))
    levels = {
        level: rows_of(table.filter(pl.col("index").is_in(common)).sort("index")) for level, table in tables.items()
    }
    truth = read_nasbench201(options.data)
    accuracy = truth.accuracy["cifar10", "test", 200][np.searchsorted(truth.index, common)]
    print(f"{len(common)} networks of NAS-Bench-201; Kendall's tau with CIFAR-10 test accuracy\n")
    report(accuracy, levels, options.resamples)


if __name__ == "__main__":
    main()
