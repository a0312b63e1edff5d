"""What several tests of reports need."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Tau = tuple[float, float, float]
RankingOf = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def ranking_of() -> RankingOf:
    """Writes a ranking.json's content with the taus (value, low, high) that are asked for; None: undefined."""

    def estimate(value: float, low: float, high: float) -> dict[str, float]:
        return {"value": value, "low": low, "high": high}

    def row(kind: str, tau: Tau | None) -> dict[str, Any]:
        statistics = ("kendall", "spearman", "ndcg", "top_k_recall", "regret")
        if tau is None:
            return {"kind": kind, "undefined": 0, **dict.fromkeys(statistics)}
        rest = {"ndcg": (0.7, 0.5, 0.9), "top_k_recall": (0.33, 0.0, 1.0), "regret": (0.02, 0.0, 0.05)}
        found = {"kendall": tau, "spearman": tau, **rest}
        return {"kind": kind, "undefined": 0, **{name: estimate(*values) for name, values in found.items()}}

    def content(
        score: Tau | None,
        counts: dict[str, Tau],
        proxies: dict[str, Tau] | None = None,
        differences: dict[str, tuple[float, float]] | None = None,
        retrain: int | None = 7,
        **changed: Any,
    ) -> dict[str, Any]:
        networks = changed.get("networks", 12)
        metric = changed.get("metric", "test/accuracy")
        scores = {"score": row("score", score)}
        scores |= {name: row("count", tau) for name, tau in counts.items()}
        scores |= {name: row("proxy", tau) for name, tau in (proxies or {}).items()}
        between = differences or dict.fromkeys(counts, (-0.3, 0.4))
        known: dict[str, Any] = {
            "schema_version": 1,
            "networks": 12,
            "seeds": 2,
            "diverged": 0,
            "metric": metric,
            "looked_at": "Looked at something.",
            "ceiling_kendall": 0.66,
            "recall_of": 3,
            "scores": scores,
            "beside_counts": {name: {"low": low, "high": high} for name, (low, high) in between.items()},
            "confidence": {"level": 0.9, "retrain": retrain, "of": networks, "place_of_best": 4},
            "regret_of_first": None if score is None else {**estimate(0.021, 0.0, 0.05), "expected": 0.034},
            "sample": [
                {
                    "network": f"sampled-{place}",
                    "genotype": [place],
                    "score": 1.0 - 0.1 * place,
                    metric: [0.5 + 0.01 * place, None],
                    "costs": {"params": 10, "macs": 20},
                    "others": {},
                }
                for place in range(networks)
            ],
        }
        return known | changed

    return content
