"""Lines of a raw log as a prepared folder's own rule encodes them: the path of `prepare` and of the loaders, without
its rows. By it a served model's plain Python (launch/winners/copied/preprocess_clicks.py) is checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from subshot.data.click_columns import Standard, own_plan
from subshot.data.click_formats import ClickFormat, Column, Layout
from subshot.data.click_parsing import parse_block
from subshot.data.click_protocols import PROTOCOLS, Plan, make_plan
from subshot.data.click_schema import ClickSchema
from subshot.data.click_serving import OWN_KINDS, published_columns
from subshot.data.click_text import Block
from subshot.data.click_vocabulary import as_vocabulary, encode
from subshot.data.clicks import capped_cardinalities, folded
from subshot.data.image_folder import DataError


def encoded_lines(
    folder: Path, manifest: Mapping[str, Any], text: bytes, max_rows_per_table: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """(dense [N, D], ids [N, F]) of whole lines, labelled, with a header that names columns in any order where the log
    has one; a column that nothing reads may be left out. User profiles stand behind a line's own cells.

    max_rows_per_table: the cap of the loaders, 0 for none. Raises DataError for a bad line.
    """
    layout, plan, standards = _own(manifest, text) if manifest["dataset"] == "csv" else _published(manifest, text)
    block = Block(text, 1, text.count(b"\n"), len(text), len(text))
    frame, bad = parse_block(
        block.without_first_line() if layout.format.header else block,
        layout,
        plan.protocol.category_text(layout.format.dataset),
    )
    if bad:
        raise DataError(f"line {bad[0].line}: {bad[0].text}")
    fields = [(field["name"], field["cardinality"]) for field in manifest["categorical_fields"]]
    values = plan.apply(frame).with_columns(standard.step(name) for name, standard in standards.items())
    if not plan.protocol.hashed:
        tables = {name: pl.read_parquet(folder / "vocabulary" / f"{name}.parquet") for name, _ in fields}
        values = encode(values, {name: as_vocabulary(table) for name, table in tables.items()})
    ids = values.select(name for name, _ in fields).to_numpy().astype(np.int64)
    sizes = capped_cardinalities([size for _, size in fields], max_rows_per_table)
    for place, ((_, size), kept) in enumerate(zip(fields, sizes, strict=True)):
        if kept < size:
            ids[:, place] = folded(ids[:, place], kept)
    return values.select(manifest["dense_fields"]).to_numpy().astype(np.float32), ids


def _published(manifest: Mapping[str, Any], text: bytes) -> tuple[Layout, Plan, dict[str, Standard]]:
    options = manifest["options"]
    layout, columns = published_columns(manifest)
    if layout.header:
        columns = _in_order(text, layout, {column.in_header: column for column in columns})
    plan = make_plan(
        PROTOCOLS[manifest["protocol"]],
        layout.dataset,
        columns,
        keep_id=options["keep_id"],
        drop_impression=options["drop_impression"],
        max_rows_per_table=options["max_rows_per_table"],
    )
    return Layout(layout, columns), plan, {}


def _own(manifest: Mapping[str, Any], text: bytes) -> tuple[Layout, Plan, dict[str, Standard]]:
    """Of a log of one's own; its rows are in no order of time here."""
    record: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in manifest["schema"].items()}
    schema = replace(ClickSchema(**record), time="")
    known = {
        column["name"]: Column(column["name"], OWN_KINDS.get(column["kind"], "left out"))
        for column in manifest["columns"]
    }
    words = manifest["text"]
    form = ClickFormat(
        "csv", "the log", words["separator"].encode(), True, (), 0, cells_quoted=True, missing=tuple(words["missing"])
    )
    layout = Layout(form, _in_order(text, form, known))
    standards = {
        column["name"]: Standard(column["mean"], column["deviation"])
        for column in manifest["columns"]
        if column.get("transform") == "standard"
    }
    return layout, own_plan(schema, layout), standards


def _in_order(text: bytes, layout: ClickFormat, known: Mapping[str, Column]) -> tuple[Column, ...]:
    """As the first line names them."""
    head = text.split(b"\n", 1)[0].decode()
    return tuple(known[name.strip('"')] for name in head.split(layout.separator.decode()))
