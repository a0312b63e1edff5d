"""Blocks of raw text to typed columns, with every bad line named by number, field and reason."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from subshot.data.click_formats import Column, Kind, Layout
from subshot.data.click_text import Block
from subshot.data.image_folder import DataError

OnBadLine = Literal["error", "skip"]
Reason = Literal["columns", "label", "number", "category", "time"]

CategoryText = Literal["by field", "decimal else hex"]
"""by field: hex fields are hexadecimal. decimal else hex: a token of a hex field that consists of decimal digits
alone is read as decimal, as NASRec's scripts do for Avazu."""

NUMBER = r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?"
"""What a real number looks like."""

_INTEGERS: Mapping[Kind, type[pl.DataType]] = {
    "clicks": pl.Int64,
    "integer": pl.Int64,
    "decimal": pl.Int64,
    "unsigned": pl.UInt64,
}
_ALLOWED: Mapping[Kind, str] = {
    "label": "0 or 1",
    "clicks": "a number of clicks, 0 or more",
    "integer": "an integer of 64 bits, or nothing",
    "hex": "a hexadecimal number of at most 8 digits, or nothing",
    "decimal": "an integer of 64 bits, or nothing",
    "unsigned": "an integer from 0 to 2^64 - 1, or nothing",
    "rounded": "a number from 0 to 2^64 - 1, or nothing",
    "hour": "a date and an hour as YYMMDDHH, or nothing",
    "real": "a finite number such as 3, -0.5 or 1e-3, or nothing",
    "time": "a number or a date as text",
}
_REASONS: Mapping[Kind, Reason] = {
    "label": "label",
    "clicks": "label",
    "integer": "number",
    "hex": "category",
    "decimal": "category",
    "unsigned": "category",
    "rounded": "category",
    "hour": "category",
    "real": "number",
    "time": "time",
}


@dataclass(frozen=True)
class BadLine:
    """A line that cannot be used, and why. line is counted from 1."""

    line: int
    reason: Reason
    text: str


@dataclass(frozen=True)
class BadLines:
    """How many lines were left out, by reason, and the first of them."""

    counts: Mapping[Reason, int]
    first: BadLine | None = None

    @property
    def total(self) -> int:
        return sum(self.counts.values())


def parse_block(block: Block, layout: Layout, category_text: CategoryText) -> tuple[pl.DataFrame, list[BadLine]]:
    """The good lines of a block as columns, and the bad ones.

    The label is UInt8; dense columns are Int64 or Float64; categories UInt32 (hex), Int64, UInt64 or String. A missing
    value is null, a column that is left out is not there. The header, which the caller has looked at, must not be in
    the block.
    """
    columns = tuple(column for column in layout.columns if column.kind != "left out")
    if layout.format.cells_quoted and b'"' in block.text:
        words, lines, bad = _read_quoted(block, layout)
    else:
        text, lines, bad = _with_right_width(block, layout)
        words = _read(text if len(lines) else b"", layout)
    if not len(lines):
        return _typed(words, columns, category_text), bad
    assert words.height == len(lines), f"{words.height} rows of {len(lines)} lines"
    frame = _typed(words, columns, category_text)
    wrong = {c.name: _where_wrong(words[c.name], frame[c.name], c) for c in columns}
    found = {name: places for name, places in wrong.items() if len(places)}
    if not found:
        return frame, bad
    seen: set[int] = set()
    for column in columns:  # a line is told by its first bad field
        for place in found.get(column.name, ()):
            if place not in seen:
                seen.add(int(place))
                word = words[column.name][int(place)]
                shown = "missing" if word is None else repr(word[:40])
                text_of = f"field {column.in_header} is {shown}; it must be {_ALLOWED[column.kind]}"
                if column.kind == "real" and not _is_float(word):
                    text_of += f"; or is {column.in_header} one of the categories? correct the schema"
                bad.append(BadLine(int(lines[place]), _REASONS[column.kind], text_of))
    good = np.ones(len(lines), bool)
    good[list(seen)] = False
    return frame.filter(pl.Series(good)), sorted(bad, key=lambda each: each.line)


class BadLineRule:
    """What to do with bad lines: stop at the first, or count them. `before`: those of an earlier, interrupted run."""

    def __init__(self, path: Path, on_bad_line: OnBadLine, before: BadLines | None = None) -> None:
        self.path = path
        self.on_bad_line = on_bad_line
        self.counts: Counter[Reason] = Counter(before.counts if before else {})
        self.first = before.first if before else None

    def take(self, bad: list[BadLine]) -> None:
        """Raises DataError at the first bad line, unless they are to be skipped."""
        if bad and self.on_bad_line == "error":
            raise DataError(
                f"{self.path}, line {bad[0].line}: {bad[0].text} "
                "(mend or remove the line, or leave such lines out with --on-bad-line skip)"
            )
        if bad and self.first is None:
            self.first = bad[0]
        self.counts.update(each.reason for each in bad)

    @property
    def taken(self) -> BadLines:
        return BadLines(dict(self.counts), self.first)


def _with_right_width(block: Block, layout: Layout) -> tuple[bytes, NDArray[np.int64], list[BadLine]]:
    """The text of the lines that have the right number of columns, their numbers, and the others."""
    letters = np.frombuffer(block.text, np.uint8)
    ends = np.flatnonzero(letters == ord("\n"))
    separators = np.flatnonzero(letters == layout.format.separator[0])
    widths = np.diff(np.searchsorted(separators, ends), prepend=0) + 1
    lines = np.arange(block.first_line, block.first_line + len(ends))
    wanted = len(layout.columns)
    wrong = np.flatnonzero(widths != wanted)
    if not len(wrong):
        return block.text, lines, []
    starts = np.concatenate(([0], ends[:-1] + 1))
    bad = []
    for place in wrong:
        width = 0 if starts[place] == ends[place] else int(widths[place])
        bad.append(BadLine(int(lines[place]), "columns", _wrong_width(width, layout)))
    right = widths == wanted
    return letters[np.repeat(right, ends - starts + 1)].tobytes(), lines[right], bad


def _read(text: bytes, layout: Layout) -> pl.DataFrame:
    names = [column.name for column in layout.columns]
    schema = pl.Schema(dict.fromkeys(names, pl.String))
    if not text:
        return pl.DataFrame(schema=schema)
    words = pl.read_csv(
        text,
        separator=layout.format.separator.decode(),
        has_header=False,
        schema=schema,
        quote_char=None,
        encoding="utf8" if text.isascii() else "utf8-lossy",  # the check is free, the lossy reader is not
    )
    if layout.format.quoted:
        bare = pl.all().str.strip_chars('"')
        words = words.select(pl.when(bare != "").then(bare))
    return _without_missing(words, layout)


def _without_missing(words: pl.DataFrame, layout: Layout) -> pl.DataFrame:
    if not layout.format.missing:
        return words
    return words.select(pl.when(~pl.all().is_in(list(layout.format.missing))).then(pl.all()))


def _read_quoted(block: Block, layout: Layout) -> tuple[pl.DataFrame, NDArray[np.int64], list[BadLine]]:
    """As csv.reader reads each line that has quotation marks: the words, their lines, and the bad ones."""
    wanted, rows, lines, bad = len(layout.columns), list[list[str | None]](), list[int](), list[BadLine]()
    delimiter = layout.format.separator.decode()
    for number, line in enumerate(block.text.split(b"\n")[:-1], block.first_line):
        text = line.decode("utf-8", "replace")
        try:
            row = next(csv.reader([text], delimiter=delimiter, strict=True)) if '"' in text else text.split(delimiter)
        except csv.Error as error:
            bad.append(BadLine(number, "columns", f"its quotation marks do not fit together ({error})"))
            continue
        if text and len(row) == wanted:
            rows.append([word or None for word in row])
            lines.append(number)
        else:
            bad.append(BadLine(number, "columns", _wrong_width(len(row) if text else 0, layout)))
    names = [column.name for column in layout.columns]
    words = pl.DataFrame(rows, schema=pl.Schema(dict.fromkeys(names, pl.String)), orient="row")
    return _without_missing(words, layout), np.array(lines, np.int64), bad


def _wrong_width(width: int, layout: Layout) -> str:
    found = f"it has {width} column{'' if width == 1 else 's'}" if width else "the line is empty"
    return f"{found}; {layout.format.title} has {len(layout.columns)}"


def _typed(words: pl.DataFrame, columns: tuple[Column, ...], category_text: CategoryText) -> pl.DataFrame:
    """Every column parsed; what cannot be is null."""
    return words.select(_parsed(column, category_text).alias(column.name) for column in columns)


def _parsed(column: Column, category_text: CategoryText) -> pl.Expr:
    word = pl.col(column.name)
    if column.kind == "label":
        return pl.when(word.is_in(["0", "1"])).then(word == "1").cast(pl.UInt8)
    if column.kind == "clicks":
        clicks = word.cast(pl.Int64, strict=False)
        return pl.when(clicks >= 0).then(clicks > 0).cast(pl.UInt8)
    if column.kind == "hex":
        hexadecimal = word.str.to_integer(base=16, dtype=pl.UInt32, strict=False)
        if category_text == "by field":
            return hexadecimal
        return pl.coalesce(word.str.to_integer(base=10, dtype=pl.UInt32, strict=False), hexadecimal)
    if column.kind == "hour":
        date, hour = word.str.head(6).str.to_date("%y%m%d", strict=False), word.str.tail(2).cast(pl.UInt8, strict=False)
        return pl.when((word.str.len_bytes() == 8) & date.is_not_null() & (hour < 24)).then(
            word.cast(pl.Int64, strict=False)
        )
    if column.kind == "rounded":
        return word.cast(pl.Float64, strict=False).cast(pl.UInt64, strict=False)
    if column.kind == "real":
        number = pl.when(word.str.contains(f"^{NUMBER}$")).then(word.cast(pl.Float64, strict=False))
        return pl.when(number.is_finite()).then(number)
    if column.kind in ("text", "time"):
        return word
    return word.cast(_INTEGERS[column.kind], strict=False)


def _is_float(word: str | None) -> bool:
    """Also inf, nan and what is beyond float64's range."""
    try:
        float(word or "")
    except ValueError:
        return False
    return True


def _where_wrong(words: pl.Series, parsed: pl.Series, column: Column) -> NDArray[np.intp]:
    """Places where there was text and no value came of it; where a label or a time is missing, too."""
    if column.is_label or column.kind == "time":
        return np.flatnonzero(parsed.is_null().to_numpy())
    if words.null_count() == parsed.null_count():
        return np.empty(0, np.intp)
    return np.flatnonzero((parsed.is_null() & words.is_not_null()).to_numpy())
