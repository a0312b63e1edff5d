"""Which paths are drawn: how often each operation, and from what."""

from collections import Counter

import pytest

from subshot.supernet import SPACES
from subshot.train.paths import path_at

SPACE = SPACES["mobilenetv2"](32, 10, 0.25, 1)


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("sampling", ["uniform", "fair"])
def test_a_path_is_a_function_of_seed_and_step(name, sampling) -> None:
    space = SPACES[name](32, 10, 0.25, 1)
    steps = range(40)
    forwards = [path_at(space, step, 5, sampling) for step in steps]
    backwards = [path_at(space, step, 5, sampling) for step in reversed(steps)]
    assert forwards == backwards[::-1]
    assert all(space.why_invalid(path) is None for path in forwards)
    assert forwards != [path_at(space, step, 6, sampling) for step in steps]
    assert len(set(forwards)) > len(forwards) // 2


@pytest.mark.parametrize("name", SPACES)
def test_fair_rounds_take_each_operation_once(name) -> None:
    """In each round of K steps, layers with K candidates take each once; smaller ones differ by at most one."""
    space = SPACES[name](32, 10, 0.25, 1)
    period = max(len(decision.choices) for decision in space.decisions)
    for turn in range(10):
        paths = [path_at(space, turn * period + place, 1, "fair") for place in range(period)]
        for column, decision in zip(zip(*paths, strict=True), space.decisions, strict=True):
            counts = [column.count(choice) for choice in range(len(decision.choices))]
            assert sum(counts) == period and max(counts) - min(counts) <= 1


def test_fair_layers_are_not_in_step() -> None:
    """Two layers' operations meet in every combination, not always in the same pairs."""
    paths = [path_at(SPACE, step, 1, "fair") for step in range(7 * 100)]
    assert len({(path[1], path[2]) for path in paths}) == 49


def test_fair_shares_out_what_is_left_over() -> None:
    """A layer of 6 beside layers of 7: over many rounds its operations come equally often, but for chance."""
    counts = Counter(path_at(SPACE, step, 2, "fair")[0] for step in range(7 * 300))
    assert set(counts) == set(range(6)) and max(counts.values()) - min(counts.values()) < 60


def test_uniform_paths_are_roughly_uniform_and_independent() -> None:
    steps = 3000
    paths = [path_at(SPACE, step, 3, "uniform") for step in range(steps)]
    for column, decision in zip(zip(*paths, strict=True), SPACE.decisions, strict=True):
        share = steps / len(decision.choices)
        counts = Counter(column)
        assert all(abs(counts[choice] - share) < 5 * share**0.5 for choice in range(len(decision.choices)))
    pairs = Counter((path[0], path[1]) for path in paths)
    assert len(pairs) == 42 and max(pairs.values()) < 3 * steps / 42
