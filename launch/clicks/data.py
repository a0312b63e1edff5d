"""The clicks of a CTR run: a folder that launch/prepare.py wrote, or for the demo a synthetic log, made and prepared
here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from subshot.data.click_formats import Published
from subshot.data.click_lines import encoded_lines
from subshot.data.click_serving import serving_rules, vocabularies
from subshot.data.clicks import ClickSplit, PreparedClicks, open_clicks
from subshot.data.prepare_clicks import PrepareOptions, prepare_clicks
from subshot.data.synthetic_clicks import write_synthetic_log
from subshot.launch.clicks.config import ClickConfig
from subshot.train.dist import World, barrier
from subshot.train.run_dir import file_digest

DEMO_FOLDER = Path("runs/data/clicks")
DEMO_ROWS = 200_000
DEMO_SEED = 0
DEMO_TABLE_ROWS = 50_000
"""Far more than any field of the synthetic log has values, so that few collide."""
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class ClickData:
    """The splits of a run. train and val drive the search; test is looked at once, at the end."""

    prepared: PreparedClicks

    @property
    def dense_fields(self) -> tuple[str, ...]:
        return self.prepared.dense_fields

    @property
    def fields(self) -> list[tuple[str, int]]:
        """(name, cardinality) of the categorical fields."""
        return [(field.name, field.cardinality) for field in self.prepared.categorical_fields]

    def split(self, name: str) -> ClickSplit:
        splits = {"train": self.prepared.train, "val": self.prepared.val, "test": self.prepared.test}
        return splits[name]

    @property
    def summary(self) -> str:
        sizes = ", ".join(f"{len(self.split(name)):,} {name}" for name in SPLITS)
        rate = self.split("train").base_rate
        synthetic = "SYNTHETIC " if self.prepared.synthetic else ""
        return (
            f"clicks: {synthetic}{self.prepared.dataset}, protocol {self.prepared.protocol}; rows: {sizes}; "
            f"{len(self.dense_fields)} dense and {len(self.fields)} categorical fields; base rate {rate:.4f}"
        )

    def fingerprint(self) -> dict[str, Any]:
        """What the rows are, whatever the folder is called."""
        return {
            "dataset": self.prepared.dataset,
            "protocol": self.prepared.protocol,
            "dense_features": len(self.dense_fields),
            "sparse_fields": len(self.fields),
            "rows": {name: len(self.split(name)) for name in SPLITS},
            "manifest_sha256": file_digest(self.prepared.root / "manifest.json"),
        }

    def serving(self, max_rows: int) -> dict[str, Any]:
        """preprocess.json of a served model: what it must do to a raw row, and with which cap on table rows."""
        manifest = self._manifest()
        told = {name: manifest[name] for name in ("dataset", "protocol", "synthetic")}
        return told | {"max_rows_per_table": max_rows} | serving_rules(manifest, max_rows)

    def vocabularies(self) -> dict[str, list[Any]]:
        """Each field's values in the order of their ids; {} where ids are hashes."""
        return vocabularies(self.prepared.root, self._manifest())

    def encoded(self, lines: bytes, max_rows: int) -> dict[str, Tensor]:
        """Raw lines as the loaders would give them, were they rows of the log: dense [N, D] float32, ids [N, F]."""
        dense, ids = encoded_lines(self.prepared.root, self._manifest(), lines, max_rows)
        return {"dense": torch.from_numpy(dense), "ids": torch.from_numpy(ids)}

    def _manifest(self) -> dict[str, Any]:
        manifest: dict[str, Any] = json.loads((self.prepared.root / "manifest.json").read_text(encoding="utf-8"))
        return manifest


def open_click_data(config: ClickConfig, world: World) -> ClickData:
    """Raises DataError where the folder is not one that launch/prepare.py wrote, ValueError where none is given, or a
    file."""
    of = config.preset.rsplit("-", 1)[-1]
    dataset = of if of in get_args(Published) else "csv"
    more = " --schema {}" if dataset == "csv" else ""
    if config.data is not None:
        if config.data.is_file():
            how = f"python launch/prepare.py {dataset} {config.data} FOLDER{more.format('schema.json')}"
            raise ValueError(f"{config.data} is a file; --data takes the folder that launch/prepare.py writes: {how}")
        return ClickData(open_clicks(config.data))
    if config.preset != "clicks":
        raise ValueError(
            f"the preset {config.preset} needs clicks: add --data FOLDER, one that launch/prepare.py wrote "
            f"(python launch/prepare.py {dataset} RAW FOLDER{more.format('FILE')})"
        )
    folder = DEMO_FOLDER / "prepared"
    if world.is_main:
        raw = DEMO_FOLDER / "synthetic.tsv"
        if not raw.is_file():
            write_synthetic_log(raw, DEMO_ROWS, DEMO_SEED)
        prepare_clicks("criteo", raw, folder, PrepareOptions(max_rows_per_table=DEMO_TABLE_ROWS))
    barrier(world)
    return ClickData(open_clicks(folder))
