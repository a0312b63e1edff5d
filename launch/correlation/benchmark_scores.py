"""Scores of a benchmark's networks, one line of JSON each, by any number of processes that may stop and go on.

A folder holds manifest.json, what the scores depend on, and parts/<rank>.jsonl, to which that rank alone appends. What
is done is the union of the parts, so a run goes on with another number of ranks. Nothing here reads an accuracy.
"""

from __future__ import annotations

import gzip
import io
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from subshot.data.nasbench import DATASETS, read_cifar10, read_nasbench201
from subshot.launch.config import differences
from subshot.launch.correlation.benchmark_warmup import WarmupFailed, WarmupImages, warm_up
from subshot.proxies import PROXIES, measure
from subshot.search.evaluator import deal
from subshot.supernet import BENCHMARK_SPACES
from subshot.supernet.nasbench201 import from_string, is_live
from subshot.train.dist import World, barrier, together, unless_stopped
from subshot.train.run_dir import append_jsonl, read_json, read_jsonl, replacing, truncate_jsonl, write_json

MEAN = (125.3 / 255, 123.0 / 255, 113.9 / 255)
STD = (63.0 / 255, 62.1 / 255, 66.7 / 255)
"""Of CIFAR-10's training pixels by channel, as NAS-Bench-201 standardises them (D-X-Y/AutoDL-Projects)."""

COSTS = ("params", "macs")


@dataclass(frozen=True)
class Benchmark:
    """Networks that were all trained, one entry a network in every array, in the order of `index`.

    index: the benchmark's number of each, int64 [n]. archs: official strings. accuracies: per cent, [n], by column.
    costs: COSTS of the network on CIFAR-10, [n]. sets: bool [n], by name. build: the network of an entry, with torch's
    default initialisation from the global random state.
    """

    name: str
    index: NDArray[np.int64]
    archs: tuple[str, ...]
    accuracies: Mapping[str, NDArray[np.float64]]
    costs: Mapping[str, NDArray[np.float64]]
    sets: Mapping[str, NDArray[np.bool_]]
    build: Callable[[int], nn.Module]

    def rows_of(self, index: Sequence[int]) -> NDArray[np.intp]:
        """Entries of the benchmark's numbers. Raises ValueError for one that it has not."""
        rows = np.searchsorted(self.index, index).clip(max=len(self.index) - 1)
        wrong = np.flatnonzero(self.index[rows] != index)
        if len(wrong):
            raise ValueError(f"{self.name} has no network {index[wrong[0]]}")
        return np.asarray(rows, dtype=np.intp)


def open_nasbench201(folder: Path) -> Benchmark:
    """The table in `folder`, and CIFAR-10's networks of 32 pixels and 10 classes. Sets: all 15,625; filtered, the 9,445
    without a dead edge; distinct, 6,466, one of each class of isomorphic cells, without a dead edge where there is one.
    """
    table = read_nasbench201(folder)
    space = BENCHMARK_SPACES["nasbench201"](DATASETS["cifar10"].input_size, DATASETS["cifar10"].classes)
    genotypes = [from_string(arch) for arch in table.arch_str]
    costs = [space.cost(genotype) for genotype in genotypes]
    filtered = np.array([is_live(genotype) for genotype in genotypes])
    distinct = np.zeros(len(table), dtype=np.bool_)
    live_first = np.argsort(~filtered, kind="stable")
    _, first_of_class = np.unique(np.array(table.unique_str)[live_first], return_index=True)
    distinct[live_first[first_of_class]] = True
    return Benchmark(
        name="nasbench201",
        index=table.index,
        archs=table.arch_str,
        accuracies={
            f"{DATASETS[dataset].prefix}_{split}_{epochs}": values
            for (dataset, split, epochs), values in table.accuracy.items()
        },
        costs={name: np.array([getattr(cost, name) for cost in costs], dtype=np.float64) for name in COSTS},
        sets={"all": np.ones(len(table), dtype=np.bool_), "filtered": filtered, "distinct": distinct},
        build=lambda row: space.build(genotypes[row]),
    )


BENCHMARKS: dict[str, tuple[Callable[[Path], Benchmark], tuple[str, ...]]] = {
    "nasbench201": (open_nasbench201, ("nasbench201.csv.gz", "cifar10_train10k.npz")),
}
"""By name: how it is opened, and the files in its folder that scores depend on."""


@dataclass(frozen=True)
class ScoringSettings:
    """What scores depend on, but for the data.

    networks: a set of the benchmark. sample: how many of it; 0 for all. seed: of the sample, the images, the networks'
    initial weights and what proxies draw. threads: torch's, a process. warmup: the share of the training images that
    each network is trained on, in one pass, before it is scored.
    """

    benchmark: str
    networks: str
    sample: int
    seed: int
    proxies: tuple[str, ...]
    batch_size: int
    threads: int
    warmup: float = 0.0


@dataclass(frozen=True)
class CorrelationDir:
    """Every path of a correlation's folder, below `root`."""

    root: Path

    @property
    def manifest_json(self) -> Path:
        return self.root / "manifest.json"

    @property
    def claim_json(self) -> Path:
        return self.root / "claim.json"

    def part(self, rank: int) -> Path:
        return self.root / "parts" / f"{rank}.jsonl"

    def parts(self) -> list[Path]:
        """Those that are there, in order of rank."""
        return sorted((self.root / "parts").glob("*.jsonl"), key=lambda path: int(path.stem))

    @property
    def scores_csv(self) -> Path:
        return self.root / "scores.csv.gz"

    @property
    def table_json(self) -> Path:
        return self.root / "table.json"

    @property
    def picture(self) -> Path:
        return self.root / "tau.svg"


def drawn(candidates: NDArray[np.intp], sample: int, seed: int) -> list[int]:
    """`sample` of the entries (0: all) in rising order, each once; a larger sample of the seed holds a smaller one."""
    if sample > len(candidates):
        raise ValueError(f"--sample is {sample}; the set has {len(candidates):,} networks")
    order = np.random.default_rng(seed).permutation(candidates)
    return sorted(int(row) for row in order[: sample or None])


def balanced_batches(
    images: NDArray[np.uint8], labels: NDArray[np.uint8], batch_size: int, batches: int, seed: int
) -> list[tuple[Tensor, Tensor]]:
    """Standardised images float32 [batch_size, 3, H, W] with labels int64, drawn without repeats.

    One image of each class in turn, so a batch's classes differ by at most one image. images: uint8 [n, H, W, 3].
    """
    rng = np.random.default_rng(seed)
    by_class = [rng.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
    rounds = min(map(len, by_class))
    if batch_size < 1 or batch_size * batches > rounds * len(by_class):
        most = rounds * len(by_class) // max(batches, 1)
        raise ValueError(f"--batch-size is {batch_size}; with {batches} batches it is from 1 to {most}")
    rows = np.stack([order[:rounds] for order in by_class], axis=1).ravel()[: batch_size * batches]
    pixels = torch.from_numpy(images[rows]).movedim(3, 1).float() / 255
    standardised = (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    targets = torch.from_numpy(labels[rows].astype(np.int64))
    return list(zip(standardised.contiguous().split(batch_size), targets.split(batch_size), strict=True))


def read_batches(folder: Path, settings: ScoringSettings, device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """As many batches of CIFAR-10's training images as the proxies read."""
    needed = max([1, *(PROXIES[name].num_batches for name in settings.proxies)])
    sample = read_cifar10(folder)
    batches = balanced_batches(sample.train_images, sample.train_labels, settings.batch_size, needed, settings.seed)
    return [(images.to(device), labels.to(device)) for images, labels in batches]


def read_warmup(folder: Path, settings: ScoringSettings, device: torch.device) -> WarmupImages:
    """The share of CIFAR-10's training images, class by class in turn, drawn apart from the batches that are scored."""
    sample = read_cifar10(folder)
    count = int(settings.warmup * len(sample.train_labels)) // settings.batch_size
    if settings.warmup and count == 0:
        least = settings.batch_size / len(sample.train_labels)
        raise ValueError(
            f"--warmup is {settings.warmup}; one batch of {settings.batch_size} images needs {least:g} or more"
        )
    if count == 0:
        return WarmupImages(torch.empty(0), torch.empty(0), settings.batch_size)
    seed = settings.seed + 1
    batches = balanced_batches(sample.train_images, sample.train_labels, settings.batch_size, count, seed)
    images, labels = (torch.cat(parts).to(device) for parts in zip(*batches, strict=True))
    return WarmupImages(images, labels, settings.batch_size)


def initialised(benchmark: Benchmark, row: int, seed: int) -> nn.Module:
    """The network on the CPU, with initial weights that depend on (seed, its number) alone."""
    (own,) = np.random.SeedSequence([seed, int(benchmark.index[row])]).generate_state(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(own))
        return benchmark.build(row)


def score_network(
    benchmark: Benchmark,
    row: int,
    settings: ScoringSettings,
    batches: Sequence[tuple[Tensor, Tensor]],
    warmup: WarmupImages,
) -> dict[str, Any]:
    """One line: index, arch, scores (None where undefined), reasons of the undefined, milliseconds of them all.

    A network whose warm-up fails has no score.
    """
    start = time.perf_counter()
    model = initialised(benchmark, row, settings.seed).to(batches[0][0].device)
    found: Mapping[str, object]
    try:
        warm_up(model, warmup)
        found = measure(model, [PROXIES[name] for name in settings.proxies], batches, seed=settings.seed)
    except WarmupFailed as reason:
        found = dict.fromkeys(settings.proxies, reason)
    scores: dict[str, float | None] = {}
    reasons: dict[str, str] = {}
    for name in settings.proxies:
        value = found[name]
        if isinstance(value, float) and math.isfinite(value):
            scores[name] = value
        else:
            scores[name], reasons[name] = None, str(value)
    return {
        "index": int(benchmark.index[row]),
        "arch": benchmark.archs[row],
        "scores": scores,
        "reasons": reasons,
        "milliseconds": round(1000.0 * (time.perf_counter() - start), 1),
    }


def open_folder(folder: CorrelationDir, manifest: dict[str, Any], world: World) -> None:
    """Writes the manifest, or checks that what is there was begun with the same one; mends torn parts.

    Raises ValueError, on every rank, naming the differences.
    """
    if folder.manifest_json.is_file():
        changed = differences(read_json(folder.manifest_json), manifest)
        if changed:
            raise ValueError(
                f"{folder.root} was begun with other settings; give the same ones, or another --out "
                f"({'; '.join(changed)})"
            )
    elif folder.parts():
        raise ValueError(f"{folder.root} holds scores without a manifest.json; choose another --out")
    barrier(world)
    if world.is_main:
        write_json(folder.manifest_json, manifest)
        for part in folder.parts():
            truncate_jsonl(part, len(read_jsonl(part)))
    barrier(world)


def read_parts(folder: CorrelationDir) -> dict[int, dict[str, Any]]:
    """All lines by the network's number, in its order."""
    lines = {line["index"]: line for part in folder.parts() for line in read_jsonl(part)}
    return dict(sorted(lines.items()))


def score_all(
    benchmark: Benchmark,
    rows: Sequence[int],
    settings: ScoringSettings,
    batches: Sequence[tuple[Tensor, Tensor]],
    warmup: WarmupImages,
    folder: CorrelationDir,
    world: World,
) -> dict[int, dict[str, Any]]:
    """Scores the entries that no part holds yet, dealt to the ranks by MACs, and returns the lines of all of them.

    Raises Preempted, between two networks, at a signal.
    """
    done = read_parts(folder)
    left = [row for row in rows if int(benchmark.index[row]) not in done]
    barrier(world)  # every rank has read the parts before one of them grows
    macs = benchmark.costs["macs"]
    shares = deal([(row,) for row in left], world.size, lambda entry: float(macs[entry[0]]))
    mine = [left[place] for place in shares[world.rank]]
    shown = tqdm(mine, desc="networks", disable=None if world.is_main else True)

    def score(row: int) -> None:
        append_jsonl(folder.part(world.rank), [score_network(benchmark, row, settings, batches, warmup)])

    together(lambda: unless_stopped(shown, score, world), world)
    return read_parts(folder)


def write_scores(path: Path, benchmark: Benchmark, lines: Mapping[int, dict[str, Any]], names: Sequence[str]) -> None:
    """A gzipped CSV, one row a network: index, arch, costs, the scores as they were measured; empty where undefined.

    Equal scores give equal bytes.
    """
    rows = benchmark.rows_of(list(lines))
    columns: dict[str, Any] = {"index": list(lines), "arch": [line["arch"] for line in lines.values()]}
    columns |= {name: benchmark.costs[name][rows].astype(np.int64) for name in COSTS}
    columns |= {name: pl.Series([line["scores"][name] for line in lines.values()], dtype=pl.Float64) for name in names}
    text = io.BytesIO()
    pl.DataFrame(columns).write_csv(text)
    with replacing(path) as temporary:
        temporary.write_bytes(gzip.compress(text.getvalue(), mtime=0))
