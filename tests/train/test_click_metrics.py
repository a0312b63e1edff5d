"""Every figure against a slow loop, every interval against resampled rows, and what is refused."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc

from subshot.train.click_metrics import (
    ClickMetrics,
    Estimate,
    click_metrics,
    log_loss,
    over_seeds,
    paired_difference,
    paired_over_seeds,
)


def split(n: int, seed: int = 0, sharpness: float = 1.0, decimals: int = 1) -> tuple[Tensor, Tensor]:
    """Rounded logits, so that there are many ties; clicks at the logits' own rate where `sharpness` is 1."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, generator=generator).round(decimals=decimals) - 1.0
    clicks = torch.rand(n, generator=generator) < torch.sigmoid(sharpness * logits)
    return logits, clicks.float()


def auc_of_pairs(logits: Tensor, labels: Tensor) -> float:
    hits, misses = logits[labels == 1].tolist(), logits[labels == 0].tolist()
    return sum((a > b) + 0.5 * (a == b) for a in hits for b in misses) / (len(hits) * len(misses))


def loss_of_rows(logits: Tensor, labels: Tensor) -> list[float]:
    pairs = zip(logits.tolist(), labels.tolist(), strict=True)
    return [-math.log(1 / (1 + math.exp(-x if y else x))) for x, y in pairs]


def test_every_figure_in_loops() -> None:
    logits, labels = split(400, sharpness=2.0)
    found, n = click_metrics(logits, labels), 400
    probabilities = [1 / (1 + math.exp(-x)) for x in logits.tolist()]
    clicks = labels.tolist()
    rate = sum(clicks) / n
    loss = sum(loss_of_rows(logits, labels)) / n
    entropy = -(rate * math.log(rate) + (1 - rate) * math.log(1 - rate))
    assert (found.n, found.base_rate) == (n, rate)
    assert found.log_loss.value == pytest.approx(loss, rel=1e-12)
    assert found.log_loss.value == pytest.approx(
        torch.nn.functional.binary_cross_entropy_with_logits(logits.double(), labels.double()).item(), rel=1e-12
    )
    assert found.auc.value == auc_of_pairs(logits, labels)
    assert found.auc.value == pytest.approx(float(binary_auroc(logits, labels.long())), abs=1e-6)
    assert found.normalised_entropy.value == pytest.approx(loss / entropy, rel=1e-12)
    assert found.calibration_ratio.value == pytest.approx(sum(probabilities) / sum(clicks), rel=1e-12)
    order = sorted(logits.tolist())
    bins: dict[int, list[tuple[float, float]]] = {}
    for x, p, y in zip(logits.tolist(), probabilities, clicks, strict=True):
        before, equal = sum(other < x for other in order), order.count(x)
        bins.setdefault(math.floor((before + equal / 2) / n * 15), []).append((p, y))
    assert len(bins) > 10
    ece = sum(abs(sum(y - p for p, y in rows)) for rows in bins.values()) / n
    noise = sum(math.sqrt(2 / math.pi * sum(p * (1 - p) for p, _ in rows)) for rows in bins.values()) / n
    assert found.ece.value == pytest.approx(ece, rel=1e-9)
    assert found.ece_if_calibrated == pytest.approx(noise, rel=1e-9)


FIGURES: dict[str, Callable[[ClickMetrics], Estimate]] = {
    "log loss": lambda metrics: metrics.log_loss,
    "auc": lambda metrics: metrics.auc,
    "normalised entropy": lambda metrics: metrics.normalised_entropy,
    "calibration ratio": lambda metrics: metrics.calibration_ratio,
}


def test_intervals_are_those_of_resampled_rows() -> None:
    logits, labels = split(1500, sharpness=1.3)
    metrics, rng = click_metrics(logits, labels), np.random.default_rng(1)
    resampled: dict[str, list[float]] = {name: [] for name in FIGURES}
    for _ in range(400):
        rows = torch.from_numpy(rng.integers(1500, size=1500))
        again = click_metrics(logits[rows], labels[rows])
        for name, figure in FIGURES.items():
            resampled[name].append(figure(again).value)
    for name, figure in FIGURES.items():
        estimate = figure(metrics)
        deviation = float(np.std(resampled[name], ddof=1))
        assert estimate.high - estimate.value == pytest.approx(1.96 * deviation, rel=0.12), name
        assert estimate.value - estimate.low == pytest.approx(1.96 * deviation, rel=0.12), name


def test_intervals_cover_the_truth() -> None:
    """Of predictions that are right by construction, ratio 1; of twice too sharp ones, the ECE of a million rows."""
    truth = click_metrics(*split(1_000_000, seed=99, sharpness=0.5, decimals=6)).ece.value
    covered = {"ratio": 0, "ece": 0}
    for seed in range(200):
        covered["ratio"] += is_in(1.0, click_metrics(*split(800, seed)).calibration_ratio)
        covered["ece"] += is_in(truth, click_metrics(*split(800, seed, sharpness=0.5, decimals=6)).ece)
    assert 180 <= covered["ratio"] <= 198 and 180 <= covered["ece"] <= 199, covered


def is_in(value: float, estimate: Estimate) -> bool:
    return estimate.low <= value <= estimate.high


def test_the_error_of_right_predictions_is_what_chance_gives() -> None:
    found = [click_metrics(*split(600, seed, decimals=5)) for seed in range(60)]
    values, expected = ([f.ece.value for f in found], [f.ece_if_calibrated for f in found])
    assert np.mean(values) == pytest.approx(np.mean(expected), rel=0.08)


def test_equal_predictions_have_one_bin() -> None:
    """Else the order within ties, which is by label, would look like a calibration error."""
    labels = (torch.arange(1000) % 4 == 0).float()
    metrics = click_metrics(torch.full((1000,), math.log(1 / 3)), labels)
    assert metrics.ece.value == pytest.approx(0.0, abs=1e-7)
    assert metrics.auc == Estimate(0.5, 0.5, 0.5)
    assert metrics.normalised_entropy.value == pytest.approx(1.0, rel=1e-9)
    assert metrics.calibration_ratio.value == pytest.approx(1.0, rel=1e-7)


def test_a_perfect_ranking_and_huge_logits() -> None:
    metrics = click_metrics(torch.tensor([-1e4, -800.0, 90.0, 1e4]), torch.tensor([0.0, 0, 1, 1]))
    assert metrics.auc == Estimate(1.0, 1.0, 1.0)
    assert 0 < metrics.log_loss.value < 1e-39
    wrong = click_metrics(torch.tensor([1e4, 800.0, -90.0, -1e4]), torch.tensor([0.0, 0, 1, 1]))
    assert wrong.auc.value == 0.0 and wrong.log_loss.value == pytest.approx((1e4 + 800 + 90 + 1e4) / 4)


def test_logits_that_saturate_still_rank() -> None:
    logits = torch.tensor([40.0, 41.0, 42.0, 43.0])
    assert len(set(torch.sigmoid(logits).tolist())) == 1
    assert click_metrics(logits, torch.tensor([0.0, 0, 1, 1])).auc.value == 1.0


def test_the_order_of_rows_does_not_change_a_bit() -> None:
    logits, labels = split(5000, decimals=2)
    want = click_metrics(logits, labels)
    rows = torch.randperm(5000, generator=torch.Generator().manual_seed(3))
    assert click_metrics(logits[rows], labels[rows]) == want
    assert log_loss(logits[rows], labels[rows]) == want.log_loss.value
    other = logits + split(5000, 4)[0]
    assert paired_difference(logits[rows], other[rows], labels[rows]) == paired_difference(logits, other, labels)


def test_paired_differences_are_those_of_resampled_rows() -> None:
    logits, labels = split(1200, decimals=3)
    other = logits + 0.3 * split(1200, 5, decimals=3)[0]
    found = paired_difference(logits, other, labels)
    first, second = click_metrics(logits, labels), click_metrics(other, labels)
    assert found.log_loss.value == pytest.approx(first.log_loss.value - second.log_loss.value, rel=1e-9)
    assert found.auc.value == first.auc.value - second.auc.value
    rng, losses, areas = np.random.default_rng(2), [], []
    for _ in range(400):
        rows = torch.from_numpy(rng.integers(1200, size=1200))
        again = paired_difference(logits[rows], other[rows], labels[rows])
        losses.append(again.log_loss.value)
        areas.append(again.auc.value)
    assert found.log_loss.high - found.log_loss.value == pytest.approx(1.96 * np.std(losses, ddof=1), rel=0.12)
    assert found.auc.high - found.auc.value == pytest.approx(1.96 * np.std(areas, ddof=1), rel=0.12)
    assert found.auc.high - found.auc.low < 0.6 * (first.auc.high - first.auc.low)  # what pairing is for
    swapped = paired_difference(other, logits, labels)
    assert swapped.auc.value == -found.auc.value and swapped.auc.low == pytest.approx(-found.auc.high)
    same = Estimate(0.0, 0.0, 0.0)
    assert paired_difference(logits, logits, labels).auc == paired_difference(logits, logits, labels).log_loss == same


def test_over_seeds() -> None:
    values = [0.449, 0.452, 0.4475]
    found = over_seeds(values)
    low, high = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    assert (found.n, found.mean, found.sd) == (3, pytest.approx(np.mean(values)), pytest.approx(np.std(values, ddof=1)))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    for few in ([0.4], [], [0.4, math.nan]):
        with pytest.raises(ValueError, match="at least two finite values"):
            over_seeds(few)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        ([0.0, 1.0, 2.0], [0.0, 0.0, 0.0], "of 3 rows 0 are clicks"),
        ([0.0, 1.0, 2.0], [1.0, 1.0, 0.0], "of 3 rows 2 are clicks"),
        ([0.0, math.nan], [0.0, 1.0], "logit nan is not finite"),
        ([0.0, 1.0], [0.0, 0.5], "label 0.5 is neither 0 nor 1"),
        ([0.0, 1.0], [0.0], r"the shapes are \(2,\) and \(1,\)"),
        ([], [], "at least one row"),
    ],
)
def test_what_is_refused(logits: list[float], labels: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        click_metrics(torch.tensor(logits), torch.tensor(labels))


def test_the_log_loss_needs_no_second_class() -> None:
    assert log_loss(torch.zeros(3), torch.ones(3)) == pytest.approx(math.log(2), rel=1e-15)


def test_paired_over_seeds_is_the_difference_of_the_means_and_knows_about_seeds() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 2, (500,), generator=generator).float()
    first = [torch.randn(500, generator=generator) for _ in range(3)]
    second = [torch.randn(500, generator=generator) for _ in range(3)]
    found = paired_over_seeds(first, second, labels)
    means = [sum(log_loss(logits, labels) for logits in model) / 3 for model in (first, second)]
    assert found.value == pytest.approx(means[0] - means[1])
    once = paired_over_seeds(first[:1], second[:1], labels)
    assert once.value == pytest.approx(paired_difference(first[0], second[0], labels).log_loss.value)
    assert once.high - once.low == pytest.approx(
        paired_difference(first[0], second[0], labels).log_loss.high
        - paired_difference(first[0], second[0], labels).log_loss.low
    )
    # trainings that are equal on these rows add nothing; ones that differ much make the interval wide
    same = paired_over_seeds([first[0]] * 3, [second[0]] * 3, labels)
    assert same.high - same.low == pytest.approx(once.high - once.low)
    apart = paired_over_seeds([first[0], first[0] + 3.0], [second[0]] * 2, labels)
    assert apart.high - apart.low > 3 * (once.high - once.low)
