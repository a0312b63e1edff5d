"""From lines of a raw click log to the network's inputs, as preprocess.json and vocabulary.json say."""

import csv
import gzip
import json
import math
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import date
from io import TextIOWrapper
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

NUMBER = r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?"
Value = int | float | str | None
Refuse = Callable[[str], None]


def stop(sentence: str) -> None:
    raise ValueError(sentence)


def read(files: Sequence[str], folder: Path, refuse: Refuse = stop) -> Iterator[tuple[list[str], tuple[Tensor, ...]]]:
    """(line numbers, (dense [N, D] float32, ids [N, F] int64)) of some lines at a time, gzipped or not; "-" is standard
    input. All lines of a file may lack the label, which is not looked at. refuse: is told of each that cannot be read.
    """
    how = json.loads((folder / "preprocess.json").read_text(encoding="utf-8"))
    path = folder / "vocabulary.json"
    listed = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    known = {name: {value: number for number, value in enumerate(values, 2)} for name, values in listed.items()}
    rows = chain.from_iterable(_rows(file, how, refuse) for file in files)
    while chunk := list(islice(rows, 1024)):
        dense = [[dense_value(values, rule) for rule in how["dense"]] for _, values in chunk]
        ids = [[row_of(values, rule, known) for rule in how["categories"]] for _, values in chunk]
        yield [where for where, _ in chunk], (torch.tensor(dense, dtype=torch.float32), torch.tensor(ids))


def outputs(names: Sequence[str], probabilities: Tensor, folder: Path) -> list[str]:
    """A line a row: the probability of a click."""
    return [f"{value:.7g}" for value in probabilities.tolist()]


def _rows(file: str, how: dict[str, Any], refuse: Refuse) -> Iterator[tuple[str, dict[str, Value]]]:
    try:
        with open(0 if file == "-" else file, "rb", closefd=file != "-") as raw:
            text = gzip.open(raw) if raw.peek(2)[:2] == b"\x1f\x8b" else raw
            lines = enumerate(TextIOWrapper(text, "utf-8-sig", "replace", newline="\n"), 1)
            first = list(islice(lines, 1 if how["header"] else 1000))
            order = _order([line for _, line in first], how)
            for number, line in lines if how["header"] else chain(first, lines):
                try:
                    yield f"{file}:{number}", _values(_cells(line, how), order, how["missing"])
                except (ValueError, csv.Error) as error:
                    refuse(f"{file}, line {number}: {error}")
    except (OSError, EOFError, LookupError, zlib.error, csv.Error) as error:
        refuse(f"{file} cannot be read ({error})")


def _order(first: Sequence[str], how: dict[str, Any]) -> list[dict[str, Any] | None]:
    """The column of each cell, None where it is not looked at: by the header, or by whether most lines have a label."""
    inputs = {column["header"]: column for column in how["columns"] if not column["label"]}
    if how["header"]:
        names = [cell.strip() for line in first for cell in _cells(line, how)]
        for name in (name for name in inputs if name not in names):
            raise LookupError(f"its header, line 1, has no field {name!r}")
        return [inputs.get(name) for name in names]
    orders = [None if column["label"] else column for column in how["columns"]], list(inputs.values())
    return max(orders, key=lambda order: sum(line.count(how["separator"]) + 1 == len(order) for line in first))


def _values(cells: Sequence[str], order: Sequence[Any], missing: Sequence[str]) -> dict[str, Value]:
    if len(cells) != len(order):
        raise ValueError(f"it has {len(cells)} cells, and {len(order)} are wanted")
    given = [(column, "" if cell in missing else cell) for column, cell in zip(order, cells, strict=True) if column]
    return {column["name"]: value_of(cell, column["kind"], column["header"]) for column, cell in given}


def _cells(line: str, how: dict[str, Any]) -> list[str]:
    line, separator = line.rstrip("\r\n"), how["separator"]
    if how["quotes"] == "csv" and '"' in line:
        try:
            return next(csv.reader([line], delimiter=separator, strict=True))
        except csv.Error as error:
            raise csv.Error(f"its quotation marks do not fit together ({error})") from None
    return [cell.strip('"') if how["quotes"] == "strip" else cell for cell in line.split(separator)]


def value_of(cell: str, kind: str, field: str = "") -> Value:
    """A cell as the training data read it; None is missing. Raises ValueError."""
    if cell == "" or kind == "text":
        return cell or None
    digits = NUMBER if kind in ("real", "rounded") else "[0-9]+" if kind in ("unsigned", "hour") else "[+-]?[0-9]+"
    if kind == "hex" or (kind == "decimal else hex" and not re.fullmatch("[0-9]+", cell)):
        digits = "[0-9a-fA-F]{1,8}"
    if re.fullmatch(digits, cell):
        with suppress(ValueError, OverflowError):  # there is no such day, or it is infinite
            if kind == "real" and math.isfinite(float(cell)):
                return float(cell)
            number = int(float(cell)) if digits == NUMBER else int(cell, 16 if "a-f" in digits else 10)
            low, high = (0, 2**64) if kind in ("unsigned", "rounded") else (-(2**63), 2**63)
            if low <= number < high and (kind != "hour" or (len(cell) == 8 and number % 100 < 24 and _day(number))):
                return number
    raise ValueError(f"field {field} is {cell[:40]!r}, which is no {kind} number")


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
