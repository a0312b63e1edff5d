"""Which networks are sampled, and what is said of how well a score ranks them: toys whose answers are known."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from subshot.launch.correlation.ranking import Trained, judged
from subshot.launch.correlation.sample import Scored, stratified
from subshot.launch.correlation.scores import Column

N = 12


def networks(count: int, seed: int = 0) -> list[Scored]:
    scores = np.random.default_rng(seed).permutation(count)
    return [Scored((int(place), 1), float(score)) for place, score in enumerate(scores)]


@pytest.mark.parametrize("count", [8, 12, 30])
def test_a_sample_has_the_best_and_one_of_every_part(count: int) -> None:
    drawn = networks(200)
    best = [Scored((1000 + place, 0), 1000.0 - place) for place in range(10)]
    found = stratified(best, drawn, count, 0, ())
    tops = max(1, count // 6)
    assert found[:tops] == best[:tops]
    rest = [network.score for network in found[tops:]]
    assert len({network.genotype for network in found}) == count
    parts = np.array_split(np.arange(199, -1, -1), count - tops)
    assert all(score in part for score, part in zip(rest, parts, strict=True))


def test_a_sample_is_a_function_of_the_seed() -> None:
    best, drawn = networks(3, 1), networks(100)
    first = stratified(best, drawn, 12, 5, ())
    assert first == stratified(best, list(reversed(drawn)), 12, 5, ())
    assert first != stratified(best, drawn, 12, 6, ())


def test_what_was_trained_is_taken_before_others_of_its_part() -> None:
    best, drawn = networks(3, 1), networks(100)
    chosen = {network.genotype for network in stratified(best, drawn, 12, 0, ())}
    spare = next(network.genotype for network in drawn if network.genotype not in chosen)
    found = {network.genotype for network in stratified(best, drawn, 12, 0, {spare})}
    assert spare in found and len(found - chosen) == 1


def test_a_network_that_both_searches_found_is_taken_once() -> None:
    drawn = networks(9)
    best = sorted(drawn, key=lambda network: -network.score)
    assert len({network.genotype for network in stratified(best, drawn, 9, 0, ())}) == 9
    with pytest.raises(ValueError, match="--sample is 10, and random search scored only 8 other networks"):
        stratified(best, drawn, 10, 0, ())


@dataclass(frozen=True)
class Toys:
    """Trainings of which only what judging asks for is there."""

    maximize: bool = True
    metric: str = "test/accuracy"
    guess: float = 0.1
    looked_at: str = "Toys."

    def in_per_cent(self, value: float) -> float:
        return 100.0 * value if self.maximize else max(0.0, 100.0 * (1.0 - value / self.guess))


def sample_of(values: Any, scores: Any = None, **columns: Any) -> list[Trained]:
    """values: of the metric, [n] or [n, seeds]. columns: params and macs, 1 where not given."""
    rows = [row if isinstance(row, list | tuple) else [row] for row in values]
    scores = range(len(rows)) if scores is None else scores
    costs = {name: columns.get(name, [1] * len(rows)) for name in ("params", "macs")}
    return [
        Trained(
            f"sampled-{place}",
            (place,),
            float(scores[place]),
            tuple(row),
            {name: int(column[place]) for name, column in costs.items()},
        )
        for place, row in enumerate(rows)
    ]


def judge(sample: list[Trained], toys: Toys | None = None, **others: Column) -> dict[str, Any]:
    found = judged(sample, others, toys or Toys(), 0, 100)  # type: ignore[arg-type]
    json.dumps(found, allow_nan=False)
    return found


RISING = [0.3 + 0.05 * place for place in range(N)]


def test_a_perfect_score_and_a_count_that_is_upside_down() -> None:
    found = judge(sample_of(RISING, params=range(N, 0, -1), macs=range(N)))
    score, params = found["scores"]["score"], found["scores"]["params"]
    for statistic, wanted in (("kendall", 1), ("spearman", 1), ("ndcg", 1), ("top_k_recall", 1), ("regret", 0)):
        assert score[statistic] == pytest.approx({"value": wanted, "low": wanted, "high": wanted})
    assert params["kendall"]["value"] == pytest.approx(-1)
    assert params["regret"]["value"] == pytest.approx(RISING[-1] - RISING[0])
    assert params["top_k_recall"]["value"] == 0
    assert found["beside_counts"]["params"] == pytest.approx({"low": 2.0, "high": 2.0})
    assert found["beside_counts"]["macs"] == {"low": 0.0, "high": 0.0}
    assert found["confidence"] == {"level": 0.9, "retrain": 1, "of": N, "place_of_best": 1}
    assert found["regret_of_first"]["expected"] == 0
    assert found["seed_kendall"] is None and found["diverged"] == 0


def test_lower_is_better_for_a_loss() -> None:
    toys = Toys(maximize=False, metric="val/log_loss", guess=0.9)
    found = judge(sample_of(list(reversed(RISING))), toys)
    assert found["scores"]["score"]["kendall"]["value"] == pytest.approx(1)
    assert found["sample"][0]["val/log_loss"] == [RISING[-1]]


def test_a_score_of_no_use_has_an_interval_with_zero_and_needs_most() -> None:
    values = np.random.default_rng(7).permutation(RISING).tolist()
    found = judge(sample_of(values, params=np.random.default_rng(8).permutation(N)))
    tau = found["scores"]["score"]["kendall"]
    assert abs(tau["value"]) < 0.35 and tau["low"] < 0 < tau["high"]
    assert found["confidence"]["retrain"] >= 9
    assert found["beside_counts"]["params"]["low"] < 0


def test_seeds_are_averaged_and_their_agreement_is_told() -> None:
    rows = [[value, value + 0.01] for value in RISING]
    assert judge(sample_of(rows))["seed_kendall"] == pytest.approx(1)
    crossed = [[value, other] for value, other in zip(RISING, reversed(RISING), strict=True)]
    found = judge(sample_of(crossed))
    assert found["seed_kendall"] == pytest.approx(-1) and found["seeds"] == 2


@pytest.mark.parametrize(("toys", "values"), [(Toys(), RISING), (Toys(False, guess=0.5), RISING[::-1])])
def test_what_diverged_is_last(toys: Toys, values: list[float]) -> None:
    """Or level with the worst, where that is worse than guessing: tau is that of one tie then."""
    broken: list[float | None] = [None, *values[1:]]
    found = judge(sample_of(broken), toys)
    assert found["diverged"] == 1 and found["scores"]["score"]["kendall"]["value"] > 0.99
    upside_down = judge(sample_of([*values[:-1], None]), toys)
    assert upside_down["scores"]["score"]["regret"]["value"] > 0
    with pytest.raises(ValueError, match="every training of the sample diverged"):
        judge(sample_of([None] * N), toys)


def test_proxies_have_a_direction_and_may_be_undefined() -> None:
    down = Column("proxy", False, tuple(-float(place) for place in range(N)))
    half = Column("kind", True, (None, *map(float, range(1, N))))
    found = judge(sample_of(RISING), down=down, half=half, gone=Column("proxy", True, (None,) * N))["scores"]
    assert found["down"]["kendall"]["value"] == pytest.approx(1)
    assert found["half"]["undefined"] == 1 and found["half"]["kendall"]["value"] == pytest.approx(1), (
        "the undefined one is last"
    )
    assert found["gone"] == {"kind": "proxy", "undefined": N} | dict.fromkeys(
        ("kendall", "spearman", "ndcg", "top_k_recall", "regret")
    )


def test_what_is_constant_has_no_correlation_and_is_not_favoured_by_the_order() -> None:
    """The sample is sorted by score: a count that ties all must not get the score's order for its own."""
    sample = [replace(network) for network in reversed(sample_of(RISING))]
    found = judge(sample)["scores"]["params"]
    assert found["kendall"] is None and found["spearman"] is None
    assert found["regret"]["value"] > 0
    assert judge(sample_of([0.5] * N))["scores"]["score"]["kendall"] is None
    assert judge(sample_of([0.5] * N))["confidence"]["retrain"] is None


def test_the_rankings_of_other_tests_have_this_form(ranking_of: Callable[..., dict[str, Any]]) -> None:
    made_up = ranking_of((0.5, 0.1, 0.8), {"params": (0.1, 0.0, 0.2)}, {"zico": (0.1, 0.0, 0.2)})
    real = judge(sample_of(RISING, params=range(N)), zico=Column("proxy", True, tuple(map(float, range(N)))))
    assert made_up.keys() == real.keys()
    for name in ("score", "params", "zico"):
        assert made_up["scores"][name].keys() == real["scores"][name].keys()
    for name in ("confidence", "regret_of_first"):
        assert made_up[name].keys() == real[name].keys()
    assert made_up["sample"][0].keys() == real["sample"][0].keys()
