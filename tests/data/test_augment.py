"""The random draws: reproducible, within their limits, and distributed as they say."""

import dataclasses

import numpy as np
import pytest

from subshot.data.augment import DIGITS, IMAGENET, NONE, SMALL_PHOTO, Augmentation, Window, draw, epoch_order


def test_draws_depend_on_seed_epoch_and_index_alone() -> None:
    augmentation = dataclasses.replace(IMAGENET, random_operations=2)
    base = draw(augmentation, 224, 375, 500, 1, 2, 3)
    assert draw(augmentation, 224, 375, 500, 1, 2, 3) == base
    others = {draw(augmentation, 224, 375, 500, *key) for key in [(0, 2, 3), (1, 3, 3), (1, 2, 4), (2, 1, 3)]}
    assert len(others) == 4
    assert base not in others


def test_epoch_orders_are_permutations_that_differ() -> None:
    orders = [epoch_order(seed, epoch, 100) for seed, epoch in [(0, 0), (0, 1), (1, 0)]]
    for order in orders:
        assert sorted(order.tolist()) == list(range(100))
    assert len({tuple(order.tolist()) for order in orders}) == 3
    np.testing.assert_array_equal(orders[0], epoch_order(0, 0, 100))


def test_random_resized_windows_have_the_area_and_ratio_they_should() -> None:
    height, width = 450, 600
    windows = [draw(IMAGENET, 224, height, width, 0, 0, index).window for index in range(4000)]
    for window in windows:
        assert 0 <= window.top <= height - window.height
        assert 0 <= window.left <= width - window.width
    areas = np.array([window.height * window.width / (height * width) for window in windows])
    ratios = np.log([window.width / window.height for window in windows])
    assert 0.079 < areas.min() < 0.09
    assert areas.max() > 0.9
    assert abs(np.median(ratios[areas < 0.4])) < 0.03
    assert abs(np.abs(ratios).max() - np.log(4 / 3)) < 0.02
    # Tries that do not fit are drawn again, which costs large areas; small windows always fit, so there it is uniform.
    assert np.mean(areas < 0.28) / np.mean(areas < 0.48) == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize(("height", "width"), [(10, 1000), (1000, 10)])
def test_a_window_that_never_fits_falls_back_to_the_centre(height: int, width: int) -> None:
    whole = dataclasses.replace(IMAGENET, area=(1.0, 1.0))
    window = draw(whole, 224, height, width, 0, 0, 0).window
    tall, wide = (10, 13) if height < width else (13, 10)
    assert window == Window((height - tall) // 2, (width - wide) // 2, tall, wide)


def test_shift_moves_the_central_square_by_up_to_the_pad() -> None:
    windows = [draw(SMALL_PHOTO, 32, 32, 32, 0, 0, index).window for index in range(1000)]
    assert {window.top for window in windows} == set(range(-4, 5)) == {window.left for window in windows}
    assert {(window.height, window.width) for window in windows} == {(32, 32)}
    assert draw(NONE, 32, 64, 100, 0, 0, 0).window == Window(0, 18, 64, 64)


def test_flip_and_colour_follow_the_settings() -> None:
    draws = [draw(IMAGENET, 224, 100, 100, 0, 0, index) for index in range(2000)]
    assert np.mean([sample.flip for sample in draws]) == pytest.approx(0.5, abs=0.04)
    colours = np.array([sample.colour for sample in draws])
    assert (colours.min(0) >= 0.6).all()
    assert (colours.max(0) <= 1.4).all()
    np.testing.assert_allclose(colours.mean(0), 1.0, atol=0.02)
    np.testing.assert_allclose(np.corrcoef(colours.T), np.eye(3), atol=0.08)
    for index in range(200):
        sample = draw(DIGITS, 32, 32, 32, 0, 0, index)
        assert not sample.flip
        assert sample.colour == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    "wrong",
    [{"crop": "random"}, {"area": (0.5, 0.1)}, {"area": (0.0, 1.0)}, {"ratio": (2.0, 1.0)}, {"pad": -1},
     {"contrast": -0.1}, {"random_magnitude": 31}],
)  # fmt: skip
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}"):
        Augmentation(**wrong)  # type: ignore[arg-type]
