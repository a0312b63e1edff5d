"""Vocabularies against a Counter, whatever the pieces and shares that they are counted in."""

from collections import Counter
from collections.abc import Iterator

import numpy as np
import polars as pl
import pytest

from subshot.data import click_vocabulary
from subshot.data.click_vocabulary import Vocabulary, as_vocabulary, encode, fit_vocabulary

RANDOM = np.random.Generator(np.random.Philox(3))
VALUES = RANDOM.zipf(1.3, 5000).clip(max=900).astype(np.uint64) * np.uint64(2**54)
COLUMN = pl.Series("C1", [None if value == 2**55 else int(value) for value in VALUES], dtype=pl.UInt64)


def ids(vocabulary: Vocabulary, column: pl.Series) -> pl.Series:
    frame = pl.DataFrame({"label": np.zeros(len(column), np.uint8), "C1": column})
    encoded = encode(frame, {"C1": vocabulary})
    assert encoded.columns == ["label", "C1"] and encoded["label"].equals(frame["label"])
    return encoded["C1"]


@pytest.mark.parametrize("counted_at_once", [300, 10**9])
@pytest.mark.parametrize("piece", [97, 5000])
def test_frequent_values_get_ids_by_falling_count_then_value(
    monkeypatch: pytest.MonkeyPatch, counted_at_once: int, piece: int
) -> None:
    monkeypatch.setattr(click_vocabulary, "COUNTED_AT_ONCE", counted_at_once)
    calls = []

    def pieces() -> Iterator[pl.Series]:
        calls.append(1)
        return (COLUMN[begin : begin + piece] for begin in range(0, len(COLUMN), piece))

    table = fit_vocabulary(pieces, len(COLUMN), min_count=3)
    assert len(calls) == (17 if counted_at_once == 300 else 1)
    counts = Counter(COLUMN.drop_nulls().to_list())
    ranked = sorted((-count, value) for value, count in counts.items() if count >= 3)
    expected = {value: (place, -count) for place, (count, value) in enumerate(ranked, start=2)}
    assert {value: (place, count) for value, place, count in table.rows()} == expected
    assert table["value"].is_sorted()
    vocabulary = as_vocabulary(table)
    assert vocabulary.cardinality == len(expected) + 2
    encoded = ids(vocabulary, COLUMN)
    assert encoded.to_list() == [0 if v is None else expected.get(v, (1, 0))[0] for v in COLUMN.to_list()]
    assert encoded.dtype == pl.Int32


def test_an_empty_vocabulary_knows_missing_and_others() -> None:
    table = fit_vocabulary(lambda: iter([pl.Series("C1", [5, None, 6], dtype=pl.UInt32)]), 3, min_count=2)
    vocabulary = as_vocabulary(table)
    assert vocabulary.cardinality == 2
    assert ids(vocabulary, pl.Series("C1", [5, None, 7], dtype=pl.UInt32)).to_list() == [1, 0, 1]


def test_zero_and_the_highest_value_are_values_like_others() -> None:
    """A missing cell must not be taken for the value 0 that stands in for it while it is looked up."""
    column = pl.Series("C1", [0, 0, 2**32 - 1, None, 1], dtype=pl.UInt32)
    vocabulary = as_vocabulary(fit_vocabulary(lambda: iter([column]), 5, min_count=1))
    assert ids(vocabulary, column).to_list() == [2, 2, 4, 0, 3]
