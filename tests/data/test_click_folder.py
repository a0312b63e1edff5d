"""What open_clicks finds in a whole folder, and what it says of one that is not."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from subshot.data import click_folder
from subshot.data.click_folder import concatenated, open_clicks
from subshot.data.click_manifest import CategoricalField
from subshot.data.image_folder import DataError

Write = Callable[..., Path]
PART = "train/part-00000.parquet"


def _change_manifest(root: Path, *keys: str | int, value: object = None, remove: bool = False) -> None:
    record = json.loads((root / "manifest.json").read_text())
    entry = record
    for key in keys[:-1]:
        entry = entry[key]
    if remove:
        del entry[keys[-1]]
    else:
        entry[keys[-1]] = value
    (root / "manifest.json").write_text(json.dumps(record))


def _rewrite(root: Path, change: Callable[[dict[str, Any]], dict[str, Any]], *, rows: int | None = None) -> None:
    """Changes the columns of a part and brings size and sha256 in the manifest up to date."""
    columns = {name: column.to_numpy().copy() for name, column in _columns(root).items()}
    pq.write_table(pa.table(change(columns)), root / PART, row_group_size=64, compression="none", use_dictionary=False)
    entry = {
        "name": PART,
        "rows": rows or pq.read_metadata(root / PART).num_rows,
        "bytes": (root / PART).stat().st_size,
        "sha256": hashlib.sha256((root / PART).read_bytes()).hexdigest(),
    }
    _change_manifest(root, "splits", "train", "files", 0, value=entry)


def _columns(root: Path) -> dict[str, Any]:
    table = pq.read_table(root / PART)
    return dict(zip(table.column_names, table.columns, strict=True))


def test_a_whole_folder(write_clicks: Write) -> None:
    root = write_clicks()
    clicks = open_clicks(str(root))
    assert (clicks.root, clicks.dataset, clicks.protocol, clicks.synthetic) == (root, "criteo", "nasrec", False)
    assert clicks.dense_fields == clicks.train.dense_fields == ("I1", "I2")
    assert clicks.categorical_fields == (
        CategoricalField("C1", 1000),
        CategoricalField("C2", 7),
        CategoricalField("C3", 50),
    )
    assert [len(split) for split in (clicks.train, clicks.val, clicks.test)] == [500, 130, 70]
    assert [block.rows for block in clicks.train.blocks] == [64, 64, 64, 64, 44, 64, 64, 64, 8]
    assert (clicks.train.name, clicks.train.bayes_log_loss) == ("train", 0.4)
    first = clicks.train.read(5)
    assert (first.dense.shape, first.ids.shape, first.labels.shape) == ((64, 2), (3, 64), (64,))
    assert (first.dense.dtype, first.ids.dtype, first.labels.dtype) == (np.float32, np.int32, np.uint8)
    assert first.dense[:, 0].tolist() == list(range(300, 364))


def test_small_splits_stay_in_memory_and_large_ones_do_not(
    write_clicks: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_clicks()
    small = open_clicks(root).train
    assert small.held and small.read(0) is small.read(0)
    monkeypatch.setattr(click_folder, "HELD_BYTES", 500 * (2 + 3) * 4)
    large = open_clicks(root).train
    assert not large.held and large.read(0) is not large.read(0)
    np.testing.assert_array_equal(large.read(0).ids, small.read(0).ids)


def test_a_log_without_a_bayes_loss(write_clicks: Write) -> None:
    root = write_clicks()
    _change_manifest(root, "bayes_log_loss", value=None)
    clicks = open_clicks(root)
    assert clicks.test.bayes_log_loss is None
    assert concatenated(clicks.train, clicks.val).bayes_log_loss is None


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (["schema_version"], 2, r"schema_version must be 1, the version that this program reads, not 2"),
        (["synthetic"], 0, "synthetic must be true or false, not 0"),
        (["dataset"], "", "dataset must be a text, not ''"),
        (["dense_fields"], "I1", "dense_fields must be a list, not 'I1'"),
        (["dense_fields"], ["I1", 2], r"dense_fields\[1\] must be a text, not 2"),
        (["dense_fields"], ["I1", "C1"], "field 'C1' is named twice"),
        (["categorical_fields"], [], r"categorical_fields must be a list of at least one field, not \[\]"),
        (["categorical_fields", 1, "cardinality"], 0, r"categorical_fields\[1\].cardinality must be an integer of at"),
        (["categorical_fields", 1, "cardinality"], True, r"cardinality must be an integer of at least 1, not True"),
        (["splits"], [], "splits must be an object"),
        (["splits", "train", "rows"], 499, r"splits.train.rows must be 500, the sum over the split's files, not 499"),
        (["splits", "val", "base_rate"], 1.5, "base_rate must be a number of at least 0 and at most 1, not 1.5"),
        (["splits", "val", "base_rate"], float("nan"), "base_rate must be a number .* not nan"),
        (["splits", "val", "files", 0, "name"], "../x", r"files\[0\].name must be a path inside the prepared folder"),
        (["bayes_log_loss", "val"], "low", "bayes_log_loss.val must be a number of at least 0, not 'low'"),
    ],
)
def test_a_manifest_that_says_what_it_must_not(
    write_clicks: Write, keys: list[str | int], value: object, message: str
) -> None:
    root = write_clicks()
    _change_manifest(root, *keys, value=value)
    with pytest.raises(DataError, match=f"manifest.json: .*{message}.*; prepare the log again"):
        open_clicks(root)


@pytest.mark.parametrize("keys", [["protocol"], ["splits", "test"], ["splits", "test", "files", 0, "sha256"]])
def test_a_manifest_that_lacks_an_entry(write_clicks: Write, keys: list[str | int]) -> None:
    root = write_clicks()
    _change_manifest(root, *keys, remove=True)
    with pytest.raises(DataError, match=rf"{keys[-1]} is missing; prepare the log again"):
        open_clicks(root)


def test_a_folder_without_a_manifest_or_with_half_of_one(write_clicks: Write, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere is no prepared click log: it has no manifest\.json"):
        open_clicks(tmp_path / "nowhere")
    root = write_clicks()
    (root / "manifest.json").write_text('{"schema_version": 1, ')
    with pytest.raises(DataError, match=r"manifest\.json is not JSON"):
        open_clicks(root)


def test_files_that_are_missing_or_changed(write_clicks: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_clicks()
    whole = (root / PART).read_bytes()
    (root / PART).write_bytes(whole + b"x")
    with pytest.raises(DataError, match=r"part-00000\.parquet has \d+ bytes, manifest\.json says \d+: it changed"):
        open_clicks(root)
    (root / PART).write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    with pytest.raises(DataError, match=r"part-00000\.parquet changed after it was prepared: its sha256 differs"):
        open_clicks(root)
    monkeypatch.setattr(click_folder, "HASHED_BYTES", 1)
    assert open_clicks(root).train.rows == 500  # a large log is not hashed
    (root / PART).write_bytes(whole[:-4] + b"PAR0")
    with pytest.raises(DataError, match=r"part-00000\.parquet cannot be read as Parquet"):
        open_clicks(root)
    (root / PART).unlink()
    with pytest.raises(DataError, match=r"part-00000\.parquet is missing, but manifest\.json names it"):
        open_clicks(root)


def test_a_file_with_other_rows_than_the_manifest_says(write_clicks: Write) -> None:
    root = write_clicks(train=(300,))
    _rewrite(root, lambda columns: {name: values[:299] for name, values in columns.items()}, rows=300)
    with pytest.raises(DataError, match=r"has 299 rows, manifest\.json says 300: it changed"):
        open_clicks(root)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: {n: v for n, v in c.items() if n != "C3"}, "column 6 must be field 'C3' .* but is the end"),
        (lambda c: {n: v for n, v in c.items() if n != "I2"}, "column 3 must be field 'I2' .* but is 'C1'"),
        (lambda c: c | {"C2": c["C2"].astype(np.int64)}, "field 'C2' must hold int32, not int64"),
        (lambda c: c | {"C9": c["C2"]}, "field 'C9' is not in manifest.json"),
    ],
)
def test_a_file_with_other_columns(
    write_clicks: Write, change: Callable[[dict[str, Any]], dict[str, Any]], message: str
) -> None:
    root = write_clicks()
    _rewrite(root, change)
    with pytest.raises(DataError, match=rf"part-00000\.parquet: {message}"):
        open_clicks(root)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("C2", 7, r"row 70 \(from 0\): id 7 of field 'C2' is outside \[0, 7\)"),
        ("C3", -1, r"row 70 \(from 0\): id -1 of field 'C3' is outside \[0, 50\)"),
        ("label", 2, r"row 70 \(from 0\): label 2 is neither 0 nor 1"),
        ("I2", np.nan, r"row 70 \(from 0\): field 'I2' is not finite"),
    ],
)
def test_values_that_cannot_be(write_clicks: Write, column: str, value: float, message: str) -> None:
    root = write_clicks()

    def spoil(columns: dict[str, Any]) -> dict[str, Any]:
        columns[column][70] = value
        return columns

    _rewrite(root, spoil)
    split = open_clicks(root).train
    split.read(0)
    with pytest.raises(DataError, match=rf"part-00000\.parquet: {message}"):
        split.read(1)


def test_nulls(write_clicks: Write) -> None:
    root = write_clicks()
    _rewrite(root, lambda c: c | {"I1": pa.array([None, *c["I1"][1:]], pa.float32())})
    with pytest.raises(DataError, match=r"part-00000\.parquet: field 'I1' has nulls in rows 0 to 63"):
        open_clicks(root).train.read(0)


def test_splits_of_different_logs_do_not_join(write_clicks: Write, tmp_path: Path) -> None:
    root = write_clicks()
    clicks = open_clicks(root)
    _change_manifest(root, "categorical_fields", 0, "cardinality", value=2000)
    with pytest.raises(ValueError, match="train and val have different fields"):
        concatenated(clicks.train, open_clicks(root).val)
