"""Parquet parts of prepared click logs: written whole or not at all, and quick to read through a memory map."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from subshot.data.click_text import sha256_of

ROW_GROUP_ROWS = 65_536


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`: in its place when the block ends without an error, removed otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


class PartWriter:
    """One Parquet file: PLAIN, neither compressed nor dictionary-encoded, in row groups of at most 65,536 rows.

    Frames may come in any size; what does not fill a row group waits. nulls: whether columns may hold missing values.
    """

    def __init__(self, path: Path, *, nulls: bool, row_group_rows: int) -> None:
        self.path = path
        self.nulls = nulls
        self.row_group_rows = row_group_rows
        self.rows = 0
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[pa.Table] = []
        self._waiting_rows = 0

    def write(self, frame: pl.DataFrame) -> None:
        table = frame.to_arrow()
        if not self.nulls:
            assert not any(column.null_count for column in table.columns), f"missing values for {self.path}"
            schema = pa.schema([field.with_nullable(False) for field in table.schema])
            table = pa.Table.from_arrays(table.columns, schema=schema)
        self.rows += len(table)
        self._waiting.append(table)
        self._waiting_rows += len(table)
        if self._waiting_rows >= self.row_group_rows:
            together = pa.concat_tables(self._waiting)
            whole = len(together) - len(together) % self.row_group_rows
            self._append(together.slice(0, whole))
            self._waiting, self._waiting_rows = [together.slice(whole)], len(together) - whole

    def close(self) -> None:
        """Writes what waits, and the footer. At least one frame must have come."""
        if self._waiting_rows or self._writer is None:
            self._append(pa.concat_tables(self._waiting))
        assert self._writer is not None
        self._writer.close()

    def _append(self, table: pa.Table) -> None:
        if self._writer is None:
            self._writer = pq.ParquetWriter(self.path, table.schema, compression="NONE", use_dictionary=False)
        self._writer.write_table(table, row_group_size=self.row_group_rows)


@contextmanager
def part_writer(path: Path, *, nulls: bool = False, row_group_rows: int = ROW_GROUP_ROWS) -> Iterator[PartWriter]:
    """A PartWriter whose file appears under its name when the block ends without an error."""
    with written_whole(path) as temporary:
        writer = PartWriter(temporary, nulls=nulls, row_group_rows=row_group_rows)
        yield writer
        writer.close()


def row_groups(path: Path, columns: Sequence[str] | None = None) -> Iterator[pl.DataFrame]:
    """The row groups of a part, in order. Read, not mapped: a map's pages would count as our memory."""
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            frame = pl.from_arrow(file.read_row_group(group, columns=columns))
            assert isinstance(frame, pl.DataFrame)
            yield frame


def file_record(path: Path, name: str, rows: int) -> dict[str, Any]:
    """What a manifest says of one file."""
    return {"name": name, "rows": rows, "bytes": path.stat().st_size, "sha256": sha256_of(path)}
