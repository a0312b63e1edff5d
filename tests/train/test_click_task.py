"""Tables in front of a network: when they learn, and what the loop's clip sees of them."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from subshot.data.batch import ClickBatch
from subshot.data.keyed_ids import keyed_ids
from subshot.train.click_task import click_task, joined
from subshot.train.dist import World
from subshot.train.fit import train_step
from subshot.train.recipe import Recipe, make_optimizer
from subshot.train.tables import Tables, TablesConfig, build_tables

FIELDS = [("a", 5), ("b", 40)]
ALONE = World(0, 1, torch.device("cpu"))


class Wide(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3 + 2 * 4, 1)

    def forward(self, inputs: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        dense, embedded = inputs
        logits: torch.Tensor = self.layer(torch.cat((dense, embedded.flatten(1)), dim=1))[:, 0]
        return logits


def batch(rows: int, seed: int) -> ClickBatch:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.stack([torch.randint(0, count, (rows,), generator=generator) for _, count in FIELDS])
    labels = torch.randint(0, 2, (rows,), generator=generator).float()
    return ClickBatch(torch.randn(rows, 3, generator=generator), keyed_ids(["a", "b"], ids), labels)


def tables(optimizer: str = "adagrad") -> Tables:
    return build_tables(FIELDS, TablesConfig(embedding_dim=4, optimizer=optimizer), 0, ALONE)


def test_joined_keeps_rows_and_fields() -> None:
    first, second = batch(3, 0), batch(2, 1)
    both = joined([first, second])
    assert len(both) == 5
    assert torch.equal(both.dense, torch.cat((first.dense, second.dense)))
    found = tables()(both)
    assert torch.equal(found, torch.cat((tables()(first), tables()(second))))
    assert joined([first]) is first


@pytest.mark.parametrize("clip", [0.0, 0.01])
@pytest.mark.parametrize("shards", [1, 2])
def test_a_step_is_torchs_on_network_and_dense_tables(clip: float, shards: int) -> None:
    """One Adagrad over everything, with torch's own global clip: what the fused path must equal."""
    torch.manual_seed(0)
    network, twin = Wide(), Wide()
    twin.load_state_dict(network.state_dict())
    ours = tables()
    start = ours.weights()
    theirs = nn.ParameterList([nn.Parameter(start[f"{name}.weight"].clone()) for name, _ in FIELDS])
    recipe = Recipe(1, 0.1, optimizer="adagrad", weight_decay=0.0, clip_norm=clip)
    optimizer = make_optimizer(network, list(network.parameters()), recipe)
    whole = torch.optim.Adagrad([*twin.parameters(), *theirs], lr=0.1, eps=recipe.eps)
    for step in range(5):
        parts = [batch(6, 10 * step + shard) for shard in range(shards)]
        train_step(network, optimizer, list(enumerate(parts)), recipe, click_task(ours), ALONE, shards)
        both = joined(parts)
        ids = both.sparse.values().view(2, -1)
        embedded = torch.stack([table[row] for table, row in zip(theirs, ids, strict=True)], dim=1)
        loss = F.binary_cross_entropy_with_logits(twin((both.dense, embedded)), both.labels)
        whole.zero_grad()
        loss.backward()
        if clip:
            nn.utils.clip_grad_norm_([*twin.parameters(), *theirs], clip)
        whole.step()
    torch.testing.assert_close(network.layer.weight, twin.layer.weight, rtol=1e-5, atol=1e-6)
    for (name, _), table in zip(FIELDS, theirs, strict=True):
        torch.testing.assert_close(ours.weights()[f"{name}.weight"], table.detach(), rtol=1e-5, atol=1e-6)


def test_a_backward_pass_without_a_step_leaves_the_tables() -> None:
    held = tables()
    before = held.state()
    task = click_task(held)
    network = Wide()
    part = batch(6, 0)
    task.loss(network(task.inputs(part)), part).backward()
    inputs, leaves = task.front.open([part], 0.1)
    task.loss(network(inputs[0]), part).backward()
    assert leaves[0].grad is not None
    assert all(torch.equal(value, before[name]) for name, value in held.state().items())


def test_counts() -> None:
    task = click_task(tables())
    part = batch(4, 0)
    logits = torch.tensor([1.0, -1.0, 1.0, -1.0])
    right = sum(int((logit > 0) == (label > 0.5)) for logit, label in zip(logits, part.labels, strict=True))
    assert int(task.correct(logits, part)) == right
    assert task.size(part) == 4
