"""The embedded digits, written once for all tests of the data folder, and prepared click logs of random rows."""

import hashlib
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from subshot.data.digits import write_digits


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("data") / "digits")


@pytest.fixture(scope="session")
def photos(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 ImageNet photos of 100 classes at their original sizes, as train/<class>/."""
    root = tmp_path_factory.mktemp("photos")
    with tarfile.open(shared_data / "imagenet_original_res_100.tar") as archive:
        archive.extractall(root / "train", filter="data")
    return root


CARDINALITIES = {"C1": 1000, "C2": 7, "C3": 50}


@pytest.fixture
def write_clicks(tmp_path: Path) -> Callable[..., Path]:
    """Writes a prepared click log without the project's own writer.

    Takes the rows of every file of train, val and test. The first dense field is the row's number in its split.
    """

    def write(
        train: tuple[int, ...] = (300, 0, 200),
        val: tuple[int, ...] = (130,),
        test: tuple[int, ...] = (70,),
        dense: tuple[str, ...] = ("I1", "I2"),
        row_group: int = 64,
    ) -> Path:
        root, splits = tmp_path / "prepared", {}
        for place, (split, sizes) in enumerate({"train": train, "val": val, "test": test}.items()):
            (root / split).mkdir(parents=True)
            random = np.random.default_rng(place)
            starts = np.cumsum([0, *sizes]).tolist()
            files, clicks = [], 0
            for number, (first, size) in enumerate(zip(starts, sizes, strict=False)):
                columns = {"label": random.integers(0, 2, size, dtype=np.uint8)}
                columns |= {name: random.standard_normal(size).astype(np.float32) for name in dense}
                if dense:
                    columns[dense[0]] = np.arange(first, first + size, dtype=np.float32)
                columns |= {name: random.integers(0, n, size, dtype=np.int32) for name, n in CARDINALITIES.items()}
                path = root / split / f"part-{number:05d}.parquet"
                pq.write_table(
                    pa.table(columns), path, row_group_size=row_group, compression="none", use_dictionary=False
                )
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                name = f"{split}/{path.name}"
                files.append({"name": name, "rows": size, "bytes": path.stat().st_size, "sha256": digest})
                clicks += int(columns["label"].sum())
            splits[split] = {"rows": sum(sizes), "base_rate": clicks / sum(sizes), "files": files}
        manifest: dict[str, Any] = {
            "schema_version": 1,
            "dataset": "criteo",
            "protocol": "nasrec",
            "synthetic": False,
            "source": [],
            "dense_fields": list(dense),
            "categorical_fields": [{"name": name, "cardinality": n} for name, n in CARDINALITIES.items()],
            "splits": splits,
            "bad_lines": 0,
            "options": {},
            "bayes_log_loss": {"train": 0.4, "val": 0.5, "test": 0.6},
        }
        (root / "manifest.json").write_text(json.dumps(manifest))
        return root

    return write
