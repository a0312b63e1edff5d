"""Loaders of prepared click logs, alike for every number of processes.

    clicks = open_clicks("prepared/")
    loader = ClickLoader(clicks.train, batch_size=512, num_shards=2, seed=0)
    for shards in loader.batches(epoch=0): ...

A training batch is a pure function of (seed, epoch, step). An epoch puts the split's blocks (row groups) in a random
order, takes them in windows of a few blocks, and shuffles the rows within each window. A global batch is `batch_size`
rows of that order in a row (what is left at the end is dropped), cut into `num_shards` equal parts; process r of w
takes the shards v with v % w == r. A position is reached by reading the window that holds it, and nothing before it.

Each process reads whole windows, whatever its share of their rows: random rows of a window touch all its pages.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import accumulate, islice

import numpy as np
import torch
from numpy.typing import NDArray

from subshot.data.batch import ClickBatch
from subshot.data.click_folder import (
    ClickRows,
    ClickSplit,
    PreparedClicks,
    concatenated,
    joined_rows,
    open_clicks,
)
from subshot.data.click_manifest import CategoricalField
from subshot.data.keyed_ids import keyed_ids
from subshot.data.prefetch import prefetched

__all__ = [
    "CategoricalField",
    "ClickEvalLoader",
    "ClickLoader",
    "ClickSplit",
    "PreparedClicks",
    "capped_cardinalities",
    "concatenated",
    "first_batches",
    "folded",
    "open_clicks",
]

BLOCKS_IN_WINDOW = 8
LARGEST_WINDOW = 64  # blocks; where a fraction of the rows is taken, windows widen so that they hold as many rows
PREFETCHED_BATCHES = 16
_SUBSET_STREAM, _BLOCK_STREAM, _ROW_STREAM = range(3)

Indices = NDArray[np.int64]


def capped_cardinalities(cardinalities: Sequence[int], max_rows_per_table: int) -> tuple[int, ...]:
    """The rows of each field's table under a cap; 0: no cap. Loaders with the same cap give ids below these."""
    _check_cap(max_rows_per_table)
    return tuple(min(rows, max_rows_per_table) if max_rows_per_table else rows for rows in cardinalities)


class ClickLoader:
    """Shuffled training batches of whole size.

    batch_size: global, over all processes. fraction: of the rows, rounded up; a fixed subset, chosen by seed alone,
    the same in all epochs: the same share of every block, since logs are in order of time. max_rows_per_table: ids
    from 1 on of larger fields become (id - 1) % (cap - 1) + 1; "missing" stays 0; 0 for no cap. Iterations are
    independent: several may be open at once, and one may be left early.
    """

    def __init__(
        self,
        split: ClickSplit,
        *,
        batch_size: int,
        num_shards: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        fraction: float = 1.0,
        max_rows_per_table: int = 0,
    ) -> None:
        _check_common(batch_size, rank, world)
        if seed < 0:
            raise ValueError(f"seed must not be negative, but is {seed}")
        if num_shards < 1 or batch_size % num_shards:
            raise ValueError(f"batch_size {batch_size} must be a multiple of num_shards {num_shards}")
        if world > num_shards:
            raise ValueError(f"{world} processes share {num_shards} shards: raise num_shards to {world} or more")
        if not 0.0 < fraction <= 1.0:
            raise ValueError(f"fraction must lie in (0, 1], not {fraction}")
        self.rows = math.ceil(round(fraction * split.rows, 6))  # 0.07 * 100 is a little more than 7
        if self.rows < batch_size:
            raise ValueError(
                f"batch_size {batch_size} is larger than the {self.rows} rows that fraction {fraction} of "
                f"{split.name} ({split.rows} rows) gives: lower batch_size" + (", or raise fraction" * (fraction < 1))
            )
        self.split = split
        self.batch_size = batch_size
        self.seed = seed
        self.shards = tuple(range(rank, num_shards, world))
        self._shard_size = batch_size // num_shards
        self._kept = _kept_rows([block.rows for block in split.blocks], self.rows)
        self._window_blocks = min(LARGEST_WINDOW, math.ceil(BLOCKS_IN_WINDOW / fraction))
        self._collate = _Collate(split, max_rows_per_table)

    @property
    def steps_per_epoch(self) -> int:
        return self.rows // self.batch_size

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[list[tuple[int, ClickBatch]]]:
        """For each step from start_step on: (shard number, batch) for the shards of this process, in order."""
        if epoch < 0 or not 0 <= start_step <= self.steps_per_epoch:
            raise ValueError(
                f"no such position: epoch {epoch}, step {start_step} (epochs from 0, steps 0 to {self.steps_per_epoch})"
            )
        return prefetched(lambda: self._batches(epoch, start_step), PREFETCHED_BATCHES)

    def _batches(self, epoch: int, start_step: int) -> Iterator[list[tuple[int, ClickBatch]]]:
        if start_step == self.steps_per_epoch:
            return
        windows = self._windows(epoch, start_step * self.batch_size)
        first, order, rows = next(windows)
        for step in range(start_step, self.steps_per_epoch):
            pieces: list[list[ClickRows]] = [[] for _ in self.shards]
            done, end = step * self.batch_size, (step + 1) * self.batch_size
            while done < end:
                if done == first + len(order):
                    first, order, rows = next(windows)
                upto = min(end, first + len(order))
                for place, shard in enumerate(self.shards):
                    start = step * self.batch_size + shard * self._shard_size
                    low, high = max(start, done), min(start + self._shard_size, upto)
                    if low < high:
                        pieces[place].append(rows.take(order[low - first : high - first]))
                done = upto
            yield [(shard, self._collate(joined_rows(part))) for shard, part in zip(self.shards, pieces, strict=True)]

    def _windows(self, epoch: int, position: int) -> Iterator[tuple[int, Indices, ClickRows]]:
        """(first position, order, rows) of every window of the epoch, from the one that holds `position` on."""
        blocks = _random(self.seed, _BLOCK_STREAM, epoch).permutation(len(self._kept))
        first = 0
        for number, start in enumerate(range(0, len(blocks), self._window_blocks)):
            chosen = blocks[start : start + self._window_blocks].tolist()
            count = sum(self._kept[block] for block in chosen)
            if first + count > position:
                order = _random(self.seed, _ROW_STREAM, epoch, number).permutation(count)
                yield first, order, joined_rows([self._block(block) for block in chosen if self._kept[block]])
            first += count

    def _block(self, number: int) -> ClickRows:
        rows = self.split.read(number)
        kept = self._kept[number]
        if kept == len(rows):
            return rows
        chosen = _random(self.seed, _SUBSET_STREAM, number).permutation(len(rows))[:kept]
        return rows.take(np.sort(chosen))


class ClickEvalLoader:
    """Every row of a split once, in order.

    Batches are consecutive runs of batch_size rows, the same for any number of processes; each process takes a
    contiguous share of them. The last batch of all may be smaller.
    """

    def __init__(
        self, split: ClickSplit, *, batch_size: int, rank: int = 0, world: int = 1, max_rows_per_table: int = 0
    ) -> None:
        _check_common(batch_size, rank, world)
        self.split = split
        self.batch_size = batch_size
        batches = -(-split.rows // batch_size)
        self._numbers = range(batches * rank // world, batches * (rank + 1) // world)
        self._collate = _Collate(split, max_rows_per_table)

    def __len__(self) -> int:
        """The number of batches that this process gives."""
        return len(self._numbers)

    def __iter__(self) -> Iterator[ClickBatch]:
        return prefetched(self._batches, PREFETCHED_BATCHES)

    def _batches(self) -> Iterator[ClickBatch]:
        starts = [0, *accumulate(block.rows for block in self.split.blocks)]
        number, rows = -1, None
        for batch in self._numbers:
            done, end = batch * self.batch_size, min((batch + 1) * self.batch_size, self.split.rows)
            pieces = []
            while done < end:
                if rows is None or done >= starts[number + 1]:
                    number = int(np.searchsorted(starts, done, side="right")) - 1
                    rows = self.split.read(number)
                upto = min(end, starts[number + 1])
                pieces.append(rows.slice(done - starts[number], upto - starts[number]))
                done = upto
            yield self._collate(joined_rows(pieces))


def first_batches(
    split: ClickSplit, *, count: int, batch_size: int, seed: int, max_rows_per_table: int = 0
) -> list[ClickBatch]:
    """`count` batches of random rows, no row twice, always the same for a seed: what candidates are scored on."""
    loader = ClickLoader(split, batch_size=batch_size, num_shards=1, seed=seed, max_rows_per_table=max_rows_per_table)
    if not 1 <= count <= loader.steps_per_epoch:
        raise ValueError(
            f"count must lie between 1 and {loader.steps_per_epoch}, the batches of {batch_size} rows that the "
            f"{split.rows} rows of {split.name} give, not {count}"
        )
    return [shards[0][1] for shards in islice(loader._batches(0, 0), count)]


class _Collate:
    """From rows to a batch, with ids folded to the cap."""

    def __init__(self, split: ClickSplit, max_rows_per_table: int) -> None:
        _check_cap(max_rows_per_table)
        self._keys = [field.name for field in split.categorical_fields]
        self._cap = max_rows_per_table
        self._large = [
            place for place, field in enumerate(split.categorical_fields) if 0 < max_rows_per_table < field.cardinality
        ]

    def __call__(self, rows: ClickRows) -> ClickBatch:
        ids = rows.ids.astype(np.int64)
        for place in self._large:
            ids[place] = folded(ids[place], self._cap)
        return ClickBatch(
            torch.from_numpy(rows.dense.copy()),  # rows may be a view of what the split holds
            keyed_ids(self._keys, torch.from_numpy(ids)),
            torch.from_numpy(rows.labels.astype(np.float32)),
        )


def folded(ids: Indices, cap: int) -> Indices:
    """Ids of a field with more rows than the cap, as those of its capped table."""
    return np.where(ids > 0, (ids - 1) % (cap - 1) + 1, 0)


def _kept_rows(sizes: Sequence[int], kept: int) -> list[int]:
    """How many rows of each block are kept: the same share of all, `kept` in all, in exact integer arithmetic."""
    total = sum(sizes)
    ends = [kept * end // total for end in accumulate(sizes)]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


def _random(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


def _check_cap(max_rows_per_table: int) -> None:
    if max_rows_per_table < 0 or max_rows_per_table == 1:
        raise ValueError(
            f"max_rows_per_table must be 0 (no cap) or at least 2 (one row is for missing), not {max_rows_per_table}"
        )


def _check_common(batch_size: int, rank: int, world: int) -> None:
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    if not 0 <= rank < world:
        raise ValueError(f"rank must lie between 0 and {world - 1}, not {rank}")
