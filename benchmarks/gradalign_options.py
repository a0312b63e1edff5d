"""What GradAlign leaves open, decided by measurement on NAS-Bench-201.

    python benchmarks/gradalign_options.py --data FOLDER [--sample 300] [--seed 0] [--batch-size 64] [--out FILE.csv.gz]

FOLDER holds nasbench201.csv.gz and CIFAR-10's sample. The paper (arXiv 2411.19819, Eqs. 11 to 13) has neither formula
nor code for: BatchNorm's mode, which parameters count, sum or mean over them, signs or raw gradients in the Gram
matrix, and whether a low or a high log det is good. Every combination is scored on the same networks (torch's default
initialisation) and class-balanced images; printed: Kendall's tau with CIFAR-10 test accuracy ("+": higher scores are
better), its 95 % bootstrap interval, and tau given the parameter count. Undefined scores rank last.
"""

from __future__ import annotations

import argparse
import gzip
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from subshot.launch.correlation.benchmark_scores import (
    ScoringSettings,
    drawn,
    initialised,
    open_nasbench201,
    read_batches,
)
from subshot.proxies import ProxyUndefined, Setting, measure
from subshot.proxies.base import BatchNormMode
from subshot.proxies.gradsign import (
    JITTER,
    SampleGram,
    SampleSigns,
    SignStatistics,
    gradalign1,
    gradalign2,
    gradsign,
    log_det_of,
)
from subshot.proxies.measure import Proxy
from subshot.search.ranking import UndefinedPolicy, bootstrap, kendall, partial_kendall

Values = NDArray[np.float64]

MODES: tuple[BatchNormMode, ...] = ("single", "eval")


def raw_log_det(gram: Tensor, signs: SignStatistics) -> float:
    """GradAlign-II with the gradients themselves instead of their signs."""
    grams = replace(signs, gram=gram).by_class()
    return sum(log_det_of(one) for one in grams) / len(grams)


def whole_log_det(signs: SignStatistics) -> float:
    """GradAlign-II over all samples together."""
    return log_det_of(signs.gram, JITTER)


def variants() -> list[Proxy]:
    """Every combination, named by its choices."""
    found = []
    for mode in MODES:
        for scope in ("weights", "all"):
            for normalisation in ("sum", "mean"):
                for build in (gradsign, gradalign1, gradalign2):
                    proxy = build(mode, scope, normalisation)  # type: ignore[arg-type]
                    found.append(replace(proxy, name=f"{proxy.name} {mode} {scope} {normalisation}"))
        setting, name = Setting(batch_norm=mode), f"gradalign2 {mode} weights sum"
        for jitter in (0.0, 1.0):
            found.append(replace(gradalign2(mode, jitter=jitter), name=f"{name}, jitter {jitter:g}"))
        found.append(Proxy(f"{name}, without classes", (SampleSigns(),), whole_log_det, True, "-", setting))
        raw = (SampleGram(), SampleSigns())
        found.append(Proxy(f"{name}, raw gradients", raw, raw_log_det, True, "-", setting))
    return found


def row(name: str, accuracy: Values, scores: Values, params: Values) -> str:
    settled = UndefinedPolicy("last").settle(scores)
    statistic: Callable[..., float] = kendall
    tau = bootstrap(statistic, accuracy, settled.scores, np.random.default_rng(0))
    given = f"{partial_kendall(accuracy, settled.scores, params):+.3f}" if name != "params" else ""
    return f"| {name} | {tau.value:+.3f} | {tau.low:+.3f} to {tau.high:+.3f} | {given} | {settled.undefined} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sample", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)

    benchmark = open_nasbench201(options.data)
    settings = ScoringSettings("nasbench201", "all", options.sample, options.seed, (), options.batch_size, 1)
    rows = drawn(np.flatnonzero(benchmark.sets["all"]), options.sample, options.seed)
    batches = read_batches(options.data, settings, torch.device("cpu"))
    proxies = variants()
    table: dict[str, list[float]] = {proxy.name: [] for proxy in proxies}
    for entry in tqdm(rows, disable=None):
        found = measure(initialised(benchmark, entry, options.seed), proxies, batches, seed=options.seed)
        for name, value in found.items():
            table[name].append(float("nan") if isinstance(value, ProxyUndefined) else value)

    accuracy, params = benchmark.accuracies["c10_test_200"][rows], benchmark.costs["params"][rows]
    print(f"{len(rows)} of all networks, seed {options.seed}, batch {options.batch_size}, CIFAR-10 test accuracy\n")
    print(
        "| score, higher taken as better | tau | 95 % interval | tau given params | undefined |\n|---|---|---|---|---|"
    )
    print(row("params", accuracy, params, params))
    for name, values in table.items():
        print(row(name, accuracy, np.asarray(values), params))
    if options.out is not None:
        text = io.BytesIO()
        pl.DataFrame({"index": benchmark.index[rows], **table}).write_csv(text)
        options.out.write_bytes(gzip.compress(text.getvalue(), mtime=0))


if __name__ == "__main__":
    main()
