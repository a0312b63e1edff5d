"""The collectives in one process, and a real run of three ranks against one."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from subshot.train.dist import World, barrier, gather_objects, joined_world, ordered_means, sum_counts

SCRIPT = Path(__file__).with_name("ranks.py")


def test_three_ranks_give_the_bits_of_one(tmp_path, one_process, launched) -> None:
    """Losses, weights, running statistics, step counters, accuracy: a supernet and a plain network, even where a
    rank has no shard."""
    out = tmp_path / "ranks.json"
    done = launched(SCRIPT, out, folder=tmp_path, processes=3, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0, done.stderr
    everyone = json.loads(out.read_text())
    assert [row.pop("rank") for row in everyone] == [0, 1, 2]
    spec = importlib.util.spec_from_file_location("ranks", SCRIPT)
    ranks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(ranks)
    taken = [row.pop("taken") for row in everyone]
    for number, count in enumerate((5, 0, 7)):
        assert sorted(place for theirs in taken for place in theirs[number]) == list(range(count))
    alone = ranks.results(one_process)
    assert alone["examples"] == 28
    for row in everyone:
        assert row.pop("all_reduced") == pytest.approx(ranks.all_reduced(one_process), rel=1e-5)
        assert row == alone


def test_one_process_without_torchrun(monkeypatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    with joined_world() as world:
        assert (world.rank, world.size, world.is_main) == (0, 1, True)
        assert gather_objects({"a": 1}, world) == [{"a": 1}]
        assert sum_counts((2**60, 3), world) == [2**60, 3]
        barrier(world)
    assert not World(1, 2, torch.device("cpu")).is_main


def test_ordered_means_add_in_shard_order(one_process) -> None:
    rows = torch.tensor([[1e8], [1.0], [-1e8], [1.0]])
    total = torch.tensor([0.0])
    for row in rows:
        total = total + row
    shards = [[row] for row in rows]
    assert torch.equal(ordered_means(shards, [rows[0]], 4, one_process)[0], total / 4)
    with pytest.raises(AssertionError):
        ordered_means(shards, [rows[0]], 5, one_process)
