"""Vocabularies of categorical values: which values of the train split get an id, and the id of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import polars as pl

from subshot.data.click_protocols import FIRST_VALUE_ID, MISSING_ID, OTHERS_ID

COUNTED_AT_ONCE = 2**24


@dataclass(frozen=True)
class Vocabulary:
    """Values in rising order and the id of each. Ids: 0 missing, 1 others, 2 upwards by falling frequency."""

    values: pl.Series
    ids: pl.Series

    @property
    def cardinality(self) -> int:
        return len(self.values) + FIRST_VALUE_ID


def encode(frame: pl.DataFrame, vocabularies: Mapping[str, Vocabulary]) -> pl.DataFrame:
    """Some fields' values, integers or texts, replaced by their ids (Int32).

    A value that its vocabulary lacks is one of the others.
    """
    values = {field: pl.lit(vocabulary.values) for field, vocabulary in vocabularies.items()}
    last = {field: max(len(vocabulary.values) - 1, 0) for field, vocabulary in vocabularies.items()}
    nothing = {field: "" if frame[field].dtype == pl.String else 0 for field in vocabularies}
    places = frame.select(
        values[field]
        .search_sorted(pl.col(field).fill_null(nothing[field]))
        .clip(upper_bound=last[field])
        .alias(f"{field}/place")
        for field in vocabularies
    )
    return pl.concat([frame, places], how="horizontal").select(
        _id(name, vocabularies[name]) if name in vocabularies else pl.col(name) for name in frame.columns
    )


def _id(field: str, vocabulary: Vocabulary) -> pl.Expr:
    column, place = pl.col(field), pl.col(f"{field}/place")
    known: pl.Expr = pl.lit(OTHERS_ID)
    if len(vocabulary.values):
        same = pl.lit(vocabulary.values).gather(place) == column
        known = pl.when(same).then(pl.lit(vocabulary.ids).gather(place)).otherwise(OTHERS_ID)
    return pl.when(column.is_null()).then(MISSING_ID).otherwise(known).cast(pl.Int32).alias(field)


def fit_vocabulary(train_columns: Callable[[], Iterator[pl.Series]], train_rows: int, min_count: int) -> pl.DataFrame:
    """Columns value (rising), id (Int32) and count: the values that stand in at least min_count rows.

    train_columns gives the column, train rows only, in pieces; it is called once for every 2^24 train rows, and each
    time only one share of the values, by hash, is counted. So memory holds about 2^24 different values at the most,
    besides the result, however long the log is. Ids follow falling counts, and rising values among equal counts.
    """
    shares = max(1, -(-train_rows // COUNTED_AT_ONCE))
    kept = pl.concat(_frequent(_share(train_columns(), share, shares), min_count) for share in range(shares))
    ranked = kept.sort(["count", "value"], descending=[True, False]).with_row_index("id", FIRST_VALUE_ID)
    return ranked.select("value", pl.col("id").cast(pl.Int32), "count").sort("value")


def as_vocabulary(table: pl.DataFrame) -> Vocabulary:
    """From the table that fit_vocabulary gives."""
    return Vocabulary(table["value"].set_sorted(), table["id"])


def _share(columns: Iterator[pl.Series], share: int, shares: int) -> Iterator[pl.Series]:
    for column in columns:
        values = column.drop_nulls()
        yield values if shares == 1 else values.filter(values.hash() % shares == share)


def _frequent(columns: Iterator[pl.Series], min_count: int) -> pl.DataFrame:
    """Counts are merged whenever as many new ones have gathered as there are old ones."""
    counted: pl.DataFrame | None = None
    waiting: list[pl.DataFrame] = []
    for column in columns:
        counts = column.rename("value").value_counts(name="count").with_columns(pl.col("count").cast(pl.Int64))
        if counted is None:
            counted = counts
            continue
        waiting.append(counts)
        if sum(len(each) for each in waiting) >= len(counted):
            counted, waiting = _added([counted, *waiting]), []
    assert counted is not None, "a log without rows has no vocabulary"
    return _added([counted, *waiting]).filter(pl.col("count") >= min_count)


def _added(counts: list[pl.DataFrame]) -> pl.DataFrame:
    return pl.concat(counts).group_by("value").agg(pl.col("count").sum())
