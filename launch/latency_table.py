"""A latency table as a cost: milliseconds of every choice of every decision, measured by whoever made the file.

    {"base_ms": 1.5, "latency_ms": {"stage1.layer0": {"k3e3": 0.31, "k3e6": 0.52, ...}, ...}}

The network's latency is taken to be the sum; the file says nothing of how good that is.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from subshot.supernet.chain import ChainSpace
from subshot.supernet.space import Additive
from subshot.train.run_dir import read_json


def read_latency_table(path: Path, space: ChainSpace) -> Additive:
    """The table in the order of the space's decisions. Raises ValueError naming what is missing, unknown or no number.

    Layers among which an identity may be moved without changing the network must have equal entries, so that equal
    networks have equal latencies.
    """
    record = read_json(path)
    if not isinstance(record, dict) or set(record) != {"base_ms", "latency_ms"}:
        raise ValueError(f"{path} must be an object with base_ms and latency_ms (decision -> choice -> milliseconds)")
    names = [decision.name for decision in space.decisions]
    _require_names(path, "latency_ms", record["latency_ms"], names)
    table = []
    for decision in space.decisions:
        row = record["latency_ms"][decision.name]
        _require_names(path, f"latency_ms.{decision.name}", row, list(decision.choices))
        table.append(tuple(_milliseconds(path, f"{decision.name}.{name}", row[name]) for name in decision.choices))
    for first, last in space.interchangeable:
        if len(set(table[first:last])) > 1:
            listed = ", ".join(names[first:last])
            raise ValueError(f"{path}: {listed} are of one shape and must have equal entries; average them")
    return Additive(_milliseconds(path, "base_ms", record["base_ms"]), tuple(table))


def _require_names(path: Path, where: str, found: Any, wanted: list[str]) -> None:
    if not isinstance(found, dict) or set(found) != set(wanted):
        got = sorted(found) if isinstance(found, dict) else found
        raise ValueError(f"{path}: {where} must have exactly the entries {', '.join(wanted)}; it has {got}")


def _milliseconds(path: Path, where: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ValueError(f"{path}: {where} is {value!r}; it must be a number of milliseconds, 0 or more")
    return float(value)
