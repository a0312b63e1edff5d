"""A click log that launch/prepare.py wrote: its splits, and its rows, block by block, out of a memory map.

    clicks = open_clicks("prepared/")
    clicks.train.rows, clicks.train.base_rate, clicks.categorical_fields

A block is a row group of a Parquet file, at most 65,536 rows. Blocks of a small split stay in memory once read; those
of a large one are read again each time, which the kernel's page cache makes cheap.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from subshot.data.click_manifest import CategoricalField, PartFile, SplitRecord, read_manifest
from subshot.data.image_folder import DataError

HELD_BYTES = 2**30
"""A split of fewer bytes than this, decoded, is held in memory."""
HASHED_BYTES = 256 * 2**20
"""The sha256 of every file is checked on opening where all files together are smaller than this. Of larger logs only
sizes, row counts and columns are looked at: a change that keeps those shows where it breaks an id, or not at all."""


@dataclass(frozen=True, eq=False)
class ClickRows:
    """dense: [n, D] float32. ids: [F, n] int32, a field in a row. labels: [n] uint8, 0 or 1."""

    dense: NDArray[np.float32]
    ids: NDArray[np.int32]
    labels: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: NDArray[np.int64]) -> ClickRows:
        return ClickRows(self.dense.take(rows, axis=0), self.ids.take(rows, axis=1), self.labels.take(rows))

    def slice(self, first: int, last: int) -> ClickRows:
        """Rows first to last - 1; shares memory."""
        return ClickRows(self.dense[first:last], self.ids[:, first:last], self.labels[first:last])


def joined_rows(parts: list[ClickRows]) -> ClickRows:
    """All rows, in order."""
    if len(parts) == 1:
        return parts[0]
    return ClickRows(
        np.concatenate([part.dense for part in parts]),
        np.concatenate([part.ids for part in parts], axis=1),
        np.concatenate([part.labels for part in parts]),
    )


class ClickBlock:
    """Rows that are stored together and read at once."""

    def __init__(self, part: _Part, row_group: int, first_row: int, rows: int) -> None:
        self.rows = rows
        self._part = part
        self._row_group = row_group
        self._first_row = first_row
        self._held: ClickRows | None = None

    def read(self, *, hold: bool = False) -> ClickRows:
        """Raises DataError where an id, a label or a dense value cannot be. hold: keep the rows in memory."""
        if self._held is not None:
            return self._held
        rows = self._part.read(self._row_group, self._first_row)
        if hold:
            self._held = rows  # two threads that come here at once read it twice, and that is all
        return rows


@dataclass(frozen=True, eq=False)
class ClickSplit:
    """One split. base_rate: the fraction of clicks. blocks: its rows, in order.

    bayes_log_loss: the least that any predictor can reach, in nats a row; known of generated logs only.
    """

    name: str
    rows: int
    base_rate: float
    bayes_log_loss: float | None
    dense_fields: tuple[str, ...]
    categorical_fields: tuple[CategoricalField, ...]
    blocks: tuple[ClickBlock, ...]

    def __len__(self) -> int:
        return self.rows

    @property
    def held(self) -> bool:
        """Whether blocks stay in memory once they are read."""
        return self.rows * (4 * len(self.dense_fields) + 4 * len(self.categorical_fields) + 1) < HELD_BYTES

    def read(self, number: int) -> ClickRows:
        """The rows of blocks[number]."""
        return self.blocks[number].read(hold=self.held)


@dataclass(frozen=True, eq=False)
class PreparedClicks:
    """A prepared folder. synthetic: the rows were generated, nobody clicked."""

    root: Path
    dataset: str
    protocol: str
    synthetic: bool
    dense_fields: tuple[str, ...]
    categorical_fields: tuple[CategoricalField, ...]
    train: ClickSplit
    val: ClickSplit
    test: ClickSplit


def open_clicks(folder: Path | str) -> PreparedClicks:
    """Raises DataError where the folder is not what its manifest says; see HASHED_BYTES for what is looked at."""
    root = Path(folder)
    manifest = read_manifest(root)
    total = sum(part.bytes for record in manifest.splits.values() for part in record.files)
    columns = _Columns(manifest.dense_fields, manifest.categorical_fields)
    splits = {
        name: ClickSplit(
            name,
            record.rows,
            record.base_rate,
            record.bayes_log_loss,
            manifest.dense_fields,
            manifest.categorical_fields,
            _blocks(root, record, columns, total < HASHED_BYTES),
        )
        for name, record in manifest.splits.items()
    }
    return PreparedClicks(
        root,
        manifest.dataset,
        manifest.protocol,
        manifest.synthetic,
        manifest.dense_fields,
        manifest.categorical_fields,
        splits["train"],
        splits["val"],
        splits["test"],
    )


def concatenated(first: ClickSplit, second: ClickSplit) -> ClickSplit:
    """The rows of `first`, then those of `second`, of one prepared log; rows in memory are shared, not copied."""
    if (first.dense_fields, first.categorical_fields) != (second.dense_fields, second.categorical_fields):
        raise ValueError(f"{first.name} and {second.name} have different fields: join splits of one prepared log")
    rows = first.rows + second.rows
    share = first.rows / rows if rows else 0.0
    bayes = None
    if first.bayes_log_loss is not None and second.bayes_log_loss is not None:
        bayes = share * first.bayes_log_loss + (1 - share) * second.bayes_log_loss
    return ClickSplit(
        f"{first.name}+{second.name}",
        rows,
        share * first.base_rate + (1 - share) * second.base_rate,
        bayes,
        first.dense_fields,
        first.categorical_fields,
        first.blocks + second.blocks,
    )


class _Columns:
    """What the columns of a file must be, and how they become ClickRows."""

    def __init__(self, dense: tuple[str, ...], categorical: tuple[CategoricalField, ...]) -> None:
        self.dense = dense
        self.categorical = categorical
        self.cardinalities = np.array([field.cardinality for field in categorical], dtype=np.int64)
        self.schema = pa.schema(
            [("label", pa.uint8())]
            + [(name, pa.float32()) for name in dense]
            + [(field.name, pa.int32()) for field in categorical]
        )

    def check(self, path: Path, schema: Any) -> None:
        for place, wanted in enumerate(self.schema):
            if place >= len(schema.names) or schema.names[place] != wanted.name:
                found = "the end" if place >= len(schema.names) else repr(schema.names[place])
                raise DataError(
                    f"{path}: column {place + 1} must be field {wanted.name!r} of manifest.json, but is {found}; "
                    "prepare the log again"
                )
            if schema.field(place).type != wanted.type:
                raise DataError(
                    f"{path}: field {wanted.name!r} must hold {wanted.type}, not {schema.field(place).type}; "
                    "prepare the log again"
                )
        if len(schema.names) > len(self.schema):
            extra = schema.names[len(self.schema)]
            raise DataError(f"{path}: field {extra!r} is not in manifest.json; prepare the log again")

    def rows(self, path: Path, table: Any, first_row: int) -> ClickRows:
        """first_row: the place of the table's first row in the file, for messages."""
        count = table.num_rows
        arrays = []
        for name, column in zip(table.column_names, table.columns, strict=True):
            if column.null_count:
                raise DataError(f"{path}: field {name!r} has nulls in rows {first_row} to {first_row + count - 1}")
            arrays.append(column.combine_chunks().to_numpy(zero_copy_only=False))
        middle = 1 + len(self.dense)
        dense = np.empty((count, len(self.dense)), dtype=np.float32)
        for place, values in enumerate(arrays[1:middle]):
            dense[:, place] = values
        rows = ClickRows(dense, np.stack(arrays[middle:]), arrays[0])
        self._check_values(path, rows, first_row)
        return rows

    def _check_values(self, path: Path, rows: ClickRows, first_row: int) -> None:
        if len(rows) == 0:
            return
        outside = (rows.ids.max(axis=1) >= self.cardinalities) | (rows.ids.min(axis=1) < 0)
        if outside.any():
            place = int(outside.argmax())
            field, ids = self.categorical[place], rows.ids[place]
            row = int(((ids < 0) | (ids >= field.cardinality)).argmax())
            raise DataError(
                f"{path}: row {first_row + row} (from 0): id {ids[row]} of field {field.name!r} is outside "
                f"[0, {field.cardinality}); prepare the log again"
            )
        if rows.labels.max() > 1:
            row = int((rows.labels > 1).argmax())
            raise DataError(f"{path}: row {first_row + row} (from 0): label {rows.labels[row]} is neither 0 nor 1")
        finite = np.isfinite(rows.dense)
        if not finite.all():
            row, place = np.argwhere(~finite)[0].tolist()
            raise DataError(f"{path}: row {first_row + row} (from 0): field {self.dense[place]!r} is not finite")


class _Part:
    """One Parquet file; its footer is parsed once."""

    def __init__(self, path: Path, columns: _Columns, metadata: Any) -> None:
        self.path = path
        self._columns = columns
        self._metadata = metadata

    def read(self, row_group: int, first_row: int) -> ClickRows:
        try:
            with pq.ParquetFile(self.path, memory_map=True, metadata=self._metadata) as file:
                table = file.read_row_group(row_group, use_threads=False)
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{self.path} cannot be read ({error}); prepare the log again") from error
        return self._columns.rows(self.path, table, first_row)


def _blocks(root: Path, record: SplitRecord, columns: _Columns, hashed: bool) -> tuple[ClickBlock, ...]:
    blocks = []
    for file in record.files:
        path = root / file.name
        metadata = _footer(path, file, columns, hashed)
        part, first_row = _Part(path, columns, metadata), 0
        for group in range(metadata.num_row_groups):
            rows = metadata.row_group(group).num_rows
            blocks.append(ClickBlock(part, group, first_row, rows))
            first_row += rows
    return tuple(block for block in blocks if block.rows)


def _footer(path: Path, file: PartFile, columns: _Columns, hashed: bool) -> Any:
    """The file's metadata, after a look at whether it is the file that the manifest speaks of."""
    if not path.is_file():
        raise DataError(f"{path} is missing, but manifest.json names it; prepare the log again")
    size = path.stat().st_size
    if size != file.bytes:
        raise DataError(f"{path} has {size} bytes, manifest.json says {file.bytes}: it changed; prepare the log again")
    if hashed:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if digest != file.sha256:
            raise DataError(f"{path} changed after it was prepared: its sha256 differs; prepare the log again")
    try:
        with pq.ParquetFile(path, memory_map=True) as opened:
            metadata, schema = opened.metadata, opened.schema_arrow
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read as Parquet ({error}); prepare the log again") from error
    if metadata.num_rows != file.rows:
        raise DataError(
            f"{path} has {metadata.num_rows} rows, manifest.json says {file.rows}: it changed; prepare the log again"
        )
    columns.check(path, schema)
    return metadata
