"""A generated click log in Criteo's raw format, whose best possible log loss is known. Nobody clicked on anything.

A line is what Criteo's train.txt has: label, 13 integers, 26 categories as 8 hex digits, with tabs between them and
nothing where a value is missing. The label is drawn with probability p = sigmoid(logit), where the logit adds up

- weights of single categories, and of log(1 + x) of a few integers x: what a logistic regression can learn;
- u[a] v[b] for the categories a, b of some pairs of fields, and w[a] (log(1 + x) - m) for some pairs of a field and
  an integer: planted interactions of second order, of which it learns the average only, and a factorisation machine
  the whole;
- a constant that brings the base rate to about 0.25.

The other fields are noise. A missing category adds nothing; missing and negative integers count as 0, as protocol
`nasrec` has them. Categories are few and follow Zipf's law, so 40,000 rows teach most of what there is: on 10,000
others (seed 0), in nats a row, the base rate gives 0.560, a logistic regression 0.469, a factorisation machine 0.414,
each where it did best on those rows (C = 0.1, three epochs), and p itself 0.322. No two categories of a field fall on
one row of NASRec's hashed tables, so under that protocol p is a function of the features and its log loss can be
reached. (`autoctr` and `bars-x4` round the integers, which loses a little.)

Each run of 4,096 rows has random streams of its own, and the constant comes from a pilot sample: so the first n lines
for a seed are the same bytes whatever the number of rows.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

BLOCK_ROWS = 4096
BASE_RATE = 0.25

# Rows of NASRec's tables for Criteo; ids there are value mod (rows - 1), plus 1.
_TABLE_ROWS = (
    *(1461, 584, 10131227, 2202609, 306, 25, 12518, 634, 4, 93146, 5684, 8351593, 3195),
    *(28, 14993, 5461307, 11, 5653, 2174, 5, 7046548, 19, 16, 286182, 106, 142573),
)
# The share of missing values in each field, roughly as in Criteo's log.
_DENSE_BLANK = (0.45, 0.0, 0.21, 0.22, 0.03, 0.22, 0.04, 0.0, 0.04, 0.45, 0.04, 0.77, 0.22)
_BLANK = {3: 0.03, 4: 0.03, 6: 0.12, 12: 0.03, 16: 0.03, 19: 0.44, 20: 0.44, 21: 0.03, 22: 0.76, 24: 0.03, 25: 0.44}
# Location and scale of log(1 + x).
_DENSE_LOG = (
    *((0.9, 0.9), (2.2, 1.8), (2.0, 1.2), (1.8, 0.9), (7.0, 2.0), (3.3, 1.5), (1.8, 1.3)),
    *((2.1, 1.1), (3.8, 1.3), (0.5, 0.4), (1.0, 0.7), (0.4, 0.6), (1.9, 1.0)),
)
_NEGATIVE = 1  # I2 has negative values
_FIRST_ORDER = (0, 4, 6, 9, 12, 17, 25)
_FIRST_ORDER_DENSE = (6, 10)
_PAIRS = ((3, 10), (6, 12), (9, 14))
_DENSE_PAIRS = ((4, 20), (6, 25))  # (integer, category)
_PLANTED_VALUES = 16
_OTHER_VALUES = 30
_RANK = 1
_ZIPF = 0.9
_FIRST_ORDER_SCALE = 0.2
_PAIR_SCALE = 1.2
_PAIR_MEAN = 0.5  # of the latent numbers, in deviations: it shows single categories a part of what pairs do
_DENSE_PAIR_SCALE = 0.5
_TRUTH_STREAM, _PILOT_STREAM, _ROW_STREAM = range(3)

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class _Truth:
    """values[f]: the hex texts of field f, the last one empty; shares[f]: their cumulative probabilities. The other
    tables have a row a value, zero for the empty one."""

    values: tuple[tuple[str, ...], ...]
    shares: tuple[Floats, ...]
    weights: dict[int, Floats]
    dense_weights: dict[int, float]
    latent: dict[tuple[int, int], tuple[Floats, Floats]]
    slopes: dict[tuple[int, int], Floats]
    constant: float


@dataclass(frozen=True, eq=False)
class _Rows:
    """dense: [n, 13], its missing values True in `missing`; ids: [n, 26] places in _Truth.values."""

    dense: Integers
    missing: NDArray[np.bool_]
    ids: Integers


def write_synthetic_log(path: Path | str, rows: int, seed: int) -> Path:
    """Writes `path`, and beside it path.bayes.npy (p of every row, float32) and path.synthetic.json.

    bayes_log_loss there is that of p on the labels as drawn, in nats a row. The log itself appears last, and whole.
    Memory: 4 bytes a row.
    """
    if rows < 1:
        raise ValueError(f"rows must be at least 1, not {rows}")
    if seed < 0:
        raise ValueError(f"seed must not be negative, but is {seed}")
    path = Path(path)
    probability_path = path.with_name(f"{path.name}.bayes.npy")
    record_path = path.with_name(f"{path.name}.synthetic.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    probability, clicks, loss = np.empty(rows, dtype=np.float32), 0, 0.0
    partial = [target.with_name(f".{target.name}.partial") for target in (probability_path, record_path, path)]
    try:
        with partial[2].open("w", encoding="ascii", newline="\n") as stream:
            for first, labels, p, lines in _blocks(rows, seed):
                probability[first : first + len(p)] = p
                clicks += int(labels.sum())
                loss -= float(np.log(np.where(labels == 1, p, 1.0 - p.astype(np.float64))).sum())
                stream.writelines(lines)
        with partial[0].open("wb") as binary:
            np.save(binary, probability, allow_pickle=False)
        record = {
            "synthetic": True,
            "seed": seed,
            "rows": rows,
            "bayes_probability_npy": probability_path.name,
            "base_rate": clicks / rows,
            "bayes_log_loss": loss / rows,
        }
        partial[1].write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        for source, target in zip(partial, (probability_path, record_path, path), strict=True):
            os.replace(source, target)
    finally:
        for source in partial:
            source.unlink(missing_ok=True)
    return path


def _blocks(rows: int, seed: int) -> Iterator[tuple[int, Integers, NDArray[np.float32], list[str]]]:
    """(first row, labels, p, lines) of every block."""
    truth = _truth(seed)
    for number, first in enumerate(range(0, rows, BLOCK_ROWS)):
        random = _random(seed, _ROW_STREAM, number)
        block = _draw(truth, random, BLOCK_ROWS)
        p = _probability(_logit(truth, block)).astype(np.float32)
        labels = (random.random(BLOCK_ROWS) < p).astype(np.int64)
        count = min(BLOCK_ROWS, rows - first)
        yield first, labels[:count], p[:count], _lines(truth, block, labels)[:count]


@functools.lru_cache(maxsize=4)
def _truth(seed: int) -> _Truth:
    random = _random(seed, _TRUTH_STREAM)
    planted = {field for pair in _PAIRS for field in pair} | {field for _, field in _DENSE_PAIRS} | set(_FIRST_ORDER)
    values, shares = [], []
    for field, table_rows in enumerate(_TABLE_ROWS):
        count = min(_PLANTED_VALUES if field in planted else _OTHER_VALUES, table_rows - 1)
        values.append((*_distinct_values(random, count, table_rows - 1), ""))
        zipf = 1.0 / np.arange(1, count + 1) ** _ZIPF
        blank = _BLANK.get(field, 0.0)
        shares.append(np.cumsum(np.append((1.0 - blank) * zipf / zipf.sum(), blank)))

    def table(field: int, width: int, scale: float, mean: float = 0.0) -> Floats:
        """[values, width], over the log of mean `mean` * `scale` and of deviation `scale`; 0 where missing."""
        drawn = random.standard_normal((len(values[field]), width))
        present = np.diff(shares[field], prepend=0.0)[:-1, None]
        drawn[-1] = 0.0
        drawn[:-1] -= (present * drawn[:-1]).sum(axis=0) / present.sum()
        drawn[:-1] /= np.sqrt((present * drawn[:-1] ** 2).sum(axis=0) / present.sum())
        drawn[:-1] += mean
        return drawn * scale

    side = (_PAIR_SCALE / _RANK**0.5) ** 0.5
    truth = _Truth(
        tuple(values),
        tuple(shares),
        {field: table(field, 1, _FIRST_ORDER_SCALE)[:, 0] for field in _FIRST_ORDER},
        {integer: 0.25 * float(random.choice([-1.0, 1.0])) for integer in _FIRST_ORDER_DENSE},
        {(a, b): (table(a, _RANK, side, _PAIR_MEAN), table(b, _RANK, side, _PAIR_MEAN)) for a, b in _PAIRS},
        {(j, field): table(field, 1, _DENSE_PAIR_SCALE)[:, 0] for j, field in _DENSE_PAIRS},
        0.0,
    )
    pilot = _logit(truth, _draw(truth, _random(seed, _PILOT_STREAM), 16 * BLOCK_ROWS))
    return replace(truth, constant=_constant(pilot))


def _distinct_values(random: np.random.Generator, count: int, modulus: int) -> list[str]:
    """Hex texts of different numbers modulo `modulus`."""
    found: dict[int, str] = {}
    while len(found) < count:
        value = int(random.integers(1, 2**32))
        found.setdefault(value % modulus, f"{value:08x}")
    return list(found.values())


def _draw(truth: _Truth, random: np.random.Generator, rows: int) -> _Rows:
    location, scale = np.array(_DENSE_LOG).T
    logs = location + scale * random.standard_normal((rows, len(_DENSE_LOG)))
    dense = np.floor(np.expm1(np.clip(logs, 0.0, 13.0))).astype(np.int64)
    below = random.random(rows)
    dense[:, _NEGATIVE] -= np.select([below < 0.02, below < 0.12], [2, 1], 0) * (dense[:, _NEGATIVE] == 0)
    missing = random.random(dense.shape) < np.array(_DENSE_BLANK)
    drawn = random.random((rows, len(truth.shares)))
    ids = np.stack(
        [
            np.minimum(np.searchsorted(cumulative, drawn[:, field], side="right"), len(cumulative) - 1)
            for field, cumulative in enumerate(truth.shares)
        ],
        axis=1,
    )
    return _Rows(dense, missing, ids)


def _logit(truth: _Truth, rows: _Rows) -> Floats:
    """[n]; a missing integer counts as 0, as protocol `nasrec` has it."""
    logs = np.log1p(np.where(rows.missing, 0, np.maximum(rows.dense, 0)))
    centred = logs - np.array([location for location, _ in _DENSE_LOG])
    logit = np.full(len(logs), truth.constant)
    for field, weights in truth.weights.items():
        logit += weights[rows.ids[:, field]]
    for integer, weight in truth.dense_weights.items():
        logit += weight * centred[:, integer]
    for (a, b), (first, second) in truth.latent.items():
        logit += (first[rows.ids[:, a]] * second[rows.ids[:, b]]).sum(axis=1)
    for (integer, field), slope in truth.slopes.items():
        logit += slope[rows.ids[:, field]] * centred[:, integer] / _DENSE_LOG[integer][1]
    return logit


def _constant(logit: Floats) -> float:
    """What to add to the logits so that the mean probability is BASE_RATE, by bisection."""
    low, high = -20.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        if _probability(logit + middle).mean() < BASE_RATE:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _probability(logit: Floats) -> Floats:
    return 1.0 / (1.0 + np.exp(-np.clip(logit, -12.0, 12.0)))


def _lines(truth: _Truth, rows: _Rows, labels: Integers) -> list[str]:
    columns = [labels.astype(str).tolist()]
    columns += np.where(rows.missing, "", rows.dense.astype(str)).T.tolist()
    columns += [np.array(values)[rows.ids[:, field]].tolist() for field, values in enumerate(truth.values)]
    return ["\t".join(row) + "\n" for row in zip(*columns, strict=True)]


def _random(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
