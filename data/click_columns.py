"""What becomes of a row of one's own log: the exact rule. Plain Python repeats it from manifest.json (`columns` and
`text`) and the vocabulary tables alone, as tests/data/test_own_clicks.py does.

Text. A line is UTF-8; what is not becomes U+FFFD. A line without quotation marks is cut at text.separator; one with
them as csv.reader([line], delimiter=text.separator, strict=True) cuts it. A cell holds no line break. Cells stand in
the order of `columns`. A cell that is empty or is one of text.missing is missing.

label        "0" or "1".
number       a text that matches NUMBER in full, read as the nearest double x, which must be finite. Then, in double
             precision, rounded to float32 at the end:
             log1p     log1p(max(x, 0)); a missing cell gives 0
             standard  min(max((x - mean) / deviation, -bound), bound); a missing cell gives 0
category     the cell's text as it stands, neither stripped nor folded. id: 0 for a missing cell; that of its row in the
             table `vocabulary`, where it has one; 1 otherwise.
time, left out   nothing.

Dense values stand in the order of `dense_fields`, ids in that of `categorical_fields`; a log without numbers has one
dense field, zero, that is 0 everywhere.

Vocabularies hold the texts that stand in at least min_count training rows, with ids from 2 on by falling count and,
among equal counts, by rising code points. mean and deviation (the root of the mean squared distance; 1 where all values
are alike) are those of the training rows where the cell is not missing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from subshot.data.click_formats import Layout
from subshot.data.click_protocols import MISSING_ID, OTHERS_ID, ZERO, Plan, PlannedField, Protocol, dense_step
from subshot.data.click_schema import ClickSchema
from subshot.data.folds import FOLDS
from subshot.data.image_folder import DataError

BOUND = 10.0
"""Of standardised values."""


@dataclass(frozen=True)
class Standard:
    """Of a column's values in the training rows."""

    mean: float
    deviation: float

    def step(self, name: str) -> pl.Expr:
        scaled = (pl.col(name) - self.mean) / self.deviation
        return scaled.clip(-BOUND, BOUND).fill_null(0.0).cast(pl.Float32).alias(name)


def own_plan(schema: ClickSchema, layout: Layout) -> Plan:
    """What the schema makes of the log; numbers are standardised when their mean is known."""
    protocol = Protocol(
        name="own",
        folds="stratified",
        splits=("train",) * 8 + ("val", "test"),
        dense="by column",
        table_sizes={},
        min_counts={"csv": schema.min_count},
        decimal_first=(),
        calendar=False,
        departures=(),
    )
    names = [column.name for column in layout.columns if column.kind == "real"]
    steps = [pl.col(schema.label).alias("label")]
    steps += [dense_step("log1p", name).alias(name) if name in schema.counts else pl.col(name) for name in names]
    if not names:
        steps.append(pl.lit(0.0, pl.Float32).alias(ZERO))
    categories = [column.name for column in layout.columns if column.kind == "text"]
    steps += [pl.col(name) for name in categories]
    if schema.time:
        steps.append(pl.col(schema.time))
    fields = tuple(PlannedField(name, 0) for name in categories)
    standardised = tuple(name for name in names if name in schema.numbers)
    return Plan(protocol, schema.label, tuple(names) or (ZERO,), fields, tuple(steps), standardised, schema.time)


def fit_standard(name: str, columns: Callable[[], Iterator[pl.Series]]) -> Standard:
    """columns gives the column's training rows in pieces, twice. Raises DataError where the values are too large."""
    count, total, squares = 0, 0.0, 0.0
    for column in columns():
        count += len(column) - column.null_count()
        total += float(column.sum())
    mean = total / count if count else 0.0
    for column in columns():
        squares += float(((column - mean) ** 2).sum())
    deviation = math.sqrt(squares / count) if count else 0.0
    if not math.isfinite(mean) or not math.isfinite(deviation):
        raise DataError(
            f"the values of column {name} are too large to be standardised; scale them down, or leave it out"
        )
    return Standard(mean, deviation or 1.0)


def folds_by_time(times: pl.Series) -> NDArray[np.int8]:
    """Tenths of the rows in the order of their times, and of equal times in the log's order.

    times: texts. They are ordered as numbers where all are numbers, by code points otherwise (as ISO dates are).
    """
    numbers = times.cast(pl.Float64, strict=False)
    ordered = times if numbers.null_count() or not numbers.is_finite().all() else numbers
    order = ordered.to_frame("time").with_row_index("row").sort("time", "row")["row"].to_numpy()
    folds = np.empty(len(times), np.int8)
    folds[order] = np.arange(len(times), dtype=np.int64) * FOLDS // max(1, len(times))
    return folds


def column_records(schema: ClickSchema, layout: Layout, standards: Mapping[str, Standard]) -> list[dict[str, Any]]:
    """manifest.json's `columns`, in the order of the file."""
    return [{"name": column.name} | _record(schema, column.name, standards) for column in layout.columns]


def _record(schema: ClickSchema, name: str, standards: Mapping[str, Standard]) -> dict[str, Any]:
    if name in schema.counts:
        return {"kind": "number", "transform": "log1p", "missing": 0.0}
    if name in standards:
        standard = standards[name]
        parameters = {"mean": standard.mean, "deviation": standard.deviation, "bound": BOUND}
        return {"kind": "number", "transform": "standard", **parameters, "missing": 0.0}
    if name in schema.categories:
        table = {"vocabulary": f"vocabulary/{name}.parquet", "min_count": schema.min_count}
        return {"kind": "category", **table, "missing_id": MISSING_ID, "others_id": OTHERS_ID}
    kinds = {schema.label: "label", schema.time: "time"}
    return {"kind": kinds.get(name, "left out")}


def text_record(schema: ClickSchema) -> dict[str, Any]:
    """manifest.json's `text`."""
    return {"separator": schema.separator, "quote": '"', "missing": list(schema.missing)}
