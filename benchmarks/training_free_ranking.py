"""How well training-free scores rank the trained networks of NAS-Bench-Macro.

    python benchmarks/training_free_ranking.py --data FOLDER [--proxies NAME ...] [--sample 300] [--size 16]
        [--batch-size 32] [--seed 0]

FOLDER holds nasbench_macro_cifar10.csv.gz and cifar10_train10k.npz. Every proxy scores the same networks, drawn from
the 3,969 distinct ones, at Kaiming initialisation, on the same images, averaged down to --size pixels. Printed for each
score: Kendall's tau and Spearman's rho with the mean test accuracy, the 95 % bootstrap interval of tau over networks,
tau among the better half of the networks, tau given the activation elements (what the score knows beyond size: partial
tau), and milliseconds a network. Scores in closed form stand beside them, on the sample and over all 6,561 strings.
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from subshot.proxies import PROXIES, ProxyUndefined
from subshot.search.aggregation import log_rank_sum
from subshot.search.ranking import bootstrap, kendall, partial_kendall, spearman
from subshot.supernet.nasbench_macro import nasbench_macro
from subshot.supernet.network import build_network
from subshot.supernet.space import Genotype

Scores = NDArray[np.float64]
Batch = tuple[torch.Tensor, torch.Tensor]

AZ_NAS = ("az_expressivity", "az_progressivity", "az_trainability")
SIZE = "activation_elements"
BATCHES = max(proxy.num_batches for proxy in PROXIES.values())
MEASURED = tuple(name for name in PROXIES if name != "synflow")
"""log_synflow ranks exactly as synflow does."""


def read_table(folder: Path) -> tuple[list[Genotype], Scores]:
    """Every string of the table and its mean test accuracy in per cent."""
    table = pl.read_csv(folder / "nasbench_macro_cifar10.csv.gz", schema_overrides={"arch": pl.String})
    return [tuple(map(int, arch)) for arch in table["arch"]], table["mean_acc"].to_numpy()


def read_batches(folder: Path, size: int, batch_size: int, seed: int) -> list[Batch]:
    """Training images drawn with the seed, standardised by channel, averaged down to `size` pixels."""
    with np.load(folder / "cifar10_train10k.npz", allow_pickle=False) as arrays:
        rows = np.random.default_rng(seed).permutation(len(arrays["labels"]))[: BATCHES * batch_size]
        pixels, labels = arrays["images"][rows], arrays["labels"][rows]
    images = F.adaptive_avg_pool2d(torch.from_numpy(pixels).movedim(3, 1).float(), size)
    images = (images - images.mean(dim=(0, 2, 3), keepdim=True)) / images.std(dim=(0, 2, 3), keepdim=True)
    targets = torch.from_numpy(labels.astype(np.int64))
    return list(zip(images.split(batch_size), targets.split(batch_size), strict=True))


def initialise(model: nn.Module, seed: int) -> None:
    """Kaiming normal over the fan-in; BatchNorm at (1, 0), the classifier's bias 0."""
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def score_all(
    genotypes: list[Genotype], names: list[str], batches: list[Batch], seed: int
) -> tuple[dict[str, Scores], dict[str, float]]:
    """Scores (nan where undefined, turned so that higher is better) and milliseconds a network, by proxy."""
    space = nasbench_macro()
    scores = {name: np.full(len(genotypes), np.nan) for name in names}
    seconds = dict.fromkeys(names, 0.0)
    for row, genotype in enumerate(tqdm(genotypes, disable=None)):
        model = build_network(space.decode(genotype))
        initialise(model, seed)
        for name in names:
            proxy = PROXIES[name]
            start = time.perf_counter()
            try:
                scores[name][row] = proxy(model, batches, seed=seed) * (1.0 if proxy.maximize else -1.0)
            except ProxyUndefined as reason:
                print(f"{''.join(map(str, genotype))}: {name} is undefined: {reason}")
            seconds[name] += time.perf_counter() - start
    return scores, {name: 1000.0 * value / len(genotypes) for name, value in seconds.items()}


def closed_form(genotypes: list[Genotype]) -> dict[str, Scores]:
    space, genes = nasbench_macro(), np.asarray(genotypes)
    costs = {name: cost.batch(genes) for name, cost in space.costs.items()}
    return {**costs, "non-identity layers": (genes != 0).sum(axis=1).astype(np.float64)}


def row(name: str, accuracy: Scores, scores: Scores, size: Scores, milliseconds: float | None = None) -> str:
    known = np.isfinite(scores)
    truth, scores, size = accuracy[known], scores[known], size[known]
    tau = bootstrap(kendall, truth, scores, np.random.default_rng(0))
    better = truth >= np.median(truth)
    parts = [f"{name:28}", f"{tau.value:6.3f} [{tau.low:6.3f}, {tau.high:6.3f}]", f"{spearman(truth, scores):6.3f}"]
    parts.append(f"{kendall(truth[better], scores[better]):6.3f}")
    try:
        parts.append(f"{partial_kendall(truth, scores, size):6.3f}")
    except ValueError:  # the score is the size
        parts.append(f"{'-':>6}")
    parts.append("" if milliseconds is None else f"{milliseconds:6.0f}")
    parts.append("" if known.all() else f"undefined for {np.count_nonzero(~known)}")
    return "  ".join(parts).rstrip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--proxies", nargs="+", choices=MEASURED, default=list(MEASURED))
    parser.add_argument("--sample", type=int, default=300)
    parser.add_argument("--size", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)

    strings, accuracy = read_table(options.data)
    space = nasbench_macro()
    distinct = [index for index, genotype in enumerate(strings) if space.canonical(genotype) == genotype]
    chosen = sorted(random.Random(options.seed).sample(distinct, min(options.sample, len(distinct))))
    batches = read_batches(options.data, options.size, options.batch_size, options.seed)

    heading = f"{'score':28}  {'tau':>6} {'95 % interval':16}  {'rho':>6}  {'half':>6}  {'given':>6}  {'ms':>6}"
    print(f"{len(strings):,} strings, {len(distinct):,} distinct networks; closed form over all strings\n{heading}")
    closed = closed_form(strings)
    for name, scores in closed.items():
        print(row(name, accuracy, scores, closed[SIZE]))

    genotypes, truth = [strings[index] for index in chosen], accuracy[chosen]
    closed = closed_form(genotypes)
    start = time.perf_counter()
    measured, milliseconds = score_all(genotypes, options.proxies, batches, options.seed)
    print(
        f"\n{len(chosen)} distinct networks, {options.batch_size} images of {options.size} pixels a batch, seed"
        f" {options.seed}, {time.perf_counter() - start:.0f} s\n{heading}"
    )
    for name, scores in closed.items():
        print(row(name, truth, scores, closed[SIZE]))
    for name, scores in measured.items():
        print(row(name, truth, scores, closed[SIZE], milliseconds[name]))
    if measured.keys() >= set(AZ_NAS):
        joined = [*(measured[name] for name in AZ_NAS), closed["macs"]]
        print(row("AZ-NAS (log ranks with MACs)", truth, log_rank_sum(np.stack(joined, axis=1)), closed[SIZE]))


if __name__ == "__main__":
    main()
