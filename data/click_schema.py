"""What the columns of one's own click log are: a small JSON file that the user writes, or has guessed and corrects.

    {"label": "clicked", "counts": ["views"], "numbers": ["price"], "categories": ["site", "device"],
     "left_out": ["row"], "time": "", "separator": ",", "missing": ["NA"], "min_count": 2}

Every column of the log's header stands in exactly one place. Only `label` and `categories` must be there.
"""

from __future__ import annotations

import csv
import difflib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from subshot.data.click_formats import ClickFormat, Column, Kind, Layout
from subshot.data.image_folder import DataError

SEPARATORS = (",", "\t", ";", "|")
TAKEN_NAMES = ("label", "zero")
_NAME = re.compile(r"[A-Za-z0-9_ -]+")


@dataclass(frozen=True)
class ClickSchema:
    """counts and numbers become dense values, by log(1 + max(x, 0)) and by standardisation; categories become ids.

    time: the column by whose order rows are split; empty: they are split at random. missing: cells that mean
    nothing, as the empty one does. min_count: the training rows that a category must stand in to have an id of its own.
    """

    label: str
    counts: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    time: str = ""
    separator: str = ","
    missing: tuple[str, ...] = ()
    min_count: int = 2

    @property
    def kinds(self) -> list[tuple[str, Kind]]:
        """Every named column, as often as it is named."""
        found: list[tuple[str, Kind]] = [(self.label, "label")]
        found += [(name, "real") for name in (*self.counts, *self.numbers)]
        found += [(name, "text") for name in self.categories]
        found += [(name, "left out") for name in self.left_out]
        return found + ([(self.time, "time")] if self.time else [])

    def record(self) -> dict[str, Any]:
        """As JSON has it."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def read_schema(path: Path) -> ClickSchema:
    """Raises DataError where the file is missing or is no schema."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"the schema {path} does not exist; write it, or have it guessed with --guess") from None
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error})") from error
    if not isinstance(record, dict):
        raise DataError(f"{path} must hold one object, as {{'label': ..., 'categories': [...]}}")
    known = {field.name: field.default for field in fields(ClickSchema)}
    for name, value in record.items():
        if name not in known:
            raise DataError(f"{path}: there is no entry {name!r}; {_near(name, known)}")
        wanted = "a text" if name in ("label", "time", "separator") else "a list of texts"
        wanted = "an integer of at least 1" if name == "min_count" else wanted
        if not _fits(value, wanted):
            raise DataError(f"{path}: {name} is {value!r}; it must be {wanted}")
    if not record.get("label") or not record.get("categories"):
        missing = "label" if not record.get("label") else "categories"
        raise DataError(f"{path}: {missing} is missing; a log has a label, and one or more categories")
    values: dict[str, Any] = {n: tuple(value) if isinstance(value, list) else value for n, value in record.items()}
    schema = ClickSchema(**values)
    if schema.separator not in SEPARATORS:
        shown = ", ".join(map(repr, SEPARATORS))
        raise DataError(f"{path}: separator is {schema.separator!r}; it must be one of {shown}")
    return schema


def _fits(value: object, wanted: str) -> bool:
    if wanted == "a text":
        return isinstance(value, str)
    if wanted == "a list of texts":
        return isinstance(value, list) and all(isinstance(part, str) for part in value)
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def header_names(path: Path, head: bytes, separator: str) -> list[str]:
    """The names in a log's first line. Raises DataError where two are alike or one is empty."""
    text = head.decode("utf-8", "replace").lstrip("\ufeff")
    names = [name.strip() for name in next(csv.reader([text], delimiter=separator), [])]
    for name in names:
        if not name or names.count(name) > 1:
            what = f"the column {name!r} stands there twice" if name else "a column has no name"
            raise DataError(f"{path}, line 1: {what}; the first line must name every column once")
    return names


def layout_of(schema: ClickSchema, raw: Path, head: bytes) -> Layout:
    """The log's columns in its own order. Raises DataError where header and schema do not fit one another."""
    names = header_names(raw, head, schema.separator)
    kinds = dict(schema.kinds)
    where = f"{raw}, line 1"
    others = [separator for separator in SEPARATORS if separator in names[0]] if len(names) == 1 else []
    for name, kind in schema.kinds:
        if name not in names and others:
            mend = f'is the separator {others[0]!r}? correct "separator" in the schema'
            raise DataError(f"{where}: the header is one column when it is cut at {schema.separator!r}; {mend}")
        if name not in names:
            raise DataError(
                f"{where}: the schema names a column {name!r}, and the header has none; {_near(name, names)}"
            )
        if [other for other, _ in schema.kinds].count(name) > 1:
            raise DataError(f"the schema names the column {name!r} twice; a column can be one thing")
        taken = kind in ("real", "text") and name in TAKEN_NAMES
        if taken or (kind != "left out" and not _NAME.fullmatch(name)):
            rule = f"{name!r} is taken" if taken else "its name must be of letters, digits, spaces, - and _"
            raise DataError(
                f"{where}: the column {name!r} cannot be used: {rule}; rename it, or list it under left_out"
            )
    unnamed = [name for name in names if name not in kinds]
    if unnamed:
        raise DataError(
            f"{where}: the schema does not say what {', '.join(map(repr, unnamed))} "
            f"{'is' if len(unnamed) == 1 else 'are'}; list every column, under left_out those that are not used"
        )
    columns = tuple(Column(name, kinds[name]) for name in names)
    title = f"the header of {raw.name}"
    separator = schema.separator.encode()
    return Layout(
        ClickFormat("csv", title, separator, True, columns, 0, cells_quoted=True, missing=schema.missing), columns
    )


def _near(word: str, known: Iterable[str]) -> str:
    names = list(known)
    close = difflib.get_close_matches(word, names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"there are {', '.join(names)}"
