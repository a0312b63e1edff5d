"""The raw log lines of a winner's folder, drawn from preprocess.json and vocabulary.json alone; no row of the log.

First every odd cell that a column can hold (missing, unknown, negative, the largest), then the values of the
vocabularies, all of them or, of more than MOST, MOST from the first to the last; numbers where there is none.
"""

from __future__ import annotations

import csv
import io
import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

LEAST, MOST = 12, 96
"""Lines behind the odd ones."""
CELLS = 20_000
"""Of all lines; a log of many columns gets fewer lines."""
CELL_BYTES = 64

ODD: Mapping[str, tuple[str, ...]] = {
    "label": ("0", "1"),
    "clicks": ("0", "1", "3"),
    "integer": ("", "0", "1", "2", "3", "-2", "17", "1048577", "123456789012"),
    "hex": ("", "0", "1", "ffffffff", "80000001", "05db9164", "DEAD"),
    "decimal else hex": ("", "0", "12345678", "99999999", "ffffffff", "05db9164", "0000012a"),
    "decimal": ("", "0", "-1", "12345", "9223372036854775807", "-9223372036854775807", "4294967296"),
    "unsigned": ("", "0", "7", "18446744073709551615", "9223372036854775808"),
    "rounded": ("", "0", "7", "1.42024e+19", "3.0"),
    "hour": ("", "14102100", "14102523", "15010112", "00022907"),
    "real": ("", "0", "-0.5", "1e-3", "+3.", ".5", "99999", "1e30", "-1e30"),
    "text": ("", "no such value", "NA", "día", " 7"),
}
"""Cells by the kind of their column."""


def log_lines(how: Mapping[str, Any], vocabulary: Mapping[str, Sequence[Any]]) -> bytes:
    """Lines as the log has them, with labels, and with a header where it has one."""
    columns = how["columns"]
    odd = [_odd(column, how) for column in columns]
    known = [_known(place, column, how, vocabulary) for place, column in enumerate(columns)]
    first = max(map(len, odd))
    rows = min(first + max(LEAST, *map(len, known)), max(1, CELLS // len(columns)))
    lines = [[column["header"] for column in columns]] if how["header"] else []
    for row in range(rows):
        several, place = (odd, row) if row < first else (known, row - first)
        lines.append([cells[(place + shift) % len(cells)] for shift, cells in enumerate(several)])
    return "".join(_line(cells, number, how) for number, cells in enumerate(lines)).encode()


def _line(cells: Sequence[str], number: int, how: Mapping[str, Any]) -> str:
    separator = how["separator"]
    if how["quotes"] == "csv":
        held = io.StringIO()
        csv.writer(held, delimiter=separator, lineterminator="\n").writerow(cells)
        return held.getvalue()
    if how["quotes"] == "strip":
        cells = [f'"{cell}"' if (number + place) % 3 == 0 else cell for place, cell in enumerate(cells)]
    return separator.join(cells) + "\n"


def _odd(column: Mapping[str, Any], how: Mapping[str, Any]) -> list[str]:
    cells = list(ODD[column["kind"]])
    if column["label"]:
        return cells
    if column["kind"] == "text":
        cells.append(f'a "b"{how["separator"]} c' if how["quotes"] == "csv" else "a b")
    for rule in how["dense"]:
        if rule["of"] == column["name"] and rule["step"] == "standard":
            near = [rule["mean"] + share * rule["deviation"] for share in (-1.5, 0.25, 2.0)]
            cells += [repr(value) for value in near if math.isfinite(value)]
    return cells + [word for word in how["missing"] if _plain(word)]


def _known(
    place: int, column: Mapping[str, Any], how: Mapping[str, Any], vocabulary: Mapping[str, Sequence[Any]]
) -> list[str]:
    """The cells of a column's vocabulary, or numbers of its kind: at least one, at most MOST."""
    kind, cells = column["kind"], list[str]()
    for rule in how["categories"]:
        if rule["of"] == column["name"] and rule["part"] in ("", "squared log"):
            values = vocabulary.get(rule["name"], ())
            cells += [_spelled(value, kind, rule["part"]) for value in _spread(values)]
    cells = _spread([cell for cell in cells if _plain(cell)])
    return cells or _drawn(kind, random.Random(place))


def _spread(values: Sequence[Any]) -> list[Any]:
    """All, or MOST of them from the first to the last."""
    if len(values) <= MOST:
        return list(values)
    return [values[number * (len(values) - 1) // (MOST - 1)] for number in range(MOST)]


def _spelled(value: Any, kind: str, part: str) -> str:
    """A cell that means a value of a vocabulary."""
    if part == "squared log" and value > 2:
        return str(math.ceil(math.exp(math.sqrt(value))))
    return f"{value:08x}" if kind == "hex" else f"{value:08d}" if kind == "hour" else str(value)


def _plain(cell: str) -> bool:
    return cell.isprintable() and len(cell.encode("utf-8", "replace")) <= CELL_BYTES


def _drawn(kind: str, draw: random.Random) -> list[str]:
    if kind in ("label", "clicks", "text"):
        return ["0", "1"]
    if kind == "hour":
        return [f"1410{20 + number % 9}{number % 24:02d}" for number in range(48)]
    if kind in ("hex", "decimal else hex"):
        return [f"{draw.randrange(2**32):08x}" for _ in range(MOST)]
    if kind == "real":
        return [f"{draw.uniform(-9, 90):.4f}" for _ in range(MOST)]
    return [str(draw.getrandbits(62) >> draw.randrange(62)) for _ in range(MOST)]
