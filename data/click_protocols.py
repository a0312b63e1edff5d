"""The named protocols by which raw click logs become model inputs, each a record of declared steps.

    nasrec    hashing into tables of published sizes, log(1 + max(x, 0)), folds 0-7 / 8 / 9
    autoctr   vocabularies of values that are frequent in train, int(ln(x)^2), folds 2-9 / 1 / 0
    bars-x4   vocabularies, dense values bucketised into categories, the older folds, 2-9 / 1 / 0

A log of one's own has a protocol of its own, `own`: data/click_columns.py.

Ids of a hashed field: 0 missing, 1 to size - 1 values. Ids of a vocabulary: 0 missing, 1 all values rarer than the
threshold or unseen in train ("others"), 2 upwards the values by falling frequency.

A log that leaves no dense field gets one, `zero`, that is 0 everywhere (as NASRec does for Avazu), so that no network
has to do without a dense input.

Sources: facebookresearch/NasRec (tools, utils/config.py), facebookresearch/AutoCTR (scripts/preprocess.py), reczoo/BARS
(Criteo_x4_001, Avazu_x4_001) with FuxiCTR's features. Where we differ from them is in `Protocol.departures`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import polars as pl

from subshot.data.click_formats import Column, Dataset
from subshot.data.click_parsing import CategoryText
from subshot.data.folds import FoldRule

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

DenseStep = Literal["log1p", "squared log", "buckets", "by column"]
ProtocolName = Literal["nasrec", "autoctr", "bars-x4"]

ZERO = "zero"
DATE_PARTS = ("hour", "weekday", "is_weekend")
MISSING_ID, OTHERS_ID, FIRST_VALUE_ID = 0, 1, 2
HASH_PRIME = 2**31 - 1


@dataclass(frozen=True)
class Protocol:
    """The steps in which protocols differ.

    folds, splits: how rows are dealt out, and the split of each fold. dense: log1p is log(1 + max(x, 0)), missing 0;
    squared log is int(ln(x)^2) where x > 2 and x elsewhere, missing 0; buckets is the same number, but as a category;
    by column is for logs of one's own.
    table_sizes: rows of each field's table, of hashed ids; empty where values get vocabularies. min_counts: the rows
    of train that a value must stand in to get an id. decimal_first: data sets whose categories are read as decimal
    where they can be, as hexadecimal otherwise, and taken modulo 2^31 - 1. calendar: Avazu's hour becomes hour of the
    day, day of the week and weekend.
    """

    name: ProtocolName | Literal["own"]
    folds: FoldRule
    splits: tuple[Split, ...]
    dense: DenseStep
    table_sizes: Mapping[Dataset, Mapping[str, int]]
    min_counts: Mapping[Dataset, int]
    decimal_first: tuple[Dataset, ...]
    calendar: bool
    departures: tuple[str, ...]

    @property
    def hashed(self) -> bool:
        return bool(self.table_sizes)

    def category_text(self, dataset: Dataset) -> CategoryText:
        return "decimal else hex" if dataset in self.decimal_first else "by field"

    def require(self, dataset: Dataset) -> None:
        """Raises ValueError where the protocol does not say what to do with a data set."""
        known = self.table_sizes if self.hashed else self.min_counts
        if dataset not in known:
            raise ValueError(f"the protocol {self.name} is not defined for {dataset}, only for {', '.join(known)}")


def _sizes(names: str, *sizes: int) -> dict[str, int]:
    return dict(zip(names.split(), sizes, strict=True))


_CRITEO_NAMES = " ".join(f"C{i}" for i in range(1, 27))
_AVAZU_NAMES = (
    "id hour C1 banner_pos site_id site_domain site_category app_id app_domain app_category device_id device_ip "
    "device_model device_type device_conn_type C14 C15 C16 C17 C18 C19 C20 C21"
)
_KDD_NAMES = "DisplayURL AdID AdvertiserID QueryID KeywordID TitleID DescriptionID UserID Gender Age"

# fmt: off
_NASREC_SIZES: Mapping[Dataset, Mapping[str, int]] = {
    "criteo": _sizes(
        _CRITEO_NAMES,
        1461, 584, 10131227, 2202609, 306, 25, 12518, 634, 4, 93146, 5684, 8351593, 3195, 28, 14993, 5461307, 11, 5653,
        2174, 5, 7046548, 19, 16, 286182, 106, 142573,
    ),
    "avazu": _sizes(
        _AVAZU_NAMES,
        10000, 241, 8, 8, 4738, 7746, 27, 8553, 560, 37, 2686409, 6729487, 8252, 6, 5, 2627, 9, 10, 436, 5, 69, 173, 61,
    ),
    "kdd12": _sizes(_KDD_NAMES, 26274, 641708, 14848, 22122011, 1188090, 3735797, 2934102, 20004011, 4, 8),
}
# fmt: on

_TRAIN_ON_TRAIN = "vocabularies and their counts are fitted on the train split alone, where the source counts all rows"

PROTOCOLS: Mapping[ProtocolName, Protocol] = {
    "nasrec": Protocol(
        name="nasrec",
        folds="stratified",
        splits=("train",) * 8 + ("val", "test"),
        dense="log1p",
        table_sizes=_NASREC_SIZES,
        min_counts={},
        decimal_first=("avazu", "kdd12"),
        calendar=False,
        departures=(
            "the first line of Criteo and KDD is kept, and each row's fold is that of its own label",
            "Avazu's id is left out unless asked for",
        ),
    ),
    "autoctr": Protocol(
        name="autoctr",
        folds="stratified",
        splits=("test", "val") + ("train",) * 8,
        dense="squared log",
        table_sizes={},
        min_counts={"criteo": 11, "avazu": 5, "kdd12": 10},
        decimal_first=(),
        calendar=False,
        departures=(
            _TRAIN_ON_TRAIN,
            "a frequent value has its id from its first row on, where the source calls it rare until it is frequent",
            "a missing category has an id of its own in every field",
            "Avazu's id is left out unless asked for",
        ),
    ),
    "bars-x4": Protocol(
        name="bars-x4",
        folds="stratified-0.19",
        splits=("test", "val") + ("train",) * 8,
        dense="buckets",
        table_sizes={},
        min_counts={"criteo": 10, "avazu": 2},
        decimal_first=(),
        calendar=True,
        departures=("a missing value has an id of its own, never that of rare values",),
    ),
}


@dataclass(frozen=True)
class PlannedField:
    """A categorical field of the output. table_size: of hashed ids; 0 where a vocabulary is to be fitted."""

    name: str
    table_size: int


@dataclass(frozen=True)
class Plan:
    """What one protocol makes of one layout: the fields of the output, and the steps that need nothing fitted.

    standardised: dense fields that await the mean and deviation of the train rows. time: the column whose order splits
    the rows, which the output lacks; empty where the folds do.
    """

    protocol: Protocol
    label: str
    dense: tuple[str, ...]
    categorical: tuple[PlannedField, ...]
    steps: tuple[pl.Expr, ...]
    standardised: tuple[str, ...] = ()
    time: str = ""

    def apply(self, parsed: pl.DataFrame) -> pl.DataFrame:
        """`label` UInt8, dense fields Float32 (Float64 where they await standardisation), hashed ids Int32, or values
        that await their vocabulary (null is missing), and the time, in that order."""
        return parsed.select(self.steps)


def make_plan(
    protocol: Protocol,
    dataset: Dataset,
    columns: tuple[Column, ...],
    *,
    keep_id: bool = False,
    drop_impression: bool = False,
    max_rows_per_table: int = 0,
) -> Plan:
    """columns: of the parsed frame, Gender and Age included where a user profile was given.

    max_rows_per_table caps hashed tables; 0 is no cap. Raises ValueError for a data set that the protocol lacks, for a
    cap of 1 row or below 0, and for a cap where there are vocabularies.
    """
    protocol.require(dataset)
    if max_rows_per_table and not protocol.hashed:
        raise ValueError(
            f"--max-rows-per-table is for hashed tables, and the protocol {protocol.name} has vocabularies"
        )
    if max_rows_per_table < 0 or max_rows_per_table == 1:
        raise ValueError(f"--max-rows-per-table is {max_rows_per_table}; it must be 0 (no cap), or 2 or more")
    left_out = {"id"} if dataset == "avazu" and not keep_id else set()
    left_out |= {"Impression"} if dataset == "kdd12" and drop_impression else set()
    used = [column for column in columns if column.name not in left_out]
    label = next(column.name for column in columns if column.is_label)
    dense = [column.name for column in used if column.is_dense]
    values = {column.name: pl.col(column.name) for column in used if not column.is_dense and not column.is_label}
    if protocol.calendar and dataset == "avazu":
        values = _with_calendar(values)
    if protocol.dense == "buckets":
        values = {name: _squared_log(name).cast(pl.Int32) for name in dense} | values
        dense = []
    steps = [pl.col(label).alias("label")]
    steps += [dense_step(protocol.dense, name).alias(name) for name in dense]
    if not dense:
        steps.append(pl.lit(0.0, pl.Float32).alias(ZERO))
    sizes = {name: _table_size(protocol, dataset, name, max_rows_per_table) for name in values}
    modulo = HASH_PRIME if dataset in protocol.decimal_first else 0
    for name, value in values.items():
        steps.append((_hashed(value, sizes[name], modulo) if protocol.hashed else value).alias(name))
    fields = tuple(PlannedField(name, size) for name, size in sizes.items())
    return Plan(protocol, label, tuple(dense) or (ZERO,), fields, tuple(steps))


def _table_size(protocol: Protocol, dataset: Dataset, field: str, cap: int) -> int:
    if not protocol.hashed:
        return 0
    size = protocol.table_sizes[dataset][field]
    return min(size, cap) if cap else size


def _hashed(value: pl.Expr, size: int, modulo: int) -> pl.Expr:
    """fmod(x, size - 1) + 1, and 0 for a missing value."""
    if modulo:
        value = value % modulo
    return (value % (size - 1) + 1).cast(pl.Int32).fill_null(MISSING_ID)


def dense_step(step: DenseStep, name: str) -> pl.Expr:
    """A number's dense value, Float32."""
    if step == "log1p":
        number = pl.col(name).cast(pl.Float64).clip(lower_bound=0).log1p()
    else:
        number = _squared_log(name)
    return number.fill_null(0.0).cast(pl.Float32)


def _squared_log(name: str) -> pl.Expr:
    number = pl.col(name).cast(pl.Float64)
    return pl.when(number > 2).then((number.log() ** 2).floor()).otherwise(number)


def _with_calendar(values: Mapping[str, pl.Expr]) -> dict[str, pl.Expr]:
    """hour (YYMMDDHH) becomes hour (0 to 23), weekday (0 Sunday to 6) and is_weekend, in its place."""
    when = pl.col("hour").cast(pl.String).str.pad_start(8, "0")
    weekday = when.str.head(6).str.to_date("%y%m%d").dt.weekday() % 7
    parts = {"hour": pl.col("hour") % 100, "weekday": weekday.cast(pl.Int32)}
    parts["is_weekend"] = weekday.is_in([0, 6]).cast(pl.Int32)
    made: dict[str, pl.Expr] = {}
    for name, value in values.items():
        made |= parts if name == "hour" else {name: value}
    return made
