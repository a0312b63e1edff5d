"""Schedules by hand, and what a recipe refuses."""

import math

import pytest
import torch
from torch import nn

from subshot.train.recipe import Recipe, learning_rate_at, make_optimizer


def test_linear_falls_to_zero_in_equal_steps() -> None:
    recipe = Recipe(epochs=2, learning_rate=0.5)
    rates = [learning_rate_at(recipe, step, 5) for step in range(10)]
    assert rates == pytest.approx([0.5 * (10 - step) / 10 for step in range(10)])


def test_cosine_with_warmup() -> None:
    recipe = Recipe(epochs=3, learning_rate=1.0, schedule="cosine", warmup_epochs=1.0)
    rates = [learning_rate_at(recipe, step, 4) for step in range(12)]
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert rates[4:] == pytest.approx([(1 + math.cos(math.pi * k / 8)) / 2 for k in range(8)])
    assert min(rates) > 0


def test_a_shorter_run_rescales_the_decay() -> None:
    long, short = Recipe(epochs=10, learning_rate=0.3), Recipe(epochs=5, learning_rate=0.3)
    for step in range(50):
        assert learning_rate_at(short, step, 10) == pytest.approx(learning_rate_at(long, 2 * step, 10))


@pytest.mark.parametrize(
    "wrong", [{"epochs": -1}, {"ema_decay": 1.0}, {"ema_decay": -0.1}, {"learning_rate": 0.0}, {"learning_rate": -1.0}]
)
def test_a_wrong_recipe_names_its_field(wrong) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Recipe(**({"epochs": 1, "learning_rate": 0.1} | wrong))


def test_optimisers() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    parameters = list(model.parameters())
    sgd = make_optimizer(model, parameters, Recipe(epochs=1, learning_rate=0.1, momentum=0.8))
    adam = make_optimizer(model, parameters, Recipe(epochs=1, learning_rate=0.1, optimizer="adam"))
    assert isinstance(sgd, torch.optim.SGD) and sgd.defaults["momentum"] == 0.8
    assert isinstance(adam, torch.optim.Adam) and adam.defaults["betas"] == (0.9, 0.999)
    assert {group["lr"] for group in (*sgd.param_groups, *adam.param_groups)} == {0.1}
