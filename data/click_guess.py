"""A guess at the schema of a click log, from its first rows, for the user to look at and correct."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from subshot.data.click_formats import ClickFormat, Column, Layout
from subshot.data.click_parsing import NUMBER, parse_block
from subshot.data.click_schema import SEPARATORS, ClickSchema, header_names
from subshot.data.click_text import text_blocks
from subshot.data.image_folder import DataError

LABELS = ("click", "clicked", "clicks", "label", "target", "is_click", "is_clicked", "y")
MISSING = ("NA", "N/A", "NaN", "nan", "null", "NULL", "None", "\\N")
FEW = 20
"""A column of so few different integers is a category."""
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([ T].*)?")
_NAMES_IDS = re.compile(r"(^|[_ -])(id|ids|hash|code|zip)$|[a-z](Id|ID)$")


def guess_schema(raw: Path) -> ClickSchema:
    """From the first 4 MiB of the log. Raises DataError where there is no header or no column that can be the label.

    label: a column of 0 and 1 named like one of LABELS, or else the only column of 0 and 1. Categories: texts, columns
    named like an id, and integers of at most 20 different values. Left out: texts of which nearly every row has another
    one. Counts: integers of 0 or more. Numbers: all other numbers. Time: the first column of dates as 2026-01-31; other
    such columns are left out.
    """
    block = next(text_blocks(raw))
    head = block.text.split(b"\n", 1)[0]
    separator = max(SEPARATORS, key=lambda each: head.count(each.encode()))
    names = header_names(raw, head, separator)
    if len(names) < 3 or all(re.fullmatch(NUMBER, name) for name in names):
        raise DataError(
            f"{raw}, line 1: this is no header of three or more columns separated by one of "
            f"{', '.join(map(repr, SEPARATORS))}; add one, with a name for every column"
        )
    columns = tuple(Column(name, "text") for name in names)
    form = ClickFormat("csv", "the header", separator.encode(), True, columns, 0, cells_quoted=True)
    frame, _ = parse_block(block.without_first_line(), Layout(form, columns), "by field")
    words = {name: [word for word in frame[name].drop_nulls().to_list() if word not in MISSING] for name in names}
    missing = tuple(word for word in MISSING if any((frame[name] == word).any() for name in names))
    label = _label(raw, words)
    kinds = {name: _kind(name, words[name]) for name in names if name != label}

    def named(kind: str) -> tuple[str, ...]:
        return tuple(name for name, found in kinds.items() if found == kind)

    time, *others = (*named("date"), "")
    left_out = (*named("left out"), *(name for name in others if name))
    return ClickSchema(label, named("count"), named("number"), named("category"), left_out, time, separator, missing)


def _label(raw: Path, words: dict[str, list[str]]) -> str:
    binary = [name for name, found in words.items() if set(found) == {"0", "1"}]
    named = [name for name in binary if name.lower() in LABELS]
    if len(named) == 1 or len(binary) == 1:
        return (named or binary)[0]
    found = f"the columns {', '.join(binary)} hold" if binary else "no column holds"
    raise DataError(f"{raw}: which column is the label? {found} 0 and 1 alone; write the schema by hand")


def _kind(name: str, words: Sequence[str]) -> str:
    different = len(set(words))
    if not different:
        return "left out"
    if all(_DATE.fullmatch(word) for word in words):
        return "date"
    if not all(re.fullmatch(NUMBER, word) for word in words):
        return "left out" if different > 100 and different > 0.9 * len(words) else "category"
    if _NAMES_IDS.search(name):
        return "category"
    if all(word.lstrip("+-").isdigit() for word in words):
        if different <= FEW:
            return "category"
        return "count" if not any(word.startswith("-") for word in words) else "number"
    return "number"
