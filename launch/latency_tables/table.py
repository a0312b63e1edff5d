"""A latency table as a cost: milliseconds of every choice of every decision, by launch/latency.py or by hand.

    {"base_ms": 1.5, "latency_ms": {"stage1.layer0": {"k3e3": 0.31, "k3e6": 0.52, ...}, ...}, "provenance": {...}}

The network's latency is taken to be the sum; the provenance says how good that is. A table made by hand has none.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from subshot.supernet.chain import ChainSpace
from subshot.supernet.space import Additive
from subshot.train.run_dir import read_json

KEYS = ("base_ms", "latency_ms")


def read_latency_table(path: Path, space: ChainSpace) -> Additive:
    """The table in the order of the space's decisions. Raises ValueError naming what is missing, unknown or no number,
    or the space that the table was measured for where that is another one.

    Layers among which an identity may be moved without changing the network must have equal entries, so that equal
    networks have equal latencies.
    """
    if not path.is_file():
        raise ValueError(
            f"the latency table {path} does not exist; correct its path, or measure it: "
            f"python launch/latency.py PRESET --out {path}"
        )
    record = read_json(path)
    if not isinstance(record, dict) or set(record) - {"provenance"} != set(KEYS):
        raise ValueError(f"{path} must be an object with base_ms and latency_ms (decision -> choice -> milliseconds)")
    if "provenance" in record:
        _require_space(path, record["provenance"], space)
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


def table_record(space: ChainSpace, latency: Additive, provenance: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `read_latency_table`."""
    rows = zip(space.decisions, latency.table, strict=True)
    return {
        "base_ms": latency.base,
        "latency_ms": {decision.name: dict(zip(decision.choices, row, strict=True)) for decision, row in rows},
        "provenance": {"space": space_record(space), **provenance},
    }


def space_record(space: ChainSpace) -> dict[str, Any]:
    """What a table is measured for, so that width and strides count too: channels and sides of maps along the chain."""
    stem = space.stem[-1].main[-1].out_channels
    return {
        "name": space.name,
        "input_size": space.input_size,
        "classes": space.classes,
        "channels": [stem, *(layer.out_channels for layer in space.layers), space.features],
        "map_sizes": [layer.size for layer in space.layers],
    }


def _require_space(path: Path, provenance: Any, space: ChainSpace) -> None:
    theirs, ours = provenance.get("space") if isinstance(provenance, dict) else None, space_record(space)
    if not isinstance(theirs, dict) or set(theirs) != set(ours):
        raise ValueError(
            f"{path}: provenance.space must have {', '.join(ours)}; measure the table with launch/latency.py"
        )
    if theirs != ours:
        raise ValueError(
            f"{path} was measured for {_in_words(theirs)}, and the networks here are of {_in_words(ours)}; measure "
            f"these with launch/latency.py --classes {ours['classes']}"
        )


def _in_words(record: dict[str, Any]) -> str:
    channels, sizes = ("-".join(map(str, dict.fromkeys(record[name]))) for name in ("channels", "map_sizes"))
    return (
        f"{record['name']} at {record['input_size']} px with {record['classes']} classes, {channels} channels, maps of "
        f"{sizes} px"
    )


def _require_names(path: Path, where: str, found: Any, wanted: list[str]) -> None:
    if not isinstance(found, dict) or set(found) != set(wanted):
        got = sorted(found) if isinstance(found, dict) else found
        raise ValueError(f"{path}: {where} must have exactly the entries {', '.join(wanted)}; it has {got}")


def _milliseconds(path: Path, where: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ValueError(f"{path}: {where} is {value!r}; it must be a number of milliseconds, 0 or more")
    return float(value)
