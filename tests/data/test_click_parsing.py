"""Cells to typed values; every kind of bad line by number, field and reason."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from subshot.data.click_formats import AVAZU, CRITEO, KDD12_CSV, KDD12_TSV, ClickFormat, Layout
from subshot.data.click_parsing import BadLine, BadLineRule, parse_block
from subshot.data.click_text import Block
from subshot.data.image_folder import DataError

EXAMPLES = {
    CRITEO: ["0", *[""] * 13, *["68fd1e64"] * 26],
    AVAZU: ["10000169349117863715", "0", "14102100", *["1"] * 2, *["1fbe01fe"] * 9, *["7"] * 10],
    KDD12_TSV: ["0", *["1"] * 11],
    KDD12_CSV: ["0", *["1"] * 11],
}


def parsed(layout: ClickFormat, *lines: bytes | dict[str, str], text: Any = "by field", first_line: int = 1) -> Any:
    """Lines as they stand, or the example's with some fields changed."""
    names = [column.name for column in layout.columns]
    made = []
    for line in lines:
        if isinstance(line, dict):
            assert set(line) <= set(names)
            words = dict(zip(names, EXAMPLES[layout], strict=True)) | line
            line = layout.separator.join(word.encode() for word in words.values())
        made.append(line + b"\n")
    block = Block(b"".join(made), first_line, len(made), 0, 0)
    return parse_block(block, Layout(layout, layout.columns), text)


def test_values_missing_values_and_their_types() -> None:
    frame, bad = parsed(CRITEO, {"label": "1", "I1": "-3", "I2": "", "C1": "ffffffff", "C2": "", "C3": "0A"}, {})
    assert bad == []
    row = frame.row(0, named=True)
    assert (row["label"], row["I1"], row["I2"]) == (1, -3, None)
    assert (row["C1"], row["C2"], row["C3"]) == (2**32 - 1, None, 10)
    assert frame.schema["label"] == pl.UInt8 and frame.schema["I1"] == pl.Int64 and frame.schema["C1"] == pl.UInt32
    frame, bad = parsed(AVAZU, {"id": str(2**64 - 1), "C20": "-1", "site_id": "12345678", "app_id": "0000000a"})
    assert bad == []
    row = frame.row(0, named=True)
    assert (row["id"], row["C20"], row["site_id"], row["app_id"]) == (2**64 - 1, -1, 0x12345678, 10)
    row = parsed(AVAZU, {"site_id": "12345678", "app_id": "0000000a"}, text="decimal else hex")[0].row(0, named=True)
    assert (row["site_id"], row["app_id"]) == (12345678, 10)


def test_clicks_are_counted_and_quotes_taken_off() -> None:
    frame, bad = parsed(KDD12_TSV, {"Click": "0"}, {"Click": "1"}, {"Click": "7"}, {"Click": "-1"}, {"Click": "x"})
    assert frame["Click"].to_list() == [0, 1, 1] and [each.line for each in bad] == [4, 5]
    frame, bad = parsed(KDD12_CSV, {"Click": '"1"', "AdID": '"8343295"', "DisplayURL": "1.4202400320782e+19"})
    assert bad == [] and frame.select("Click", "AdID", "DisplayURL").row(0) == (1, 8343295, 14202400320782000128)
    frame, bad = parsed(KDD12_CSV, {"AdID": '""'})
    assert bad == [] and frame["AdID"].to_list() == [None]


@pytest.mark.parametrize(
    ("layout", "change", "reason", "what"),
    [
        (CRITEO, {"label": "2"}, "label", "field label is '2'; it must be 0 or 1"),
        (CRITEO, {"label": ""}, "label", "field label is missing; it must be 0 or 1"),
        (CRITEO, {"I5": "260.0"}, "number", "field I5 is '260.0'; it must be an integer of 64 bits, or nothing"),
        (CRITEO, {"I5": "9" * 20}, "number", "field I5 is '9999"),
        (CRITEO, {"C7": "xyz"}, "category", "field C7 is 'xyz'; it must be a hexadecimal number of at most 8 digits"),
        (CRITEO, {"C7": "123456789"}, "category", "field C7 is '123456789'; it must be a hexadecimal number"),
        (CRITEO, {"C7": "é"}, "category", "field C7 is 'é'"),
        (
            AVAZU,
            {"hour": "14133100"},
            "category",
            "field hour is '14133100'; it must be a date and an hour as YYMMDDHH",
        ),
        (AVAZU, {"hour": "14102124"}, "category", "field hour is '14102124'"),
        (AVAZU, {"hour": "2014102100"}, "category", "field hour is '2014102100'"),
        (AVAZU, {"C14": "1a"}, "category", "field C14 is '1a'; it must be an integer of 64 bits, or nothing"),
        (AVAZU, {"id": "-1"}, "category", "field id is '-1'; it must be an integer from 0 to"),
        (KDD12_CSV, {"DisplayURL": "-1"}, "category", "field url_hash is '-1'; it must be a number from 0 to"),
        (KDD12_CSV, {"Click": "2"}, "label", "field click is '2'; it must be 0 or 1"),
    ],
)
def test_a_bad_cell_is_named(layout: ClickFormat, change: dict[str, str], reason: str, what: str) -> None:
    frame, bad = parsed(layout, {}, change, {}, first_line=100)
    assert len(frame) == 2
    assert [(each.line, each.reason) for each in bad] == [(101, reason)]
    assert bad[0].text.startswith(what)


def test_lines_of_another_width_are_named_and_the_others_kept() -> None:
    good = CRITEO.separator.join(word.encode() for word in EXAMPLES[CRITEO])
    lines = [good[:-9], good, b"", good + b"\tff", b"\xff\xfe", good]
    frame, bad = parsed(CRITEO, *lines, {"label": "x"})
    assert len(frame) == 2 and frame["C26"].to_list() == [0x68FD1E64] * 2
    assert [(each.line, each.reason) for each in bad] == [
        (1, "columns"),
        (3, "columns"),
        (4, "columns"),
        (5, "columns"),
        (7, "label"),
    ]
    assert bad[0].text == "it has 39 columns; Criteo Kaggle train.txt has 40"
    assert bad[1].text == "the line is empty; Criteo Kaggle train.txt has 40"
    assert bad[3].text == "it has 1 column; Criteo Kaggle train.txt has 40"
    frame, bad = parsed(CRITEO, b"", b"x")
    assert len(frame) == 0 and len(bad) == 2 and frame.schema["C1"] == pl.UInt32


def test_a_line_with_two_bad_cells_counts_once() -> None:
    frame, bad = parsed(CRITEO, {"I1": "x", "C1": "y", "label": "3"})
    assert len(frame) == 0 and [each.reason for each in bad] == ["label"]


def test_the_rule_stops_or_counts() -> None:
    bad = [BadLine(7, "label", "field label is '2'"), BadLine(9, "columns", "it has 3 columns")]
    with pytest.raises(DataError, match=r"^log, line 7: field label is '2' \(mend or remove the line, or leave such "):
        BadLineRule(Path("log"), "error").take(bad)
    rule = BadLineRule(Path("log"), "skip")
    rule.take([])
    rule.take(bad)
    rule.take(bad[1:])
    assert rule.taken.counts == {"label": 1, "columns": 2} and rule.taken.total == 3 and rule.taken.first == bad[0]
    resumed = BadLineRule(Path("log"), "skip", rule.taken)
    resumed.take(bad[1:])
    assert resumed.taken.total == 4 and resumed.taken.first == bad[0]
