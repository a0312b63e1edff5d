"""Calibration, errors and interpolation on latencies whose law is known."""

from __future__ import annotations

import numpy as np
import pytest

from subshot.launch.latency_tables.fit import Line, calibrated, coarse, fitted_line, interpolated, judged, percent
from subshot.supernet.space import Additive

RNG = np.random.default_rng(0)
HALF = np.arange(20) % 2 == 0


def test_a_line_is_found_again() -> None:
    x = RNG.uniform(1.0, 5.0, 20)
    line = fitted_line(x, 0.5 + 1.5 * x)
    assert (line.base, line.factor) == pytest.approx((0.5, 1.5))


def test_no_line_predicts_less_than_nothing() -> None:
    """Least squares would put the base at -2; the table may not have it."""
    x = RNG.uniform(2.0, 5.0, 20)
    line = fitted_line(x, 2.0 * x - 2.0)
    assert line.base == 0.0 and 1.0 < line.factor < 2.0


def test_each_error_is_told_from_the_half_that_was_not_fitted() -> None:
    """True latency 0.3 + 1.2 sum + noise on the second half alone; MACs say something else."""
    sums, macs = RNG.uniform(1.0, 5.0, 20), RNG.uniform(1e6, 5e6, 20)
    ms = 0.3 + 1.2 * sums
    ms[~HALF] *= 1.1
    line, errors = judged(0.3, sums, macs, ms, HALF)
    assert (line.base, line.factor) == pytest.approx((0.3, 1.2))
    assert errors.calibrated_percent == pytest.approx(100 * (1 - 1 / 1.1))
    assert errors.sum_percent == pytest.approx(percent(0.3 + sums[~HALF], ms[~HALF]))
    assert errors.sum_tau > 0.8 > abs(errors.macs_tau) and errors.macs_percent > errors.sum_percent


def test_the_calibrated_table_adds_up_to_the_line() -> None:
    table = Additive(7.0, ((1.0, 2.0), (0.0, 4.0)))
    assert calibrated(table, Line(0.5, 1.5))((1, 1)) == pytest.approx(0.5 + 1.5 * 6.0)


def test_percent_is_of_the_measured() -> None:
    assert percent(np.array([1.1, 1.8]), np.array([1.0, 2.0])) == pytest.approx(10.0)


def test_what_was_measured_as_nothing_has_no_percentage() -> None:
    assert percent(np.array([1.1, 0.5]), np.array([1.0, 0.0])) == pytest.approx(10.0)
    assert percent(np.array([0.5]), np.array([0.0])) == 0.0


@pytest.mark.filterwarnings("error")
def test_operations_without_macs_are_interpolated() -> None:
    assert interpolated(0.0, [(0.0, 0.3), (0.0, 0.3)]) == pytest.approx(0.3)
    assert interpolated(0.0, [(0.0, 0.3), (1e4, 2.0)]) == pytest.approx(0.3)
    assert 0.3 < interpolated(100.0, [(0.0, 0.3), (1e4, 2.0)]) < 2.0


def test_interpolation_is_exact_for_a_power_law_and_keeps_to_the_measured() -> None:
    known = [(macs, 0.01 * macs**0.7) for macs in (100.0, 1e4, 1e6)]
    assert interpolated(1e3, known) == pytest.approx(0.01 * 1e3**0.7)
    assert interpolated(1e4, known[::-1]) == pytest.approx(known[1][1])
    assert interpolated(1e9, known) == pytest.approx(known[2][1])  # nothing beyond the last


@pytest.mark.parametrize(
    ("count", "every", "wanted"), [(0, 2, []), (1, 3, [0]), (4, 1, [0, 1, 2, 3]), (6, 2, [0, 2, 4, 5]), (7, 9, [0, 6])]
)
def test_a_coarse_table_measures_the_ends_and_some_between(count: int, every: int, wanted: list[int]) -> None:
    assert coarse(count, every) == wanted
