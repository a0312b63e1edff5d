"""From lines of a raw click log to the network's inputs, as preprocess.json and vocabulary.json say."""

import csv
import gzip
import json
import math
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from datetime import date
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

NUMBER = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"
Value = int | float | str | None


def read(files: Sequence[str], folder: Path, batch_size: int = 1024) -> Iterator[tuple[list[str], tuple[Tensor, ...]]]:
    """(line numbers, (dense [N, D] float32, ids [N, F] int64)) of some lines at a time; "-" is standard input.

    All lines of a file may lack the label, which is not looked at. Raises ValueError with file, line and field for a
    bad cell.
    """
    how = json.loads((folder / "preprocess.json").read_text(encoding="utf-8"))
    path = folder / "vocabulary.json"
    listed = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    known = {name: {value: number for number, value in enumerate(values, 2)} for name, values in listed.items()}
    for file in files:
        with _opened(file) as lines:
            rows = _rows(file, lines, how)
            while chunk := list(islice(rows, batch_size)):
                dense = [[dense_value(values, rule) for rule in how["dense"]] for _, values in chunk]
                ids = [[row_of(values, rule, known) for rule in how["categories"]] for _, values in chunk]
                yield [where for where, _ in chunk], (torch.tensor(dense, dtype=torch.float32), torch.tensor(ids))


def _opened(file: str) -> Any:
    """The lines of a text, gzipped or not."""
    if file == "-":
        return nullcontext(sys.stdin)
    with open(file, "rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
    return (gzip.open if zipped else open)(file, "rt", encoding="utf-8", errors="replace", newline="\n")


def outputs(names: Sequence[str], probabilities: Tensor, folder: Path) -> list[str]:
    """A line a row: the probability of a click."""
    return [f"{value:.7g}" for value in probabilities.tolist()]


def _rows(file: str, lines: Any, how: dict[str, Any]) -> Iterator[tuple[str, dict[str, Value]]]:
    columns, order = how["columns"], None
    for number, line in enumerate(lines, 1):
        try:
            cells = _cells(line.rstrip("\r\n").lstrip("\ufeff" if number == 1 else ""), how)
        except csv.Error as error:
            raise ValueError(f"{file}, line {number}: its quotation marks do not fit together ({error})") from None
        if how["header"] and number == 1:
            order = [next((c for c in columns if c["header"] == cell.strip()), None) for cell in cells]
            continue
        if order is None:  # the first line tells whether labels are there
            order = columns if len(cells) == len(columns) else [c for c in columns if not c["label"]]
        if len(cells) != len(order):
            raise ValueError(f"{file}, line {number}: it has {len(cells)} cells, and {len(order)} are wanted")
        values: dict[str, Value] = {}
        for column, cell in zip(order, cells, strict=True):
            if column is not None and not column["label"]:
                try:
                    values[column["name"]] = None if cell in how["missing"] else value_of(cell, column["kind"])
                except (ValueError, OverflowError):
                    named = f"field {column['header']} is {cell[:40]!r}"
                    raise ValueError(f"{file}, line {number}: {named}, which is no {column['kind']} number") from None
        missing = [c["header"] for c in columns if c["name"] not in values and not c["label"]]
        if missing:
            raise ValueError(f"{file}, line 1: the header has no field {missing[0]!r}")
        yield f"{file}:{number}", values


def _cells(line: str, how: dict[str, Any]) -> list[str]:
    separator = how["separator"]
    if how["quotes"] == "csv" and '"' in line:
        return next(csv.reader([line], delimiter=separator, strict=True))
    cells = line.split(separator)
    return [cell.strip('"') for cell in cells] if how["quotes"] == "strip" else cells


def value_of(cell: str, kind: str) -> Value:
    """A cell as the training data read it; None is missing."""
    if cell == "" or kind == "text":
        return cell or None
    if kind == "real":
        if not re.fullmatch(NUMBER, cell) or not math.isfinite(float(cell)):
            raise ValueError("no number")
        return float(cell)
    digits = "[0-9]+" if kind in ("unsigned", "hour", "rounded") else "[+-]?[0-9]+"
    if kind == "hex" or (kind == "decimal else hex" and not re.fullmatch("[0-9]+", cell)):
        digits = "[0-9a-fA-F]{1,8}"
    if not re.fullmatch(NUMBER if kind == "rounded" else digits, cell):
        raise ValueError("no number")
    number = int(float(cell)) if kind == "rounded" else int(cell, 16 if "a-f" in digits else 10)
    low, high = (0, 2**64) if kind in ("unsigned", "rounded") else (-(2**63), 2**63)
    if not low <= number < high or (kind == "hour" and not (len(cell) == 8 and number % 100 < 24 and _day(number))):
        raise ValueError("out of range")
    return number


def squared_log(number: float) -> float:
    return float(math.floor(math.log(number) ** 2)) if number > 2 else number


def dense_value(values: dict[str, Value], rule: dict[str, Any]) -> float:
    """A dense input; a missing value is 0."""
    value = values[rule["of"]] if rule["of"] else None
    if value is None:
        return 0.0
    if rule["step"] == "standard":
        return min(max((float(value) - rule["mean"]) / rule["deviation"], -rule["bound"]), rule["bound"])
    return math.log1p(max(float(value), 0.0)) if rule["step"] == "log1p" else squared_log(float(value))


def row_of(values: dict[str, Value], rule: dict[str, Any], known: dict[str, dict[Value, int]]) -> int:
    """The row of a category's table: 0 missing, else a hash, or 1 for what is not in the vocabulary and 2 onwards."""
    value = values[rule["of"]]
    if value is None:
        return 0
    if rule["part"] == "squared log":
        value = int(squared_log(float(value)))
    elif rule["part"]:
        value = _calendar(int(value), rule["part"])
    if rule["hash_size"]:
        number = (int(value) % rule["modulo"] if rule["modulo"] else int(value)) % (rule["hash_size"] - 1) + 1
    else:
        number = known[rule["name"]].get(value, 1)
    return (number - 1) % (rule["rows"] - 1) + 1 if rule["rows"] < rule["cardinality"] and number else number


def _day(when: int) -> date:
    return date(2000 + when // 10**6, when // 10**4 % 100, when // 100 % 100)


def _calendar(when: int, part: str) -> int:
    """Of YYMMDDHH: the hour, the day of the week (0 is Sunday), or whether that is Saturday or Sunday."""
    day = _day(when).isoweekday() % 7
    return {"hour": when % 100, "weekday": day, "is_weekend": int(day in (0, 6))}[part]
