"""launch/latency.py, from its command line to a table that a search takes."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from subshot.launch import latency
from subshot.launch.config import LimitsConfig
from subshot.launch.latency_tables.chain import networks_over_macs, operations
from subshot.launch.latency_tables.measure import MeasureConfig, make_program, measured
from subshot.launch.latency_tables.table import read_latency_table
from subshot.launch.presets import PRESETS
from subshot.launch.vision.build import make_constraints, make_space
from subshot.supernet.nasbench_macro import nasbench_macro
from subshot.supernet.network import Block
from subshot.train.run_dir import read_json

QUICK = ["--runtime=torch", "--space.width=0.125", "--space.input-size=16", "--networks=10", "--rounds=4", "--calls=2"]
SPACE = nasbench_macro(16, 10, 0.125)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, status_of: Callable[..., int]) -> Path:
    """A table of the small space, coarse."""
    path = tmp_path_factory.mktemp("latency") / "tables" / "digits.json"
    assert status_of(latency, "digits", *QUICK, "--coarse=9", f"--out={path}") == 0
    return path


def test_equal_layers_share_one_measurement() -> None:
    """Of MobileNetV2 on 64 pixels: 141 candidates, 15 identities among them, are 66 operations."""
    space = make_space(PRESETS["mobilenetv2-imagenette"]().space, 10)
    found = operations(space)
    assert sum(len(layer.ops) for layer in space.layers) == 141 and len(found) == len(set(found)) == 66
    places = {(one.op, one.size) for one in found}
    assert all((op, layer.size) in places for layer in space.layers for op in layer.ops if op.name != "identity")


def test_networks_are_spread_over_macs() -> None:
    networks = networks_over_macs(SPACE, 10, 0)
    macs = [SPACE.cost(genotype).macs for genotype in networks]
    edges = np.linspace(SPACE.costs["macs"].minimum(), SPACE.costs["macs"].maximum(), 11)
    assert len(set(networks)) >= 8 and macs == sorted(macs) and all(SPACE.canonical(g) == g for g in networks)
    assert len(set(np.digitize(macs, edges[1:-1]))) == len(networks)
    assert networks == networks_over_macs(SPACE, 10, 0) != networks_over_macs(SPACE, 10, 1)


def test_a_search_takes_the_table(made: Path) -> None:
    table = read_latency_table(made, SPACE)
    (constraint,) = make_constraints(LimitsConfig(max_latency_ms=table.maximum(), latency_table=made), SPACE)
    assert constraint.cost == table and table.minimum() >= 0.0
    with pytest.raises(ValueError, match="was measured for .* 16 px"):
        make_constraints(LimitsConfig(latency_table=made), make_space(PRESETS["digits"]().space, 10))


def test_the_table_is_what_its_provenance_says(made: Path) -> None:
    """Entries are measured milliseconds less an empty program's, times the calibration's factor; errors as defined."""
    record, space = read_json(made), SPACE
    said: dict[str, Any] = record["provenance"]
    assert (
        said["space"]["classes"] == 10 and said["runtime"] == "torch" and said["runtime_version"] == torch.__version__
    )
    factor, nothing = said["calibration"]["factor"], said["parts"]["nothing"]["ms"]
    assert factor > 0.0 and record["base_ms"] == said["calibration"]["base"]
    by_shape = {(row["op"], row["in_channels"], row["out_channels"], row["size"]): row for row in said["operations"]}
    for layer in space.layers:
        for op in layer.ops:
            entry = record["latency_ms"][layer.name][op.name]
            if op.name == "identity":
                assert entry == 0.0
                continue
            row = by_shape[op.name, layer.in_channels, layer.out_channels, layer.size]
            ms = row.get("interpolated_ms", row.get("ms", 0.0) - nothing)
            assert entry == pytest.approx(factor * max(0.0, ms)) and row.get("p95_ms", np.inf) >= row.get("ms", 0.0)
    rows = said["networks"]
    held = [abs(row["table_ms"] / row["ms"] - 1.0) for row in rows[1::2]]
    assert said["errors"]["calibrated_percent"] == pytest.approx(100.0 * np.mean(held))


def test_a_coarse_table_says_what_was_interpolated(made: Path) -> None:
    said = read_json(made)["provenance"]
    interpolated = [row for row in said["operations"] if "interpolated_ms" in row]
    assert len(interpolated) == said["coarse"]["interpolated"] > 0
    assert 0 < said["coarse"]["checked"] <= len(interpolated) and said["coarse"]["percent"] >= 0.0
    for row in interpolated:
        alike = [o["ms"] for o in said["operations"] if o["op"] == row["op"] and "ms" in o]
        assert row["interpolated_ms"] <= max(alike)


def test_slower_programs_measure_slower_and_every_round_takes_all() -> None:
    programs = {name: (lambda seconds=seconds: time.sleep(seconds)) for name, seconds in (("a", 0.001), ("b", 0.01))}
    config = MeasureConfig(rounds=3, calls=2)
    seen = [{name: len(turns) for name, turns in times.items()} for times in measured(programs, config, 0)]
    assert seen == [{"a": n, "b": n} for n in (1, 2, 3)]
    *_, times = measured(programs, config, 0)
    assert {len(turn) for turns in times.values() for turn in turns} == {2}
    assert min(min(turn) for turn in times["b"]) > min(min(turn) for turn in times["a"])


def test_onnxruntime_runs_an_operation() -> None:
    layer = SPACE.layers[0]
    run = make_program(Block(layer.ops[1], SPACE.activation), (layer.in_channels, 16, 16), MeasureConfig(batch_size=2))
    *_, times = measured({"op": run}, MeasureConfig(rounds=2, calls=3), 0)
    assert len(times["op"]) == 2 and all(ms > 0.0 for turn in times["op"] for ms in turn)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["digit"], "there is no preset and no run folder 'digit'; did you mean digits?"),
        (["nasrec-small-criteo"], "searches nasrec-small, which is no chain of layers"),
        (["nasrec-smal"], "there is no preset and no run folder 'nasrec-smal'; there are digits, macro-cifar10, "),
        (["digits", "--networks", "3"], "--networks is 3; it must be 8 or more"),
        (["digits", "--batch-size", "0"], "--batch-size is 0; it must be 1 or more"),
        (["digits", "--device", "cuda"], "onnxruntime is measured on the CPU alone; for a GPU add --runtime torch"),
        (["digits", "--runtime", "tensorrt"], "tensorrt"),
    ],
)
def test_mistakes_end_with_2_and_one_sentence(
    arguments: list[str],
    sentence: str,
    tmp_path: Path,
    mistake_of: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert sentence in mistake_of(latency, *arguments)
    assert not list(tmp_path.iterdir())


def test_no_table_is_overwritten(made: Path, mistake_of: Callable[..., str]) -> None:
    before = made.read_bytes()
    assert "exists; name another --out" in mistake_of(latency, "digits", *QUICK, f"--out={made}")
    assert made.read_bytes() == before


def test_ctrl_c_leaves_nothing_and_says_so(
    tmp_path: Path, started: Callable[..., Any], wait_for: Callable[..., None]
) -> None:
    [process] = started("latency", "digits", *QUICK, "--rounds=100000", "--out=tables/t.json", folder=tmp_path)
    wait_for((tmp_path / "tables").is_dir, [process])
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 75 and "no table was written" in said and "Traceback" not in said
    assert not list((tmp_path / "tables").iterdir())
