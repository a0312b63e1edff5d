"""Latency tables as costs, and files that are not such tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from subshot.launch.config import LimitsConfig
from subshot.launch.latency_tables.table import read_latency_table, table_record
from subshot.launch.vision.build import make_constraints
from subshot.search.objectives import ImpossibleLimit
from subshot.supernet.nasbench_macro import nasbench_macro

SPACE = nasbench_macro(32, 10, 0.25)


def table() -> dict[str, Any]:
    rows = {d.name: {name: 0.5 * i for i, name in enumerate(d.choices)} for d in SPACE.decisions}
    return {"base_ms": 1.0, "latency_ms": rows}


def written(folder: Path, record: Any) -> Path:
    path = folder / "latency.json"
    path.write_text(json.dumps(record))
    return path


def test_a_network_costs_the_sum(tmp_path: Path) -> None:
    latency = read_latency_table(written(tmp_path, table()), SPACE)
    assert latency((0, 1, 2, 0, 1, 2, 0, 0)) == 1.0 + 0.5 + 1.0 + 0.5 + 1.0


def test_a_limit_on_it_is_a_constraint(tmp_path: Path) -> None:
    path = written(tmp_path, table())
    (constraint,) = make_constraints(LimitsConfig(max_latency_ms=4.0, latency_table=path), SPACE)
    assert constraint.limit.high == 4.0
    with pytest.raises(ImpossibleLimit, match="latency_ms.*minimum that the space reaches is 1"):
        make_constraints(LimitsConfig(max_latency_ms=0.5, latency_table=path), SPACE)
    with pytest.raises(ValueError, match="needs --limits.latency-table"):
        make_constraints(LimitsConfig(max_latency_ms=4.0), SPACE)


def test_a_measured_table_is_read_back_and_refused_elsewhere(tmp_path: Path) -> None:
    latency = read_latency_table(written(tmp_path, table()), SPACE)
    path = written(tmp_path, table_record(SPACE, latency, {"device_name": "a chip"}))
    assert read_latency_table(path, SPACE) == latency
    wider, smaller, more = nasbench_macro(32, 10, 0.5), nasbench_macro(64, 10, 0.25), nasbench_macro(32, 100, 0.25)
    theirs = r"nasbench-macro at 32 px with 10 classes, 8-16-32-64-320 channels, maps of 32-16-8-4 px"
    for space, ours in (
        (wider, "at 32 px with 10 classes, 16-32-64-128-640 channels"),
        (smaller, "at 64 px with 10 classes, 8-16-32-64-320 channels, maps of 64-32-16-8 px"),
        (more, "at 32 px with 100 classes"),
    ):
        with pytest.raises(
            ValueError,
            match=f"was measured for {theirs}, and the networks here are of .*{ours}.*--classes {space.classes}",
        ):
            read_latency_table(path, space)


def test_a_provenance_says_what_it_is_of(tmp_path: Path) -> None:
    for provenance in ("mine", {"space": {"name": "nasbench-macro"}}):
        path = written(tmp_path, table() | {"provenance": provenance})
        with pytest.raises(ValueError, match="provenance.space must have name, input_size, classes"):
            read_latency_table(path, SPACE)


def broken(change: str) -> Any:
    record = table()
    rows = record["latency_ms"]
    if change == "decision":
        del rows["stage1.layer0"]
    if change == "choice":
        rows["stage2.layer0"]["k9e9"] = 1.0
    if change == "text":
        rows["stage2.layer0"]["k3e3"] = "fast"
    if change == "negative":
        record["base_ms"] = -1.0
    if change == "run":
        rows["stage2.layer1"]["k3e3"] = 7.0
    return [] if change == "list" else record


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("decision", "latency_ms must have exactly the entries stage1.layer0"),
        ("choice", "latency_ms.stage2.layer0 must have exactly the entries"),
        ("text", "stage2.layer0.k3e3 is 'fast'; it must be a number of milliseconds"),
        ("negative", "base_ms is -1.0"),
        ("run", "stage2.layer1, stage2.layer2 are of one shape and must have equal entries"),
        ("list", "must be an object with base_ms and latency_ms"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, change: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        read_latency_table(written(tmp_path, broken(change)), SPACE)


def test_a_file_that_is_not_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "latency.json"
    path.write_text("{")
    with pytest.raises(ValueError, match=r"latency\.json is not JSON"):
        read_latency_table(path, SPACE)
