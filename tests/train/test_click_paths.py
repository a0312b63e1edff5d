"""Which paths a warm-up trains."""

from __future__ import annotations

import pytest

from subshot.supernet.nasrec import nasrec_full
from subshot.train.click_paths import PathSampling, click_path_at

SPACE = nasrec_full(3, 5, 4)


def test_a_path_is_a_function_of_seed_and_step() -> None:
    sampling = PathSampling(10)
    first = [click_path_at(SPACE, step, 0, sampling) for step in range(30)]
    assert first == [click_path_at(SPACE, step, 0, sampling) for step in range(30)]
    assert first != [click_path_at(SPACE, step, 1, sampling) for step in range(30)]


def test_full_paths_come_first_and_then_no_more() -> None:
    sampling = PathSampling(400)
    full = [click_path_at(SPACE, step, 0, sampling) == SPACE.full_spec() for step in range(800)]
    assert full[0]
    assert not any(full[400:])
    # of steps 0..399 a share of 1 - step / 400 each: 200.5 expected, deviation 8.2
    assert sum(full) == pytest.approx(200.5, abs=33)
    assert sum(full[:100]) > sum(full[300:400])
    assert not any(click_path_at(SPACE, step, 0, PathSampling(0)) == SPACE.full_spec() for step in range(50))


def test_a_fixed_number_of_steps_hardly_leaves_the_full_path() -> None:
    """What the public code does in its 1 % warm-up: 716 steps, and full paths until step 15,000."""
    sampling = PathSampling(15_000)
    assert sampling.full_path_probability(715) > 0.952
