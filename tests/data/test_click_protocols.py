"""What a protocol makes of typed columns, cell by cell, and which fields come out."""

import math

import polars as pl
import pytest

from subshot.data.click_formats import AVAZU, CRITEO, KDD12_TSV, Column
from subshot.data.click_protocols import PROTOCOLS, Plan, make_plan

INTEGER = (Column("label", "label"), Column("I1", "integer"))
DENSE = pl.DataFrame(
    {
        "label": pl.Series([0, 1, 0, 0, 1, 0, 1], dtype=pl.UInt8),
        "I1": pl.Series([None, -2, 0, 2, 3, 100, 23159456], dtype=pl.Int64),
    }
)


def test_dense_steps() -> None:
    numbers = DENSE["I1"].to_list()
    logs = make_plan(PROTOCOLS["nasrec"], "criteo", INTEGER).apply(DENSE)["I1"].to_list()
    assert logs == pytest.approx([math.log(1 + max(x or 0, 0)) for x in numbers])
    squares = make_plan(PROTOCOLS["autoctr"], "criteo", INTEGER).apply(DENSE)
    assert squares["I1"].to_list() == [0, -2, 0, 2, 1, 21, 287] and squares.schema["I1"] == pl.Float32
    buckets = make_plan(PROTOCOLS["bars-x4"], "criteo", INTEGER)
    assert buckets.apply(DENSE)["I1"].to_list() == [None, -2, 0, 2, 1, 21, 287]
    assert buckets.dense == ("zero",) and [field.name for field in buckets.categorical] == ["I1"]
    assert buckets.apply(DENSE)["zero"].to_list() == [0.0] * 7


def test_hashing_is_fmod_plus_one_with_missing_at_0() -> None:
    columns = (Column("label", "label"), Column("C9", "hex"), Column("C20", "hex"))
    values = [None, 0, 1, 2, 3, 4, 2**32 - 1]
    frame = pl.DataFrame(
        {"label": DENSE["label"], "C9": pl.Series(values, dtype=pl.UInt32), "C20": pl.Series(values, dtype=pl.UInt32)}
    )
    plan = make_plan(PROTOCOLS["nasrec"], "criteo", columns)
    assert [field.table_size for field in plan.categorical] == [4, 5]
    ids = plan.apply(frame)
    for name, size in (("C9", 4), ("C20", 5)):
        assert ids[name].to_list() == [0 if x is None else int(math.fmod(x, size - 1)) + 1 for x in values]
        assert ids.schema[name] == pl.Int32
    capped = make_plan(PROTOCOLS["nasrec"], "criteo", columns, max_rows_per_table=2)
    assert capped.apply(frame)["C9"].to_list() == [0, 1, 1, 1, 1, 1, 1]


def test_negative_and_64_bit_decimals_are_taken_modulo_a_prime_as_in_python() -> None:
    columns = (Column("click", "label"), Column("C20", "decimal"), Column("id", "unsigned"))
    frame = pl.DataFrame(
        {
            "click": pl.Series([0, 1], dtype=pl.UInt8),
            "C20": pl.Series([-1, 100084], dtype=pl.Int64),
            "id": pl.Series([2**64 - 1, 5], dtype=pl.UInt64),
        }
    )
    ids = make_plan(PROTOCOLS["nasrec"], "avazu", columns, keep_id=True).apply(frame)
    assert ids["C20"].to_list() == [x % 2147483647 % 172 + 1 for x in (-1, 100084)]
    assert ids["id"].to_list() == [x % 2147483647 % 9999 + 1 for x in (2**64 - 1, 5)]


def test_the_calendar_of_avazu() -> None:
    columns = (Column("click", "label"), Column("hour", "hour"), Column("C1", "decimal"))
    hours = [14102100, 14102523, 14102605, None]  # a Tuesday, a Saturday, a Sunday
    frame = pl.DataFrame({"click": pl.Series([0, 1, 0, 1], dtype=pl.UInt8), "hour": hours, "C1": [1, 2, 3, 4]})
    plan = make_plan(PROTOCOLS["bars-x4"], "avazu", columns)
    assert [field.name for field in plan.categorical] == ["hour", "weekday", "is_weekend", "C1"]
    made = plan.apply(frame)
    assert made["hour"].to_list() == [0, 23, 5, None]
    assert made["weekday"].to_list() == [2, 6, 0, None]
    assert made["is_weekend"].to_list() == [0, 1, 1, None]


def rows(plan: Plan) -> int:
    return sum(field.table_size for field in plan.categorical)


def test_fields_and_table_sizes_of_the_published_protocols() -> None:
    criteo = make_plan(PROTOCOLS["nasrec"], "criteo", CRITEO.columns)
    assert len(criteo.dense) == 13 and rows(criteo) == pytest.approx(33.76e6, rel=2e-4)
    avazu = make_plan(PROTOCOLS["nasrec"], "avazu", AVAZU.columns, keep_id=True)
    assert avazu.dense == ("zero",) and rows(avazu) == pytest.approx(9.46e6, rel=1e-3)
    users = (Column("Gender", "decimal"), Column("Age", "decimal"))
    kdd = make_plan(PROTOCOLS["nasrec"], "kdd12", KDD12_TSV.columns + users)
    assert kdd.dense == ("Impression", "Depth", "Position") and rows(kdd) == pytest.approx(50.67e6, rel=2e-4)
    capped = make_plan(PROTOCOLS["nasrec"], "criteo", CRITEO.columns, max_rows_per_table=500_000)
    assert rows(capped) * 16 == pytest.approx(49.1e6, rel=2e-3)
    buckets = make_plan(PROTOCOLS["bars-x4"], "criteo", CRITEO.columns)
    assert len(buckets.categorical) == 39 and len(buckets.steps) == 41
