"""manifest.json of a prepared click log, as launch/prepare.py writes it: read and checked, field by field.

    {"schema_version": 1, "dataset": "criteo", "protocol": "nasrec", "synthetic": false,
     "dense_fields": ["I1", ...], "categorical_fields": [{"name": "C1", "cardinality": 1461}, ...],
     "splits": {"train": {"rows": 6400, "base_rate": 0.25, "files": [
                     {"name": "train/part-00000.parquet", "rows": 6400, "bytes": 99, "sha256": "..."}]},
                "val": ..., "test": ...},
     "bayes_log_loss": {"train": 0.41, "val": 0.42, "test": 0.42} or null, ...}

What else it holds (source, options, bad_lines) is for people and is not read here.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from subshot.data.image_folder import DataError

SCHEMA_VERSION = 1
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class CategoricalField:
    """Ids are in [0, cardinality); 0 is "missing"."""

    name: str
    cardinality: int


@dataclass(frozen=True)
class PartFile:
    """name: relative to the prepared folder."""

    name: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class SplitRecord:
    """base_rate: the fraction of clicks. bayes_log_loss: the least that any predictor can reach, if that is known."""

    rows: int
    base_rate: float
    files: tuple[PartFile, ...]
    bayes_log_loss: float | None


@dataclass(frozen=True)
class ClickManifest:
    """synthetic: the rows were generated, nobody clicked. splits: by name, "train", "val" and "test"."""

    dataset: str
    protocol: str
    synthetic: bool
    dense_fields: tuple[str, ...]
    categorical_fields: tuple[CategoricalField, ...]
    splits: dict[str, SplitRecord]


def read_manifest(folder: Path) -> ClickManifest:
    """Raises DataError where the folder has no manifest, or one that does not have the form above."""
    path = folder / "manifest.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(
            f"{folder} is no prepared click log: it has no manifest.json, the last file that launch/prepare.py writes"
        ) from None
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}); prepare the log again") from error
    return _manifest(_Entry(path, "", record))


class _Entry:
    """A value in the JSON, and where it stands."""

    def __init__(self, path: Path, name: str, value: object) -> None:
        self.path = path
        self.name = name
        self.value = value

    def wrong(self, wanted: str) -> DataError:
        shown = repr(self.value)
        shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
        place = f"{self.path}: {self.name or 'the whole'}"
        return DataError(f"{place} must be {wanted}, not {shown}; prepare the log again with launch/prepare.py")

    def __getitem__(self, key: str) -> _Entry:
        if not isinstance(self.value, dict):
            raise self.wrong("an object")
        name = f"{self.name}.{key}" if self.name else key
        if key not in self.value:
            raise DataError(f"{self.path}: {name} is missing; prepare the log again with launch/prepare.py")
        return _Entry(self.path, name, self.value[key])

    def items(self) -> list[_Entry]:
        if not isinstance(self.value, list):
            raise self.wrong("a list")
        return [_Entry(self.path, f"{self.name}[{place}]", value) for place, value in enumerate(self.value)]

    def text(self) -> str:
        if not isinstance(self.value, str) or not self.value:
            raise self.wrong("a text")
        return self.value

    def flag(self) -> bool:
        if not isinstance(self.value, bool):
            raise self.wrong("true or false")
        return self.value

    def count(self, least: int = 0) -> int:
        if not isinstance(self.value, int) or isinstance(self.value, bool) or self.value < least:
            raise self.wrong(f"an integer of at least {least}")
        return self.value

    def number(self, highest: float = math.inf) -> float:
        if not isinstance(self.value, int | float) or isinstance(self.value, bool) or not 0 <= self.value <= highest:
            raise self.wrong("a number of at least 0" + (f" and at most {highest:g}" if highest < math.inf else ""))
        return float(self.value)


def _manifest(root: _Entry) -> ClickManifest:
    version = root["schema_version"]
    if version.value != SCHEMA_VERSION:
        raise version.wrong(f"{SCHEMA_VERSION}, the version that this program reads")
    categorical = tuple(
        CategoricalField(entry["name"].text(), entry["cardinality"].count(1))
        for entry in root["categorical_fields"].items()
    )
    dense = tuple(entry.text() for entry in root["dense_fields"].items())
    names = ["label", *dense, *(field.name for field in categorical)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{root.path}: field {twice[0]!r} is named twice; prepare the log again")
    if not categorical:
        raise root["categorical_fields"].wrong("a list of at least one field")
    bayes = root["bayes_log_loss"]
    splits = {
        name: _split(root["splits"][name], None if bayes.value is None else bayes[name].number()) for name in SPLITS
    }
    return ClickManifest(
        root["dataset"].text(), root["protocol"].text(), root["synthetic"].flag(), dense, categorical, splits
    )


def _split(entry: _Entry, bayes_log_loss: float | None) -> SplitRecord:
    files = tuple(
        PartFile(_inside(part["name"]), part["rows"].count(), part["bytes"].count(), part["sha256"].text())
        for part in entry["files"].items()
    )
    rows = entry["rows"]
    if rows.count() != sum(part.rows for part in files):
        raise rows.wrong(f"{sum(part.rows for part in files)}, the sum over the split's files")
    return SplitRecord(rows.count(), entry["base_rate"].number(highest=1.0), files, bayes_log_loss)


def _inside(entry: _Entry) -> str:
    name = PurePosixPath(entry.text())
    if name.is_absolute() or ".." in name.parts:
        raise entry.wrong("a path inside the prepared folder")
    return str(name)
