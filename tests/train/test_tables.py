"""Embedding tables against torch's own Adagrad and slow loops, and two ranks against one process."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from subshot.train.tables import (
    TablesConfig,
    build_tables,
    gradient_square_norm,
    in_shard_order,
    initial_weight,
    tables_mib,
)

SCRIPT = Path(__file__).with_name("table_ranks.py")
_spec = importlib.util.spec_from_file_location("table_ranks", SCRIPT)
ranks = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(ranks)
FIELDS, NAMES, CONFIGS, ALONE = ranks.FIELDS, ranks.NAMES, ranks.CONFIGS, ranks.ALONE


def equal(first, second) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def largest_difference(first, second) -> float:
    """Absolute, and relative to values above 1: accumulators grow."""
    assert first.keys() == second.keys()
    return max(float(((first[name] - second[name]).abs() / second[name].abs().clamp(min=1)).max()) for name in first)


@pytest.fixture(params=CONFIGS)
def config(request) -> TablesConfig:
    return CONFIGS[request.param]


def plain_embeddings(state, dim):
    """torch's own dense tables with the same weights, and a lookup in them."""
    bags = [nn.Embedding(rows, dim) for _, rows in FIELDS]
    for bag, name in zip(bags, NAMES, strict=True):
        bag.weight.data.copy_(state[f"{name}.weight"])

    def lookup(batch):
        ids = batch.sparse.values().view(len(FIELDS), -1)
        return torch.stack([bag(column) for bag, column in zip(bags, ids, strict=True)], dim=1)

    return [bag.weight for bag in bags], lookup


@pytest.mark.parametrize("name", ["adagrad", "adagrad_dense", "padded"])
def test_adagrad_is_that_of_torch(name) -> None:
    """20 steps with ids that occur several times, at a rate that changes."""
    config = CONFIGS[name]
    tables = build_tables(FIELDS, config, 0, ALONE)
    weights, lookup = plain_embeddings(tables.state(), config.embedding_dim)
    optimizer = torch.optim.Adagrad(weights, lr=0.0, eps=config.eps)
    for step in range(20):
        batch, gradient = ranks.step_at(step, config.embedding_dim, ALONE)
        rate = 0.12 * (1 - step / 40)
        tables.set_learning_rate(rate)
        optimizer.param_groups[0]["lr"] = rate
        pooled, reference = tables(batch), lookup(batch)
        assert torch.allclose(pooled, reference, rtol=0, atol=1e-6)
        pooled.backward(gradient)
        optimizer.zero_grad()
        reference.backward(gradient)
        optimizer.step()
    state = tables.state()
    for field, weight in zip(NAMES, weights, strict=True):
        assert torch.allclose(state[f"{field}.weight"], weight, rtol=0, atol=1e-6)
        assert torch.allclose(state[f"{field}.accumulator"], optimizer.state[weight]["sum"], rtol=1e-6, atol=1e-6)


def test_rowwise_adagrad_is_that_of_a_loop() -> None:
    """An accumulator a row: the mean over columns of the squared gradient, which is the sum over equal ids."""
    config = CONFIGS["rowwise_adagrad"]
    tables = build_tables(FIELDS, config, 0, ALONE)
    expected = {name: value.double() for name, value in tables.state().items()}
    tables.set_learning_rate(0.1)
    for step in range(8):
        batch, gradient = ranks.step_at(step, config.embedding_dim, ALONE)
        tables(batch).backward(gradient)
        ids = batch.sparse.values().view(len(FIELDS), -1)
        for field, name in enumerate(NAMES):
            for row in set(ids[field].tolist()):
                total = gradient[:, field][ids[field] == row].double().sum(0)
                expected[f"{name}.accumulator"][row] += total.square().mean()
                root = expected[f"{name}.accumulator"][row].sqrt()
                expected[f"{name}.weight"][row] -= 0.1 * total / (root + config.eps)
    assert largest_difference(tables.state(), expected) < 1e-6


def test_tables_are_a_function_of_seed_and_field(config) -> None:
    state = build_tables(FIELDS, config, 5, ALONE).state()
    assert list(state) == [f"{name}.{part}" for name in NAMES for part in ("weight", "accumulator")]
    for name, rows in FIELDS:
        weight = state[f"{name}.weight"]
        assert torch.equal(weight, initial_weight(name, rows, config, 5))
        assert not state[f"{name}.accumulator"].any()
    other = build_tables(FIELDS[::-1], config, 5, ALONE).state()
    assert equal({name: other[name] for name in state}, state)
    narrow = TablesConfig(embedding_dim=4)
    assert not torch.equal(initial_weight("C1", 9, narrow, 5), initial_weight("C1", 9, narrow, 6))
    assert not torch.equal(initial_weight("C1", 9, narrow, 5), initial_weight("C2", 9, narrow, 5))
    small = initial_weight("C1", 50_000, TablesConfig(initial="small"), 0)
    assert abs(float(small.std()) / 0.01 - 1) < 0.01
    large = initial_weight("C1", 50_000, TablesConfig(), 0)
    assert abs(float(large.std()) / (2 / 50_016) ** 0.5 - 1) < 0.01 and abs(float(large.mean())) < 1e-4


def test_looking_changes_nothing_and_backward_does(config) -> None:
    """Backward of a fused table is its update: scoring must detach, as here, or a supernet's tables are spoilt."""
    tables = build_tables(FIELDS, config, 0, ALONE)
    tables.set_learning_rate(0.1)
    batch, gradient = ranks.step_at(0, config.embedding_dim, ALONE)
    before = tables.state()
    with torch.no_grad():
        frozen = tables(batch)
        assert not frozen.requires_grad
    leaf = tables(batch).detach().requires_grad_()
    assert torch.equal(leaf, frozen)
    for _ in range(3):
        (leaf**2).sum().backward()
    assert leaf.grad.abs().sum() > 0
    assert equal(tables.state(), before)
    (tables(batch) ** 2).sum().backward()
    after = tables.state()
    ids = batch.sparse.values().view(len(FIELDS), -1)
    for field, name in enumerate(NAMES):
        changed = (after[f"{name}.weight"] != before[f"{name}.weight"]).any(dim=1)
        assert changed.nonzero().flatten().tolist() == ids[field].unique().tolist()


def test_the_learning_rate_arrives(config) -> None:
    """0 until it is set, and what was set last from then on."""
    tables = build_tables(FIELDS, config, 0, ALONE)
    batch, gradient = ranks.step_at(0, config.embedding_dim, ALONE)
    moved = []
    for rate in (None, 0.1, 0.01, 0.0):
        if rate is not None:
            tables.set_learning_rate(rate)
        before = tables.weights()
        accumulators = {name: value for name, value in tables.state().items() if name.endswith("accumulator")}
        tables.load_state(before)  # without accumulators: they start again from 0
        assert any(value.any() for value in accumulators.values()) == (rate is not None)
        assert not any(tables.state()[name].any() for name in accumulators)
        tables(batch).backward(gradient)
        moved.append(largest_difference(tables.weights(), before))
    assert moved[0] == moved[3] == 0
    assert moved[1] == pytest.approx(10 * moved[2], rel=1e-4) and moved[1] > 0.05


@pytest.mark.parametrize("name", ["adagrad", "padded"])
@pytest.mark.parametrize("clip_norm", [0.5, 1e6])
def test_clipping_is_that_of_torch_on_dense_tables(name, clip_norm) -> None:
    """One norm over a network and the tables: scaling the pooled gradient does what clip_grad_norm_ does."""
    config = CONFIGS[name]
    tables = build_tables(FIELDS, config, 0, ALONE)
    tables.set_learning_rate(0.1)
    weights, lookup = plain_embeddings(tables.state(), config.embedding_dim)
    batch, _ = ranks.step_at(0, config.embedding_dim, ALONE)
    torch.manual_seed(0)
    network = nn.Linear(len(FIELDS) * config.embedding_dim, 3)
    (network(lookup(batch).flatten(1)) ** 2).sum().backward()
    wanted = nn.utils.clip_grad_norm_([*network.parameters(), *weights], clip_norm)
    wanted_network = [parameter.grad.clone() for parameter in network.parameters()]
    torch.optim.Adagrad(weights, lr=0.1, eps=config.eps).step()

    network.zero_grad()
    pooled = tables(batch)
    leaf = pooled.detach().requires_grad_()
    (network(leaf.flatten(1)) ** 2).sum().backward()
    own = sum(float(parameter.grad.square().sum()) for parameter in network.parameters())
    norm = (own + tables.gradient_square_norm(batch, leaf.grad)) ** 0.5
    assert norm == pytest.approx(float(wanted), rel=1e-6)
    scale = min(1.0, clip_norm / (norm + 1e-6))
    pooled.backward(leaf.grad * scale)
    for parameter, gradient in zip(network.parameters(), wanted_network, strict=True):
        assert torch.allclose(parameter.grad * scale, gradient, rtol=1e-5)
    for field, weight in zip(NAMES, weights, strict=True):
        assert torch.allclose(tables.state()[f"{field}.weight"], weight, rtol=0, atol=1e-6)


def test_square_norm_adds_equal_ids_up_first() -> None:
    ids = torch.tensor([[0, 1, 1], [1, 1, 1]])
    gradient = torch.tensor([[[1.0], [1.0]], [[2.0], [-1.0]], [[3.0], [0.5]]])
    assert gradient_square_norm(ids, gradient, torch.tensor([2, 2])) == 1 + 5**2 + 0.5**2


def test_a_state_loads_into_every_kernel() -> None:
    """adagrad and adagrad_dense are the same tables; a state's tensors are copies."""
    fused = build_tables(FIELDS, CONFIGS["adagrad"], 0, ALONE)
    ranks.train(fused, ALONE, range(3))
    state = fused.state()
    dense = build_tables(FIELDS, CONFIGS["adagrad_dense"], 1, ALONE)
    dense.load_state(state)
    assert equal(dense.state(), state)
    assert equal(dense.weights(), {name: value for name, value in state.items() if name.endswith(".weight")})
    ranks.train(fused, ALONE, range(3, 6))
    assert largest_difference(dense.state(), state) == 0
    ranks.train(dense, ALONE, range(3, 6))
    assert largest_difference(fused.state(), dense.state()) < 1e-6
    assert largest_difference(fused.state(), state) > 0.01


def test_a_state_of_other_tables_is_refused_whole() -> None:
    tables = build_tables(FIELDS, CONFIGS["adagrad"], 0, ALONE)
    before = tables.state()
    other = build_tables(FIELDS, CONFIGS["adagrad"], 1, ALONE).state()
    missing = {name: value for name, value in other.items() if name != "C3.weight"}
    with pytest.raises(ValueError, match=r"'C3\.weight' is in one of the two only"):
        tables.load_state(missing)
    with pytest.raises(ValueError, match=r"'C5\.weight' is \[4, 8\] in the state and \[11, 8\] here"):
        tables.load_state(other | {"C5.weight": torch.zeros(4, 8)})
    with pytest.raises(ValueError, match=r"'C1\.accumulator' is \[40\] in the state"):
        tables.load_state(build_tables(FIELDS, CONFIGS["rowwise_adagrad"], 1, ALONE).state())
    assert equal(tables.state(), before)


def test_rows_are_capped_and_wrong_ids_refused(config) -> None:
    """By default fbgemm reads row 0 for an id that is too large, and a warning is all one gets."""
    tables = build_tables(FIELDS, replace(config, max_rows=8), 0, ALONE)
    rows = {name: len(weight) for name, weight in tables.weights().items()}
    assert rows == {f"{name}.weight": min(count, 8) for name, count in FIELDS}
    ids = torch.zeros(len(FIELDS), 4, dtype=torch.int64)
    tables(ranks.make_batch(ids))
    for wrong in (8, -1, 2**33):
        ids[2, 3] = wrong
        with pytest.raises(ValueError, match=f"field C3 has the id {wrong} and its table only 8 rows"):
            tables(ranks.make_batch(ids))
    renamed = build_tables([("X", 40), *FIELDS[1:]], config, 0, ALONE)
    with pytest.raises(ValueError, match="the batch has the categorical fields"):
        renamed(ranks.make_batch(ids))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"embedding_dim": 0}, "embedding_dim must be at least 1"),
        ({"max_rows": 1}, "max_rows 0"),
        ({"optimizer": "rowwise_adagrad", "embedding_dim": 17}, "multiple of 4, not 17"),
        ({"optimizer": "adagrad_dense", "sharding": "dmp"}, "fused kernels alone"),
    ],
)
def test_impossible_settings_are_refused(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        TablesConfig(**settings)


@pytest.mark.parametrize("fields", [[], [("C1", 3), ("C1", 4)], [("C1", 0)]])
def test_impossible_fields_are_refused(fields) -> None:
    with pytest.raises(ValueError, match=r"of different names|at least one row"):
        build_tables(fields, TablesConfig(), 0, ALONE)


def test_memory_is_what_is_allocated(config) -> None:
    tables = build_tables(FIELDS, config, 0, ALONE)
    held = [tensor for table in tables._storage.tensors().values() for tensor in (table.weight, table.accumulator)]
    numbers = sum(tensor.numel() for tensor in held)
    if config.optimizer == "adagrad_dense":
        numbers += sum(table.weight.numel() for table in tables._storage.tensors().values())
    assert tables_mib(FIELDS, config) == numbers * 4 / 2**20
    full = [(f"C{i}", 10**9) for i in range(26)]
    assert tables_mib(full, TablesConfig(max_rows=500_000)) == pytest.approx(1586.9, abs=0.1)


def test_shards_of_all_ranks_come_in_order() -> None:
    shards = [torch.tensor([10 * shard, 10 * shard + 1]) for shard in range(5)]
    for world in (1, 2, 3, 5, 7):
        parts = [torch.cat([torch.empty(0), *shards[rank::world]]) for rank in range(world)]
        assert torch.equal(in_shard_order(parts, 2), torch.cat(shards))
    assert in_shard_order([shards[0], shards[1]], 0).tolist() == [0, 1, 10, 11]


def test_two_ranks_are_one_process(tmp_path, launched) -> None:
    """Same tables from the seed, after training, from a state of one process and on from there; sharding none to the
    bit."""
    alone = {}
    for name, config in CONFIGS.items():
        tables = build_tables(FIELDS, config, 3, ALONE)
        alone[f"{name}-start"] = tables.state()
        ranks.train(tables, ALONE, range(ranks.STEPS // 2))
        alone[f"{name}-half"] = alone[f"{name}-loaded"] = tables.state()
        torch.save(alone[f"{name}-half"], tmp_path / f"{name}-half-of-one.pt")
        ranks.train(tables, ALONE, range(ranks.STEPS // 2, ranks.STEPS))
        alone[f"{name}-whole"] = alone[f"{name}-resumed"] = tables.state()
        ranks.train(tables, ALONE, range(1), shards=1)
        alone[f"{name}-few"] = tables.state()
        for step in range(4):
            ranks.path_step(tables, ALONE, step)
        alone[f"{name}-paths"] = tables.state()
    done = launched(SCRIPT, tmp_path, folder=tmp_path, processes=2, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0, done.stderr

    def of_ranks(name):
        return [torch.load(tmp_path / f"{name}-of-rank-{rank}.pt", weights_only=True) for rank in (0, 1)]

    for name, config in CONFIGS.items():
        for sharding in ("none", "dmp") if name != "adagrad_dense" else ("none",):
            for moment in ("start", "half", "whole", "loaded", "resumed", "few", "paths"):
                first, second = of_ranks(f"{name}-{sharding}-{moment}")
                assert equal(first, second)
                exact = sharding == "none" or moment in ("start", "loaded")
                assert largest_difference(first, alone[f"{name}-{moment}"]) <= (0 if exact else 1e-6), (name, moment)
            batch, gradient = ranks.step_at(0, config.embedding_dim, ALONE)
            tables = build_tables(FIELDS, config, 3, ALONE)
            norm = tables.gradient_square_norm(batch, gradient)
            shards = tables(batch).detach().split(ranks.SHARD_SIZE)
            for rank, measured in enumerate(of_ranks(f"{name}-{sharding}-measured")):
                assert float(measured["norm"]) == pytest.approx(norm, rel=1e-6)
                assert torch.equal(measured["looked_up"], torch.cat(shards[rank::2]))
    # The other way: a state of two ranks goes on in one process.
    for name in ("adagrad", "rowwise_adagrad"):
        tables = build_tables(FIELDS, CONFIGS[name], 99, ALONE)
        tables.load_state(of_ranks(f"{name}-dmp-half")[1])
        ranks.train(tables, ALONE, range(ranks.STEPS // 2, ranks.STEPS))
        assert largest_difference(tables.state(), alone[f"{name}-whole"]) < 1e-6
