"""The loaders of click logs: pure functions of (seed, epoch, step), the same rows on any number of processes."""

import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from subshot.data.batch import ClickBatch
from subshot.data.clicks import (
    ClickEvalLoader,
    ClickLoader,
    ClickSplit,
    capped_cardinalities,
    concatenated,
    first_batches,
    open_clicks,
)

Write = Callable[..., Path]


@pytest.fixture
def train(write_clicks: Write) -> ClickSplit:
    """500 rows in files of 300, 0 and 200, in 9 blocks; dense field 0 is the row's number."""
    return open_clicks(write_clicks()).train


def _loader(split: ClickSplit, **changes: float) -> ClickLoader:
    settings = {"batch_size": 60, "num_shards": 6, "seed": 5} | changes
    return ClickLoader(split, **settings)  # type: ignore[arg-type]


def _rows(batch: ClickBatch) -> list[int]:
    return batch.dense[:, 0].long().tolist()


def _epoch(loader: ClickLoader, epoch: int, start_step: int = 0) -> list[list[int]]:
    return [[row for _, batch in shards for row in _rows(batch)] for shards in loader.batches(epoch, start_step)]


def _ids(batch: ClickBatch) -> torch.Tensor:
    """[F, N]"""
    return batch.sparse.values().view(-1, len(batch))


def _same(first: ClickBatch, second: ClickBatch) -> bool:
    return (
        torch.equal(first.dense, second.dense)
        and torch.equal(first.sparse.values(), second.sparse.values())
        and torch.equal(first.labels, second.labels)
    )


def _check_content(batches: Iterable[ClickBatch], folder: Path, split: str) -> None:
    """Every row of every batch is the row that the files hold, told by the number in dense field 0."""
    files = sorted((folder / split).glob("*.parquet"))
    columns = [pq.read_table(file).to_pydict() for file in files]
    stored = {name: np.concatenate([c[name] for c in columns]) for name in columns[0]}
    for batch in batches:
        rows = _rows(batch)
        assert batch.dense.dtype == batch.labels.dtype == torch.float32
        assert batch.sparse.values().dtype == torch.int64
        assert batch.sparse.keys() == ["C1", "C2", "C3"]
        np.testing.assert_array_equal(batch.dense[:, 1].numpy(), stored["I2"][rows].astype(np.float32))
        np.testing.assert_array_equal(batch.labels.numpy(), stored["label"][rows])
        for key, jagged in batch.sparse.to_dict().items():
            np.testing.assert_array_equal(jagged.values().numpy(), stored[key][rows])
            assert jagged.lengths().tolist() == [1] * len(rows)


def test_an_epoch_holds_whole_batches_of_distinct_rows(train: ClickSplit, tmp_path: Path) -> None:
    loader = _loader(train)
    assert loader.steps_per_epoch == 500 // 60
    batches = [batch for shards in loader.batches(0) for _, batch in shards]
    assert [len(batch) for batch in batches] == [10] * 6 * 8
    rows = [row for batch in batches for row in _rows(batch)]
    assert len(set(rows)) == 480 and set(rows) <= set(range(500))
    _check_content(batches, tmp_path / "prepared", "train")


def test_rows_are_shuffled_anew_in_every_epoch_and_by_every_seed(train: ClickSplit) -> None:
    first, again = _epoch(_loader(train), 0), _epoch(_loader(train), 0)
    assert first == again
    flat = np.array(first).ravel()
    neighbours = np.mean(np.diff(flat) == 1)
    assert neighbours < 0.05  # in the order of the files it is nearly 1
    assert abs(np.corrcoef(np.arange(len(flat)), flat)[0, 1]) < 0.3
    assert first != _epoch(_loader(train), 1)
    assert first != _epoch(_loader(train, seed=6), 0)


def test_windows_mix_several_blocks(write_clicks: Write) -> None:
    """With 64 blocks of 16 rows, a batch is drawn from 8 blocks in random places, not from one nor from all."""
    split = open_clicks(write_clicks(train=(1024,), row_group=16)).train
    assert len(split.blocks) == 64
    batches = _epoch(_loader(split, batch_size=64, num_shards=1), 0)
    blocks = [{row // 16 for row in rows} for rows in batches]
    assert all(4 <= len(found) <= 8 for found in blocks)
    assert blocks[0] | blocks[1] == blocks[0]  # a window is 128 rows, two batches
    assert not blocks[1] & blocks[2]
    assert sorted(row for rows in batches for row in rows) == list(range(1024))


@pytest.mark.parametrize("world", [1, 2, 3])
def test_shards_are_the_same_on_any_number_of_processes(train: ClickSplit, world: int) -> None:
    alone = list(_loader(train).batches(3))
    ranks = [list(_loader(train, rank=rank, world=world).batches(3)) for rank in range(world)]
    for step, shards in enumerate(alone):
        assert [shard for shard, _ in shards] == list(range(6))
        for rank in range(world):
            found = ranks[rank][step]
            assert [shard for shard, _ in found] == list(range(rank, 6, world))
            assert all(_same(batch, shards[shard][1]) for shard, batch in found)


def test_the_number_of_shards_only_cuts_the_batch(train: ClickSplit) -> None:
    assert _epoch(_loader(train, num_shards=1), 0) == _epoch(_loader(train, num_shards=4), 0)


@pytest.mark.parametrize("step", [0, 1, 5, 8])
def test_an_epoch_goes_on_from_any_step(train: ClickSplit, step: int) -> None:
    assert _epoch(_loader(train), 2, step) == _epoch(_loader(train), 2)[step:]


def test_a_position_is_reached_without_reading_what_is_before_it(
    write_clicks: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = open_clicks(write_clicks(train=(2048,), row_group=16)).train
    reads: list[int] = []
    read = ClickSplit.read
    monkeypatch.setattr(ClickSplit, "read", lambda self, number: reads.append(number) or read(self, number))
    loader = _loader(split, batch_size=64, num_shards=1)
    whole = _epoch(loader, 0)
    assert len(reads) == 128
    reads.clear()
    assert _epoch(loader, 0, 30) == whole[30:]
    assert len(reads) == 8


def test_a_fraction_is_a_fixed_subset_of_every_block(train: ClickSplit) -> None:
    loader = _loader(train, fraction=0.31, batch_size=5, num_shards=1)
    assert loader.rows == 155 and loader.steps_per_epoch == 31
    epochs = [sorted(row for rows in _epoch(loader, epoch) for row in rows) for epoch in range(3)]
    assert epochs[0] == epochs[1] == epochs[2] and len(set(epochs[0])) == 155
    counts = np.histogram(epochs[0], bins=[0, 64, 128, 192, 256, 300, 364, 428, 492, 500])[0]
    assert np.all(np.abs(counts - 0.31 * np.array([64, 64, 64, 64, 44, 64, 64, 64, 8])) <= 1)
    assert _epoch(loader, 0) != _epoch(loader, 1)
    other = _loader(train, fraction=0.31, batch_size=5, num_shards=1, seed=6)
    assert sorted(row for rows in _epoch(other, 0) for row in rows) != epochs[0]


def test_a_fraction_is_rounded_up_but_not_by_the_error_of_a_product(train: ClickSplit) -> None:
    assert _loader(train, fraction=0.07 * 2, batch_size=1, num_shards=1).rows == 70
    assert _loader(train, fraction=0.1401, batch_size=1, num_shards=1).rows == 71


def test_a_cap_folds_ids_of_large_fields_and_keeps_missing(train: ClickSplit) -> None:
    cap = 20
    cardinalities = [field.cardinality for field in train.categorical_fields]
    assert capped_cardinalities(cardinalities, cap) == (20, 7, 20)
    assert capped_cardinalities(cardinalities, 0) == (1000, 7, 50)
    plain = next(iter(_loader(train, num_shards=1).batches(0)))[0][1]
    capped = next(iter(_loader(train, num_shards=1, max_rows_per_table=cap).batches(0)))[0][1]
    expected = [
        [0 if i == 0 else (i - 1) % (cap - 1) + 1 if rows > cap else i for i in ids]
        for ids, rows in zip(_ids(plain).tolist(), cardinalities, strict=True)
    ]
    assert _ids(capped).tolist() == expected
    assert 0 in _ids(plain)[2] and _ids(capped).amax() == cap - 1
    evaluated = next(iter(ClickEvalLoader(train, batch_size=500, max_rows_per_table=cap)))
    assert _ids(evaluated).amax(dim=1).tolist() == [19, 6, 19]


@pytest.mark.parametrize("batch_size", [1, 7, 64, 100, 500, 1000])
@pytest.mark.parametrize("world", [1, 3])
def test_evaluation_gives_every_row_once_in_order(
    train: ClickSplit, tmp_path: Path, batch_size: int, world: int
) -> None:
    loaders = [ClickEvalLoader(train, batch_size=batch_size, rank=rank, world=world) for rank in range(world)]
    batches = [batch for loader in loaders for batch in loader]
    assert [len(loader) for loader in loaders] == [len(list(loader)) for loader in loaders]  # and again
    assert [row for batch in batches for row in _rows(batch)] == list(range(500))
    assert {len(batch) for batch in batches[:-1]} <= {batch_size}
    _check_content(batches, tmp_path / "prepared", "train")


def test_first_batches_are_fixed_by_the_seed(train: ClickSplit) -> None:
    batches = first_batches(train, count=4, batch_size=50, seed=1)
    again = first_batches(train, count=4, batch_size=50, seed=1)
    assert all(_same(a, b) for a, b in zip(batches, again, strict=True))
    assert len({row for batch in batches for row in _rows(batch)}) == 200
    assert not _same(batches[0], first_batches(train, count=1, batch_size=50, seed=2)[0])
    with pytest.raises(ValueError, match="count must lie between 1 and 10"):
        first_batches(train, count=11, batch_size=50, seed=1)


def test_splits_can_be_joined(write_clicks: Write) -> None:
    clicks = open_clicks(write_clicks())
    both = concatenated(clicks.train, clicks.val)
    assert (both.name, both.rows, both.bayes_log_loss) == (
        "train+val",
        630,
        pytest.approx((500 * 0.4 + 130 * 0.5) / 630),
    )
    labels = torch.cat([batch.labels for batch in ClickEvalLoader(both, batch_size=100)])
    assert both.base_rate == pytest.approx(labels.mean().item())
    rows = [row for batch in ClickEvalLoader(both, batch_size=100) for row in _rows(batch)]
    assert rows == [*range(500), *range(130)]
    assert both.read(0) is clicks.train.read(0)


def test_a_log_may_have_no_dense_field(write_clicks: Write) -> None:
    split = open_clicks(write_clicks(dense=())).train
    batch = next(iter(_loader(split).batches(0)))[0][1]
    assert batch.dense.shape == (10, 0) and _ids(batch).shape == (3, 10)


def test_batches_own_their_memory(train: ClickSplit) -> None:
    for batch in ClickEvalLoader(train, batch_size=64):
        batch.dense.zero_()
        batch.sparse.values().zero_()
        batch.labels.fill_(5.0)
    assert [row for batch in ClickEvalLoader(train, batch_size=64) for row in _rows(batch)] == list(range(500))


def test_an_iteration_left_early_leaves_no_thread_and_disturbs_no_other(train: ClickSplit) -> None:
    before = threading.active_count()
    loader = _loader(train)
    first, second = loader.batches(0), loader.batches(0)
    next(first)
    assert threading.active_count() == before + 1
    del first
    assert len(list(second)) == 8
    assert threading.active_count() == before


def test_damage_that_is_found_while_reading_reaches_the_consumer(write_clicks: Write) -> None:
    folder = write_clicks(train=(500,))
    split = open_clicks(folder).train
    path = folder / "train" / "part-00000.parquet"
    path.unlink()
    with pytest.raises(ValueError, match=r"part-00000\.parquet cannot be read"):
        list(_loader(split).batches(0))
    with pytest.raises(ValueError, match=r"part-00000\.parquet cannot be read"):
        list(ClickEvalLoader(split, batch_size=100))
    assert all(thread.name != "prefetch" for thread in threading.enumerate())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 501, "num_shards": 1}, r"501 is larger than the 500 rows .* lower batch_size$"),
        ({"fraction": 0.1}, r"60 is larger than the 50 rows that fraction 0\.1 .* or raise fraction"),
        ({"num_shards": 7}, "60 must be a multiple of num_shards 7"),
        ({"num_shards": 0}, "must be a multiple of num_shards 0"),
        ({"num_shards": 2, "world": 3}, "raise num_shards to 3"),
        ({"fraction": 0.0}, r"fraction must lie in \(0, 1\]"),
        ({"fraction": 1.5}, r"fraction must lie in \(0, 1\]"),
        ({"seed": -1}, "seed must not be negative"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"rank": 2, "world": 2}, "rank must lie between 0 and 1"),
        ({"max_rows_per_table": 1}, r"max_rows_per_table must be 0 \(no cap\) or at least 2"),
        ({"max_rows_per_table": -3}, "max_rows_per_table"),
    ],
)
def test_settings_that_cannot_be(train: ClickSplit, changes: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _loader(train, **changes)


def test_positions_that_cannot_be(train: ClickSplit) -> None:
    for position in [(-1, 0), (0, 9), (0, -1)]:
        with pytest.raises(ValueError, match="no such position"):
            _loader(train).batches(*position)
