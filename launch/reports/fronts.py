"""Which networks are on the front of score against a cost: those to which none is both cheaper and better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from subshot.supernet.cost import activation_mib


@dataclass(frozen=True)
class CostAxis:
    """A cost as the history has it, and how people say it. key: in `costs`. limit: the names of its limits in a
    configuration, from above and from below; in the unit of the axis for `activation_elements`, else of the history."""

    key: str
    name: str
    unit: str
    limits: tuple[str, ...]

    def value(self, costs: dict[str, Any]) -> float:
        raw = float(costs[self.key])
        return activation_mib(raw) if self.key == "activation_elements" else raw


COST_AXES = (
    CostAxis("macs", "MACs of one {sample}", "", ("max_macs", "min_macs")),
    CostAxis("params", "parameters", "", ("max_params",)),
    CostAxis("activation_elements", "activations of one {sample}", "MiB", ("max_activation_mib",)),
    CostAxis("latency_ms", "latency", "ms", ("max_latency_ms",)),
)


@dataclass(frozen=True)
class Point:
    """A network with its cost and what it is worth, higher is better. row: of the history, from which it is."""

    cost: float
    worth: float
    row: dict[str, Any]


def axes_of(rows: Sequence[dict[str, Any]]) -> list[CostAxis]:
    """The costs that every row has and in which they differ."""
    shared = [axis for axis in COST_AXES if rows and all(axis.key in row["costs"] for row in rows)]
    return [axis for axis in shared if len({row["costs"][axis.key] for row in rows}) > 1]


def points_of(rows: Sequence[dict[str, Any]], axis: CostAxis) -> list[Point]:
    return [Point(axis.value(row["costs"]), float(row["score"]), row) for row in rows if row["score"] is not None]


def front(points: Sequence[Point]) -> list[Point]:
    """Those that no other one beats: cheapest first, each better than all that cost less. Of equals the first."""
    found: list[Point] = []
    for point in sorted(points, key=lambda point: (point.cost, -point.worth)):
        if not found or point.worth > found[-1].worth:
            found.append(point)
    return found


def floor_of(points: Sequence[Point]) -> float | None:
    """Below what a picture need not reach, because a few candidates are far beneath all others; None where none is."""
    worths = sorted(point.worth for point in points)
    if not worths:
        return None
    usual, best = worths[len(worths) // 20], worths[-1]
    return usual - 0.3 * (best - usual) if worths[0] < usual - 1.5 * (best - usual) else None
