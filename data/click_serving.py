"""What a served model must do to a line of the raw log, from the manifest of the prepared one: JSON for
preprocess.json, and the vocabularies. launch/winners/copied/preprocess_clicks.py does what it says.

    separator, header   how a line is cut; with a header, its names say where the columns are
    quotes              "none": they are letters; "strip": those around a cell go; "csv": as csv.reader cuts a line
    missing             cells that mean nothing, besides the empty one
    columns             {name, header, kind, label}: how a cell is read (see data/click_formats.py)
    dense               {name, of, step}: step(cell of column `of`), 0 where it is missing; of None: always 0. The steps
                        are those of data/click_protocols.py, and standard, with mean, deviation and bound
    categories          {name, of, part, hash_size, modulo, cardinality, rows}: the id of a cell, see below

An id is 0 for a missing cell. Otherwise the cell is taken whole, or a part of it ("squared log", or of a date "hour",
"weekday", "is_weekend"); where hash_size is not 0 the id is (value mod modulo, where that is not 0) mod (hash_size - 1)
+ 1, else the value's place in its vocabulary + 2, or 1 where it is not there. Where rows is below cardinality the table
was capped, and ids from 1 on become (id - 1) mod (rows - 1) + 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from subshot.data.click_formats import FORMATS, ClickFormat, Column, Kind
from subshot.data.click_protocols import DATE_PARTS, HASH_PRIME, PROTOCOLS, ZERO
from subshot.data.clicks import capped_cardinalities
from subshot.data.user_profile import PROFILE_COLUMNS

OWN_KINDS: Mapping[str, Kind] = {"number": "real", "category": "text", "label": "label"}
"""How the columns of a log of one's own are read; of any other kind they are left out."""


def published_columns(manifest: Mapping[str, Any]) -> tuple[ClickFormat, tuple[Column, ...]]:
    """The layout of a published log, and its columns, user profiles behind them."""
    options = manifest["options"]
    layout = next(each for each in FORMATS if each.title == options["layout"])
    return layout, layout.columns + (PROFILE_COLUMNS if options["user_profile"] else ())


def serving_rules(manifest: Mapping[str, Any], max_rows_per_table: int) -> dict[str, Any]:
    """max_rows_per_table: of the tables that are served; 0 for no cap."""
    if manifest["dataset"] == "csv":
        return _own_rules(manifest, max_rows_per_table)
    dataset, protocol = manifest["dataset"], PROTOCOLS[manifest["protocol"]]
    layout, columns = published_columns(manifest)
    decimal_first = protocol.category_text(dataset) == "decimal else hex"
    fields = [(field["name"], field["cardinality"]) for field in manifest["categorical_fields"]]
    rows = capped_cardinalities([cardinality for _, cardinality in fields], max_rows_per_table)
    dense = manifest["dense_fields"]
    integers = {column.name for column in columns if column.is_dense}
    categories = []
    for (name, cardinality), kept in zip(fields, rows, strict=True):
        of = "hour" if protocol.calendar and name in DATE_PARTS else name
        part = name if protocol.calendar and name in DATE_PARTS else "squared log" if name in integers else ""
        categories.append(
            {
                "name": name,
                "of": of,
                "part": part,
                "hash_size": cardinality if protocol.hashed else 0,
                "modulo": HASH_PRIME if dataset in protocol.decimal_first else 0,
                "cardinality": cardinality,
                "rows": kept,
            }
        )
    read = {category["of"] for category in categories} | set(dense)
    return {
        "separator": layout.separator.decode(),
        "header": layout.header,
        "quotes": "strip" if layout.quoted else "none",
        "missing": [],
        "columns": [
            _cell(column, decimal_first)
            for column in columns
            if not layout.header or column.is_label or column.name in read
        ],
        "dense": [{"name": name, "of": None if name == ZERO else name, "step": protocol.dense} for name in dense],
        "categories": categories,
    }


def _cell(column: Column, decimal_first: bool) -> dict[str, Any]:
    kind = "decimal else hex" if column.kind == "hex" and decimal_first else column.kind
    return {"name": column.name, "header": column.in_header, "kind": kind, "label": column.is_label}


def _own_rules(manifest: Mapping[str, Any], max_rows_per_table: int) -> dict[str, Any]:
    """Of a log of one's own, whose rule is data/click_columns.py's."""
    columns = [column for column in manifest["columns"] if column["kind"] in OWN_KINDS]
    steps = {column["name"]: column for column in columns}
    fields = [(field["name"], field["cardinality"]) for field in manifest["categorical_fields"]]
    rows = capped_cardinalities([cardinality for _, cardinality in fields], max_rows_per_table)
    dense = []
    for name in manifest["dense_fields"]:
        rule = {"name": name, "of": name if name in steps else None, "step": "log1p"}
        if name in steps and steps[name]["transform"] == "standard":
            rule |= {"step": "standard"} | {key: steps[name][key] for key in ("mean", "deviation", "bound")}
        dense.append(rule)
    return {
        "separator": manifest["text"]["separator"],
        "header": True,
        "quotes": "csv",
        "missing": manifest["text"]["missing"],
        "columns": [
            {
                "name": column["name"],
                "header": column["name"],
                "kind": OWN_KINDS[column["kind"]],
                "label": column["kind"] == "label",
            }
            for column in columns
        ],
        "dense": dense,
        "categories": [
            {"name": name, "of": name, "part": "", "hash_size": 0, "modulo": 0, "cardinality": size, "rows": kept}
            for (name, size), kept in zip(fields, rows, strict=True)
        ],
    }


def vocabularies(folder: Path, manifest: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Every field's values in the order of their ids, from 2 on; {} where ids are hashes."""
    if manifest["dataset"] != "csv" and PROTOCOLS[manifest["protocol"]].hashed:
        return {}
    names = [field["name"] for field in manifest["categorical_fields"]]
    tables = {name: pl.read_parquet(folder / "vocabulary" / f"{name}.parquet") for name in names}
    return {name: table.sort("id")["value"].to_list() for name, table in tables.items()}
