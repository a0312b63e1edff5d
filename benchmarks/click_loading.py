"""Rows a second of the click loader alone against those that training uses, and what training waits for it.

    python benchmarks/click_loading.py [--rows 500000] [--batch-size 512] [--repetitions 7]

A prepared folder of random rows (13 dense and 26 categorical fields) is written to a temporary place. Training is one
step of an MLP of 2.0 M MACs a row on embedded inputs: forward, backward and Adagrad, without the tables, so it is
faster than a real step and the ratio is a lower bound. Each repetition times every side once, in turn, on one thread a
process (the loader's own thread comes beside it). The folder, just written, is in the page cache.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import tyro
from torch import nn

from subshot.data import click_folder
from subshot.data.batch import ClickBatch
from subshot.data.clicks import ClickLoader, open_clicks

DENSE, CATEGORICAL, DIM = 13, 26, 16
WIDTHS = (DENSE + CATEGORICAL * DIM, 1024, 1024, 512, 1)
WANTED = 5.0


@dataclass(frozen=True)
class Arguments:
    rows: int = 500_000
    batch_size: int = 512
    repetitions: int = 7
    steps: int = 30
    """Training steps a repetition."""


def write_folder(root: Path, rows: int) -> None:
    random = np.random.default_rng(0)
    cardinalities = [int(rows) for rows in np.geomspace(4, 500_000, CATEGORICAL)]
    splits = {}
    for split, count in (("train", rows), ("val", 1000), ("test", 1000)):
        columns = {"label": random.integers(0, 2, count, dtype=np.uint8)}
        columns |= {f"I{i + 1}": random.random(count, dtype=np.float32) for i in range(DENSE)}
        columns |= {f"C{i + 1}": random.integers(0, n, count, dtype=np.int32) for i, n in enumerate(cardinalities)}
        path = root / split / "part-00000.parquet"
        path.parent.mkdir()
        pq.write_table(pa.table(columns), path, row_group_size=65_536, compression="none", use_dictionary=False)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        file = {"name": f"{split}/{path.name}", "rows": count, "bytes": path.stat().st_size, "sha256": digest}
        splits[split] = {"rows": count, "base_rate": 0.5, "files": [file]}
    manifest = {
        "schema_version": 1,
        "dataset": "criteo",
        "protocol": "nasrec",
        "synthetic": True,
        "dense_fields": [f"I{i + 1}" for i in range(DENSE)],
        "categorical_fields": [{"name": f"C{i + 1}", "cardinality": n} for i, n in enumerate(cardinalities)],
        "splits": splits,
        "bayes_log_loss": None,
    }
    (root / "manifest.json").write_text(json.dumps(manifest))


class Training:
    """An MLP and its optimiser; the embeddings of a batch are random numbers, made beforehand."""

    def __init__(self, batch_size: int) -> None:
        layers: list[nn.Module] = []
        for fan_in, fan_out in itertools.pairwise(WIDTHS):
            layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
        self.network = nn.Sequential(*layers[:-1])
        self.optimizer = torch.optim.Adagrad(self.network.parameters(), lr=0.01, eps=1e-2)
        self.embedded = torch.randn(batch_size, CATEGORICAL * DIM)

    def step(self, batch: ClickBatch) -> None:
        logits = self.network(torch.cat([batch.dense, self.embedded], dim=1)).squeeze(1)
        loss = nn.functional.binary_cross_entropy_with_logits(logits, batch.labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def batches_of(loader: ClickLoader) -> Iterator[ClickBatch]:
    for epoch in itertools.count():
        for shards in loader.batches(epoch):
            yield shards[0][1]


def main() -> None:
    arguments = tyro.cli(Arguments, description=__doc__)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        write_folder(Path(folder), arguments.rows)
        held = ClickLoader(
            open_clicks(folder).train, batch_size=arguments.batch_size, num_shards=1, seed=0, max_rows_per_table=100_000
        )
        measure(arguments, held, "rows held in memory")
        click_folder.HELD_BYTES = 0
        read = ClickLoader(
            open_clicks(folder).train, batch_size=arguments.batch_size, num_shards=1, seed=0, max_rows_per_table=100_000
        )
        measure(arguments, read, "rows read from the files in every epoch")


def measure(arguments: Arguments, loader: ClickLoader, name: str) -> None:
    training = Training(arguments.batch_size)
    fixed = next(batches_of(loader))
    endless = batches_of(loader)
    next(endless)
    times: list[tuple[float, float, float]] = []
    for _ in range(arguments.repetitions):
        alone = seconds(lambda: sum(1 for _ in loader.batches(0))) / loader.steps_per_epoch
        bare = seconds(lambda: [training.step(fixed) for _ in range(arguments.steps)]) / arguments.steps
        fed = seconds(lambda: [training.step(next(endless)) for _ in range(arguments.steps)]) / arguments.steps
        times.append((alone, bare, fed))
    alone, bare, fed = np.array(times).T
    print(
        f"{name}: loading {arguments.batch_size / np.median(alone):,.0f} rows/s, "
        f"training {arguments.batch_size / np.median(bare):,.0f} rows/s: ratio {np.median(bare / alone):.1f} "
        f"(range {(bare / alone).min():.1f} to {(bare / alone).max():.1f}; wanted at least {WANTED})"
    )
    print(
        f"    a training step fed by the loader / one on a fixed batch: {np.median(fed / bare):.3f} "
        f"(range {(fed / bare).min():.3f} to {(fed / bare).max():.3f})",
        flush=True,
    )


if __name__ == "__main__":
    main()
