"""Preparing a raw Criteo log against the pandas way of doing the same: rows a second and memory, side by side.

    python benchmarks/prepare_clicks.py [--rows 1000000] [--protocol autoctr]

Both read the same raw text, of random rows with Criteo's shape and Zipf-distributed categories, and take the same
steps: stratified folds, dense transform, then hashing (nasrec) or vocabularies of train (autoctr), and Parquet for
train, validation and test. The pandas way is that of the public scripts: read the whole file, apply a Python function
to each column, keep a dict a field. Each side runs in a process of its own, on one thread, in turn. Wanted: at least 5
times the rows a second, at most a fifth of the memory.

Rates are told by the clock and by processor time, which other work on the machine does not change; the ratio is that
of processor time. Memory is the peak of the whole process; beside it stands the peak less what the process held after
its imports. The command launch/prepare.py holds 190 MiB more, of torch and TensorBoard, which all commands import.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

Side = Literal["subshot", "pandas"]
Protocol = Literal["nasrec", "autoctr"]
DENSE = [f"I{i}" for i in range(1, 14)]
CATEGORICAL = [f"C{i}" for i in range(1, 27)]


@dataclass(frozen=True)
class Arguments:
    rows: int = 1_000_000
    protocol: tuple[Protocol, ...] = ("nasrec", "autoctr")
    repetitions: int = 1
    side: Side | None = None
    """Used by the benchmark itself: prepares RAW on this side and prints seconds and memory."""
    raw: Path = Path()
    out: Path = Path()


def write_raw_log(path: Path, rows: int, seed: int = 0) -> None:
    """Criteo's shape: the published table sizes bound each field's values, a tenth of the cells is empty."""
    from subshot.data.click_protocols import PROTOCOLS

    sizes = PROTOCOLS["nasrec"].table_sizes["criteo"]
    rng = np.random.Generator(np.random.Philox(seed))
    with path.open("w", encoding="ascii") as file:
        for begin in range(0, rows, 50_000):
            count = min(50_000, rows - begin)
            columns = [(rng.random(count) < 0.25).astype(int).astype(str)]
            for _ in DENSE:
                columns.append(blanked(np.floor(rng.lognormal(2.0, 1.5, count)).astype(int).astype(str), rng))
            for field, size in sizes.items():
                ranks = np.minimum(rng.zipf(1.2, count), size).astype(np.uint64)
                words = (ranks * np.uint64(2654435761) + np.uint64(int(field[1:]))) % np.uint64(2**32)
                columns.append(blanked(np.array([f"{word:08x}" for word in words.tolist()]), rng))
            file.writelines("\t".join(line) + "\n" for line in zip(*columns, strict=True))


def blanked(words: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.where(rng.random(len(words)) < 0.1, "", words)


def by_subshot(raw: Path, out: Path, protocol: Protocol) -> None:
    from subshot.data.prepare_clicks import PrepareOptions, prepare_clicks

    prepare_clicks("criteo", raw, out, PrepareOptions(protocol))


def by_pandas(raw: Path, out: Path, protocol: Protocol) -> None:
    import pandas as pd
    from sklearn.model_selection import StratifiedKFold

    from subshot.data.click_protocols import PROTOCOLS

    table = pd.read_csv(raw, sep="\t", header=None, names=["label", *DENSE, *CATEGORICAL])
    labels = table["label"].to_numpy()
    parts = [test for _, test in StratifiedKFold(10, shuffle=True, random_state=2018).split(labels, labels)]
    splits = PROTOCOLS[protocol].splits
    places = {
        split: np.sort(np.concatenate([part for part, name in zip(parts, splits, strict=True) if name == split]))
        for split in ("train", "val", "test")
    }
    for field in DENSE:
        table[field] = table[field].apply(log1p if protocol == "nasrec" else squared_log).astype(np.float32)
    sizes = PROTOCOLS["nasrec"].table_sizes["criteo"]
    for field in CATEGORICAL:
        if protocol == "nasrec":
            table[field] = table[field].apply(lambda word, n=sizes[field]: hashed(word, n)).astype(np.int32)
        else:
            counts: dict[Any, int] = {}
            for word in table[field].iloc[places["train"]]:
                counts[word] = counts.get(word, 0) + 1
            frequent = sorted((word for word, n in counts.items() if n > 10 and word == word), key=lambda w: -counts[w])
            ids = {word: place for place, word in enumerate(frequent, start=2)}
            table[field] = table[field].map(lambda word, ids=ids: ids.get(word, 1) if word == word else 0)
            table[field] = table[field].astype(np.int32)
    for split, rows in places.items():
        (out / split).mkdir(parents=True)
        table.iloc[rows].to_parquet(out / split / "part.parquet", compression=None, index=False)


def log1p(x: float) -> float:
    return math.log(1 + max(x, 0)) if x == x else 0.0


def squared_log(x: float) -> float:
    if x != x:
        return 0.0
    return int(math.log(x) ** 2) if x > 2 else x


def hashed(word: Any, size: int) -> int:
    return int(word, 16) % (size - 1) + 1 if word == word else 0


def status_mib(name: str) -> float:
    """VmHWM (peak) or VmRSS of this process; getrusage's peak would be that of the process which started this."""
    status = Path("/proc/self/status").read_text()
    return float(status.split(f"{name}:")[1].split()[0]) / 2**10


def one_side(arguments: Arguments) -> None:
    """Runs in a process of its own: imports, then prepares; prints seconds, peak MiB and MiB after the imports."""
    if arguments.side == "pandas":
        import pandas  # noqa: F401
        import pyarrow.parquet  # noqa: F401
        import sklearn.model_selection  # noqa: F401
    import subshot.data.prepare_clicks  # noqa: F401

    before = status_mib("VmRSS")
    run = by_pandas if arguments.side == "pandas" else by_subshot
    began, cpu = time.perf_counter(), time.process_time()
    run(arguments.raw, arguments.out, arguments.protocol[0])
    print(time.perf_counter() - began, time.process_time() - cpu, status_mib("VmHWM"), before)


def measured(side: Side, protocol: Protocol, raw: Path, out: Path) -> list[float]:
    one_thread = dict.fromkeys(("POLARS_MAX_THREADS", "OMP_NUM_THREADS", "ARROW_NUM_THREADS"), "1")
    command = [sys.executable, __file__, "--side", side, "--protocol", protocol, "--raw", str(raw), "--out", str(out)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | one_thread)
    return [float(word) for word in done.stdout.split()]


def main() -> None:
    arguments = tyro.cli(Arguments, description=__doc__)
    if arguments.side is not None:
        one_side(arguments)
        return
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "train.txt"
        write_raw_log(raw, arguments.rows)
        print(f"{arguments.rows:,} rows, {raw.stat().st_size / 2**20:.0f} MiB of text")
        for protocol in arguments.protocol:
            for repetition in range(arguments.repetitions):
                found = {}
                for side in ("subshot", "pandas"):
                    out = Path(folder) / f"{protocol}-{side}-{repetition}"
                    found[side] = seconds, cpu, peak, before = measured(side, protocol, raw, out)
                    print(
                        f"{protocol} {side}: {arguments.rows / seconds:,.0f} rows a second, "
                        f"{arguments.rows / cpu:,.0f} a second of processor time, peak {peak:.0f} MiB, "
                        f"{peak - before:.0f} MiB above the imports",
                        flush=True,
                    )
                speed = found["pandas"][1] / found["subshot"][1]
                memory = found["subshot"][2] / found["pandas"][2]
                above = (found["subshot"][2] - found["subshot"][3]) / (found["pandas"][2] - found["pandas"][3])
                print(
                    f"{protocol}: {speed:.1f} times the rows a second of processor time (wanted at least 5), "
                    f"{memory:.3f} of the memory, {above:.3f} above the imports (wanted at most 0.2)",
                    flush=True,
                )


if __name__ == "__main__":
    main()
