"""One's own log, against plain Python that knows only manifest.json, the vocabulary tables and csv.reader."""

import csv
import json
import math
import random
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from subshot.data.click_guess import guess_schema
from subshot.data.click_schema import ClickSchema, read_schema
from subshot.data.clicks import open_clicks
from subshot.data.image_folder import DataError
from subshot.data.prepare_clicks import PrepareOptions, prepare_clicks
from subshot.data.prepare_stages import Pieces

HEADER = ["when", "clicked", "site", "type", "views", "price", "spare/part"]
SCHEMA = ClickSchema(
    "clicked",
    counts=("views",),
    numbers=("price",),
    categories=("site", "type"),
    left_out=("when", "spare/part"),
    missing=("NA",),
    min_count=3,
)
SITES = ["news", "News", " news", 'a "shop", big', "día", "日本", "", "NA", "x;y"]
PRICES = ["", "NA", "0", "-0.5", "1e-3", "17.25", "+3.", ".5", "99999", "-1234.5678"]
SMALL = Pieces(block_bytes=1500, group_rows=64, part_rows=150)


def rows_of(count: int, seed: int = 0) -> list[list[str]]:
    draw = random.Random(seed)
    return [
        [
            f"2026-01-{draw.randrange(1, 29):02d}",
            draw.choice("0001"),
            draw.choice([*SITES, f"rare{draw.randrange(60)}"]),
            draw.choice(["items", "keys"]),
            draw.choice(["", "0", "3", "2.5", "-7", str(draw.randrange(10**6))]),
            draw.choice([*PRICES, repr(draw.gauss(0.0, 30.0))]),
            "any thing",
        ]
        for _ in range(count)
    ]


def write_log(path: Path, rows: list[list[str]], separator: str = ",") -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=separator, lineterminator="\n").writerows([HEADER, *rows])
    return path


def float32(value: float) -> float:
    return float(struct.unpack("f", struct.pack("f", value))[0])


def plain_row(line: str, manifest: dict[str, Any], tables: dict[str, dict[str, int]]) -> dict[str, Any]:
    """The rule of data/click_columns.py, without the library."""
    found: dict[str, Any] = {}
    cells = next(csv.reader([line], delimiter=manifest["text"]["separator"], strict=True))
    for column, cell in zip(manifest["columns"], cells, strict=True):
        name, missing = column["name"], cell in ("", *manifest["text"]["missing"])
        if column["kind"] == "label":
            found["label"] = int(cell)
        elif column["kind"] == "category":
            found[name] = 0 if missing else tables[name].get(cell, 1)
        elif column["kind"] == "number" and missing:
            found[name] = 0.0
        elif column["kind"] == "number" and column["transform"] == "log1p":
            found[name] = float32(math.log1p(max(float(cell), 0.0)))
        elif column["kind"] == "number":
            scaled = (float(cell) - column["mean"]) / column["deviation"]
            found[name] = float32(min(max(scaled, -column["bound"]), column["bound"]))
    return found


def prepared(raw: Path, out: Path, schema: ClickSchema, **options: Any) -> tuple[dict[str, Any], dict[str, pa.Table]]:
    prepare_clicks("csv", raw, out, PrepareOptions(schema=schema, **options), pieces=SMALL)
    manifest = json.loads((out / "manifest.json").read_text())
    splits = {
        split: pa.concat_tables([pq.read_table(out / file["name"]) for file in record["files"]])
        for split, record in manifest["splits"].items()
    }
    return manifest, splits


@pytest.mark.parametrize(("separator", "time"), [(",", ""), ("\t", "when")])
def test_manifest_and_tables_repeat_every_row(tmp_path: Path, separator: str, time: str) -> None:
    rows = rows_of(500)
    raw = write_log(tmp_path / "log.csv", rows, separator)
    schema = replace(SCHEMA, separator=separator)
    if time:
        schema = replace(schema, time=time, left_out=("spare/part",))
    manifest, splits = prepared(raw, tmp_path / "out", schema)
    tables = {
        column["name"]: dict(zip(table["value"].to_pylist(), table["id"].to_pylist(), strict=True))
        for column in manifest["columns"]
        if column["kind"] == "category"
        for table in [pq.read_table(tmp_path / "out" / column["vocabulary"])]
    }
    assert [column["name"] for column in manifest["columns"]] == HEADER
    assert min(len(table) for table in tables.values()) >= 2 and 'a "shop", big' in tables["site"]
    lines = raw.read_text().splitlines()[1:]
    expected = [plain_row(line, manifest, tables) for line in lines]
    found = [row for split in splits.values() for row in split.to_pylist()]

    def key(row: dict[str, Any]) -> list[float]:
        return [row[name] for name in ("label", "views", "price", "site", "type")]

    assert sorted(map(key, found)) == sorted(map(key, expected))
    if time:
        order = sorted(range(500), key=lambda row: (rows[row][0], row))
        assert [key(row) for row in splits["test"].to_pylist()] == [key(expected[row]) for row in sorted(order[450:])]
        assert [splits[name].num_rows for name in ("train", "val", "test")] == [400, 50, 50]
    clicks = open_clicks(tmp_path / "out")
    assert (clicks.dataset, clicks.dense_fields) == ("csv", ("views", "price"))


def test_vocabularies_and_moments_come_from_training_rows_alone(tmp_path: Path) -> None:
    rows = [[str(number), "01"[number % 2], "old", "keys", "1", "2.0", ""] for number in range(80)]
    rows += [[str(number), "01"[number % 2], "new", "keys", "1", "5e9", ""] for number in range(80, 100)]
    schema = replace(SCHEMA, time="when", left_out=("spare/part",))
    manifest, splits = prepared(write_log(tmp_path / "log.csv", rows), tmp_path / "out", schema)
    price = next(column for column in manifest["columns"] if column["name"] == "price")
    assert (price["mean"], price["deviation"]) == (2.0, 1.0)
    assert set(splits["train"]["site"].to_pylist()) == {2} and set(splits["test"]["site"].to_pylist()) == {1}
    assert set(splits["test"]["price"].to_pylist()) == {10.0}


def test_times_that_are_numbers_are_ordered_as_numbers(tmp_path: Path) -> None:
    rows = [[str(number), "01"[number % 2], "a", "keys", str(number), "", ""] for number in range(100)]
    random.Random(0).shuffle(rows)
    schema = replace(SCHEMA, time="when", left_out=("spare/part",))
    _, splits = prepared(write_log(tmp_path / "log.csv", rows), tmp_path / "out", schema)
    assert min(splits["test"]["views"].to_pylist()) > max(splits["val"]["views"].to_pylist())


def test_an_interrupted_preparation_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    raw = write_log(tmp_path / "log.csv", rows_of(400))
    options = PrepareOptions(schema=SCHEMA)
    prepare_clicks("csv", raw, tmp_path / "whole", options, pieces=SMALL)

    def stop(stage: str, unit: str, done: int, total: int) -> None:
        if stage == "write":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_clicks("csv", raw, tmp_path / "out", options, stop, SMALL)
    assert not (tmp_path / "out" / "manifest.json").exists()
    prepare_clicks("csv", raw, tmp_path / "out", options, pieces=SMALL)
    for path in sorted((tmp_path / "whole").rglob("*.*")):
        assert (tmp_path / "out" / path.relative_to(tmp_path / "whole")).read_bytes() == path.read_bytes(), path
    with pytest.raises(ValueError, match="prepared with other settings .min_count 3 instead of 4."):
        prepare_clicks("csv", raw, tmp_path / "out", PrepareOptions(schema=replace(SCHEMA, min_count=4)))


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("d,1,a,keys,1,2", "it has 6 columns; the header of log.csv has 7"),
        ('d,1,"a,keys,1,2,', "its quotation marks do not fit together"),
        ("d,yes,a,keys,1,2,", "field clicked is 'yes'; it must be 0 or 1"),
        ("d,,a,keys,1,2,", "field clicked is missing; it must be 0 or 1"),
        ("d,1,a,keys,1,cheap,", "field price is 'cheap'; it must be a finite number such as 3, -0.5 or 1e-3"),
        ("d,1,a,keys,inf,2,", "field views is 'inf'; it must be a finite number"),
        ("d,1,a,keys,1,1e999,", "field price is '1e999'; it must be a finite number"),
        (",1,a,keys,1,2,", "field when is missing; it must be a number or a date as text"),
        ("", "the line is empty"),
    ],
)
@pytest.mark.parametrize("quoted", [False, True])
def test_bad_lines_are_named(tmp_path: Path, line: str, what: str, quoted: bool) -> None:
    schema = replace(SCHEMA, time="when", left_out=("spare/part",))
    raw = tmp_path / "log.csv"
    site = '"b, c"' if quoted else "b"
    good = [f"{number},{number % 2},{site},keys,1,2," for number in range(100)]
    raw.write_text("\n".join([",".join(HEADER), *good[:50], line, *good[50:]]) + "\n")
    with pytest.raises(DataError, match="line 52: ") as error:
        prepare_clicks("csv", raw, tmp_path / "out", PrepareOptions(schema=schema))
    assert what in str(error.value)
    made = prepare_clicks("csv", raw, tmp_path / "skipped", PrepareOptions(schema=schema, on_bad_line="skip"))
    assert made.bad.total == 1 and sum(made.rows.values()) == 100


def test_text_under_numbers_sends_to_the_schema(tmp_path: Path) -> None:
    schema = replace(SCHEMA, numbers=("price", "site"), categories=("type",), left_out=("when", "spare/part"))
    raw = tmp_path / "log.csv"
    said = "or is site one of the categories? correct the schema (mend or remove the line"
    for cell, wanted in (("news", True), ("inf", False)):
        raw.write_text("\n".join([",".join(HEADER), *[f"d,{i % 2},{cell},keys,1,2," for i in range(100)]]) + "\n")
        with pytest.raises(DataError, match="line 2: field site is") as error:
            prepare_clicks("csv", raw, tmp_path / cell, PrepareOptions(schema=schema))
        assert (said in str(error.value)) == wanted


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"numbers": ["prize"]}, "the schema names a column 'prize', and the header has none; did you mean 'price'?"),
        ({"left_out": ["when"]}, "does not say what 'spare/part' is; list every column, under left_out"),
        ({"left_out": ["when"], "categories": ["site", "type", "spare/part"]}, "'spare/part' cannot be used: its name"),
        ({"counts": ["views", "price"]}, "names the column 'price' twice"),
        ({"categories": []}, "categories is missing; a log has a label, and one or more categories"),
        ({"catgories": ["site"]}, "there is no entry 'catgories'; did you mean 'categories'?"),
        ({"min_count": 0}, "min_count is 0; it must be an integer of at least 1"),
        ({"numbers": "price"}, "numbers is 'price'; it must be a list of texts"),
        (
            {"separator": ";"},
            "the header is one column when it is cut at ';'; is the separator ','? correct \"separator\"",
        ),
        ({"separator": "::"}, "separator is '::'; it must be one of ',', "),
    ],
)
def test_mistakes_in_a_schema_are_named(tmp_path: Path, changes: dict[str, Any], what: str) -> None:
    path, raw = tmp_path / "schema.json", write_log(tmp_path / "log.csv", rows_of(50))
    path.write_text(json.dumps(SCHEMA.record() | changes))
    with pytest.raises(DataError) as error:
        prepare_clicks("csv", raw, tmp_path / "out", PrepareOptions(schema=read_schema(path)))
    assert what in str(error.value) and not (tmp_path / "out").exists()


def test_a_schema_and_csv_go_together(tmp_path: Path) -> None:
    raw = write_log(tmp_path / "log.csv", rows_of(50))
    for dataset, schema in (("csv", None), ("criteo", SCHEMA)):
        with pytest.raises(ValueError, match="needs --schema FILE, and no other data set takes one"):
            prepare_clicks(dataset, raw, tmp_path / "out", PrepareOptions(schema=schema))  # type: ignore[arg-type]


def test_a_guess_says_what_the_columns_seem_to_be(tmp_path: Path) -> None:
    draw, raw = random.Random(0), tmp_path / "log.csv"
    names = "session,day,later,click,is_new,site_id,device,views,hour,price,empty"
    lines = [
        f"s{number},2026-01-{draw.randrange(10, 30)},2026-02-01 00:00,{number % 2},{draw.choice('01')},"
        f"{draw.randrange(10**9)},{draw.choice('abc')},{draw.randrange(1000)},{draw.randrange(12)},"
        f"{draw.gauss(0, 1)},NA"
        for number in range(400)
    ]
    raw.write_text("\n".join([names, *lines]) + "\n")
    assert guess_schema(raw) == ClickSchema(
        "click",
        counts=("views",),
        numbers=("price",),
        categories=("is_new", "site_id", "device", "hour"),
        left_out=("session", "empty", "later"),
        time="day",
        missing=("NA",),
    )
    raw.write_text("\n".join([names.replace("click", "yes"), *lines]) + "\n")
    with pytest.raises(DataError, match="which column is the label. the columns yes, is_new hold 0 and 1 alone"):
        guess_schema(raw)
    raw.write_text("1,2,3\n4,5,6\n")
    with pytest.raises(DataError, match="line 1: this is no header"):
        guess_schema(raw)
