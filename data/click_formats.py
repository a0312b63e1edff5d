"""The raw click logs that can be read: one table entry a layout, and how a file's layout is recognised.

    criteo  Criteo Kaggle train.txt: tabs, no header; label, I1-I13 (integers), C1-C26 (hexadecimal)
    avazu   Avazu Kaggle train.csv: commas, header
    kdd12   KDD Cup 2012 track 2: training.txt (tabs, no header, clicks counted) or OpenML's CSV (header, binary)
    csv     one's own: a header, and a schema (data/click_schema.py) that says what each column is

An empty cell is a missing value in all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from subshot.data.image_folder import DataError

Dataset = Literal["criteo", "avazu", "kdd12", "csv"]
Published = Literal["criteo", "avazu", "kdd12"]

Kind = Literal[
    "label", "clicks", "integer", "hex", "decimal", "unsigned", "rounded", "hour", "real", "text", "time", "left out"
]
"""How a column's text is read. label: 0 or 1. clicks: a count, label 1 where it is above 0. integer: a dense value,
64 bits with sign. Categories: hex (at most 8 digits), decimal (64 bits with sign), unsigned (decimal, 64 bits),
rounded (the same, as a double printed it: 1.42024e+19), hour (YYMMDDHH). Of one's own log: real is a dense value, a
double; text a category, as it stands; time orders the rows; left out is not looked at."""


@dataclass(frozen=True)
class Column:
    """One column of a raw file. header_name is the file's name for it, where that is not `name`."""

    name: str
    kind: Kind
    header_name: str = ""

    @property
    def in_header(self) -> str:
        return self.header_name or self.name

    @property
    def is_label(self) -> bool:
        return self.kind in ("label", "clicks")

    @property
    def is_dense(self) -> bool:
        return self.kind in ("integer", "real")


@dataclass(frozen=True)
class ClickFormat:
    """One layout. columns: in the file's order; where it has a header, the header decides the order.

    unlabelled: the number of columns that the data set's unlabelled test file has. quoted: quotation marks around a
    cell are dropped. cells_quoted: they may also hold separators, as csv.reader reads them. missing: cells that mean
    nothing, besides the empty one.
    """

    dataset: Dataset
    title: str
    separator: bytes
    header: bool
    columns: tuple[Column, ...]
    unlabelled: int
    quoted: bool = False
    cells_quoted: bool = False
    missing: tuple[str, ...] = ()


def _columns(kind: Kind, *names: str) -> tuple[Column, ...]:
    return tuple(Column(name, kind) for name in names)


_KDD_COLUMNS = (
    *_columns("integer", "Impression"),
    *_columns("unsigned", "DisplayURL"),
    *_columns("decimal", "AdID", "AdvertiserID"),
    *_columns("integer", "Depth", "Position"),
    *_columns("decimal", "QueryID", "KeywordID", "TitleID", "DescriptionID", "UserID"),
)
_OPENML_NAMES = (
    "impression",
    "url_hash",
    "ad_id",
    "advertiser_id",
    "depth",
    "position",
    "query_id",
    "keyword_id",
    "title_id",
    "description_id",
    "user_id",
)

CRITEO = ClickFormat(
    "criteo",
    "Criteo Kaggle train.txt",
    b"\t",
    header=False,
    columns=(
        Column("label", "label"),
        *_columns("integer", *(f"I{i}" for i in range(1, 14))),
        *_columns("hex", *(f"C{i}" for i in range(1, 27))),
    ),
    unlabelled=39,
)

AVAZU = ClickFormat(
    "avazu",
    "Avazu Kaggle train.csv",
    b",",
    header=True,
    columns=(
        Column("id", "unsigned"),
        Column("click", "label"),
        *_columns("hour", "hour"),
        *_columns("decimal", "C1", "banner_pos"),
        *_columns("hex", "site_id", "site_domain", "site_category", "app_id", "app_domain", "app_category"),
        *_columns("hex", "device_id", "device_ip", "device_model"),
        *_columns("decimal", "device_type", "device_conn_type", *(f"C{i}" for i in range(14, 22))),
    ),
    unlabelled=23,
)

KDD12_TSV = ClickFormat(
    "kdd12",
    "KDD Cup 2012 track 2 training.txt",
    b"\t",
    header=False,
    columns=(Column("Click", "clicks"), *_KDD_COLUMNS),
    unlabelled=10,
)

KDD12_CSV = ClickFormat(
    "kdd12",
    "OpenML's CSV of KDD Cup 2012 track 2",
    b",",
    header=True,
    columns=(
        Column("Click", "label", "click"),
        *(
            Column(column.name, "rounded" if column.kind == "unsigned" else column.kind, name)
            for column, name in zip(_KDD_COLUMNS, _OPENML_NAMES, strict=True)
        ),
    ),
    unlabelled=11,
    quoted=True,
)

FORMATS = (CRITEO, AVAZU, KDD12_TSV, KDD12_CSV)


@dataclass(frozen=True)
class Layout:
    """A format, and the columns in the order of one particular file."""

    format: ClickFormat
    columns: tuple[Column, ...]

    @property
    def header_lines(self) -> int:
        return int(self.format.header)


def recognise(dataset: Published, path: Path, first_lines: Sequence[bytes]) -> Layout:
    """The layout of a file by its first lines (without line ends).

    Raises DataError for a file that is no labelled log of the data set.
    """
    head = first_lines[0]
    if dataset == "criteo":
        if b"\t" not in head and head.count(b",") >= 20:
            raise DataError(
                f"{path}, line 1: the columns are separated by commas (a sample layout of other libraries), but "
                f"{CRITEO.title} has tabs and no header; give the original file"
            )
        return _without_header(CRITEO, path, first_lines)
    if dataset == "avazu":
        return _with_header(AVAZU, path, head)
    if b"\t" in head:
        return _without_header(KDD12_TSV, path, first_lines)
    return _with_header(KDD12_CSV, path, head)


def _without_header(layout: ClickFormat, path: Path, first_lines: Sequence[bytes]) -> Layout:
    counts = {line.count(layout.separator) + 1 for line in first_lines}
    if counts == {layout.unlabelled}:
        raise DataError(
            f"{path} has {layout.unlabelled} columns, as the unlabelled test file has: a label is needed, "
            f"so give {layout.title} ({len(layout.columns)} columns)"
        )
    return Layout(layout, layout.columns)


def _with_header(layout: ClickFormat, path: Path, head: bytes) -> Layout:
    names = [name.strip().strip('"') for name in head.decode("utf-8", "replace").lstrip("\ufeff").split(",")]
    by_name = {column.in_header: column for column in layout.columns}
    where = f"{path}, line 1"
    if not set(names) & set(by_name):
        raise DataError(f"{where}: {layout.title} begins with a header ({', '.join(by_name)}), and this is none of it")
    label = next(column.in_header for column in layout.columns if column.is_label)
    unknown = [name for name in names if name not in by_name]
    missing = [name for name in by_name if name not in names]
    if missing == [label] and not unknown:
        raise DataError(f"{where}: there is no column {label!r}, as in the unlabelled test file: give {layout.title}")
    if unknown:
        raise DataError(f"{where}: unknown field {unknown[0]!r}; the fields are {', '.join(by_name)}")
    if missing:
        raise DataError(f"{where}: the field {missing[0]!r} is missing; the fields are {', '.join(by_name)}")
    repeated = [name for name in by_name if names.count(name) > 1]
    if repeated:
        raise DataError(f"{where}: the field {repeated[0]!r} stands there twice")
    return Layout(layout, tuple(by_name[name] for name in names))
